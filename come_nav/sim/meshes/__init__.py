"""Places read from meshes."""
