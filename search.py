"""Finds the pictures of a folder that are most like a given one; san_jax/commands/search.py says how."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from san_jax.process import stopping

    stopping.end_on_signals()

from san_jax.commands import search

if __name__ == "__main__":
    search.main()
