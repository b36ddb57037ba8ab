"""Draws the texture image of every picture of a folder or data set; san_jax/commands/textures.py says how."""

from san_jax.commands import textures

if __name__ == "__main__":
    textures.main()
