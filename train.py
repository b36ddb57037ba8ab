"""Trains a network from a config; `python train.py --help` and san_jax/commands/train.py say how."""

import signal

if __name__ == "__main__":  # the imports below take seconds, and Ctrl-C among them would end in a long trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from san_jax.commands import train

if __name__ == "__main__":
    train.main()
