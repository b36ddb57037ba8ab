"""Trains a network from a config; `python train.py --help` and san_jax/commands/train.py say how."""

from san_jax.commands import train

if __name__ == "__main__":
    train.main()
