"""Finds the pictures of a folder that are most similar to a given one; see san_jax/commands/search.py."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from san_jax.process import stopping

    stopping.end_on_signals()

from san_jax.commands import search

if __name__ == "__main__":
    search.main()
