"""Video topics: pieces of H.264 and H.265 in messages, and pictures of them."""
