"""Finds the pictures of a folder that are most like a given one; san_jax/commands/search.py says how."""

import signal

if __name__ == "__main__":  # the imports below take seconds, and Ctrl-C among them would end in a long trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from san_jax.commands import search

if __name__ == "__main__":
    search.main()
