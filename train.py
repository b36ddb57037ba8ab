"""Trains a network from a config; see `python train.py --help` or san_jax/commands/train.py."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from san_jax.process import stopping

    stopping.end_on_signals()

from san_jax.commands import train

if __name__ == "__main__":
    train.main()
