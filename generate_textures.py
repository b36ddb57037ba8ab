"""Generates a texture for every picture of a folder or data set; see san_jax/commands/textures.py."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from san_jax.process import stopping

    stopping.end_on_signals()

from san_jax.commands import textures

if __name__ == "__main__":
    textures.main()
