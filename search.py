"""Finds the pictures of a folder that are most like a given one; san_jax/commands/search.py says how."""

from san_jax.commands import search

if __name__ == "__main__":
    search.main()
