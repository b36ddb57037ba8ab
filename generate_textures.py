"""Draws the texture image of every picture of a folder or data set; san_jax/commands/textures.py says how."""

import signal

if __name__ == "__main__":  # the imports below take seconds, and Ctrl-C among them would end in a long trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from san_jax.commands import textures

if __name__ == "__main__":
    textures.main()
