"""Trains a network from a config; start it again on the same workdir and it goes on where it was.

    python train.py --config=configs/san.py --workdir=runs/san --config.data.manual_dir=RELEASE
    python train.py --config=configs/san.py:small --workdir=runs/small --config.batch.identities=4
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from san_jax import commands

CONFIG = config_flags.DEFINE_config_file("config", "configs/san.py", "What to train; add :small for two CPU cores.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of everything that the run leaves behind.", required=True)


def main() -> None:
    """Trains what the flags say."""
    commands.train(CONFIG.value, Path(WORKDIR.value))


if __name__ == "__main__":
    commands.run(main)
