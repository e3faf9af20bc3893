"""How built-in worlds are made: floor plans, walls, furniture, textures."""
