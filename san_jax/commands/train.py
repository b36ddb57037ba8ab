"""Trains a network from a config; start it again on the same workdir and it goes on where it was.

    python train.py --config=configs/san.py --workdir=runs/san --config.data.manual_dir=RELEASE
    python train.py --config=configs/san.py:small --workdir=runs/small --config.batch.identities=4
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from san_jax.commands import common


def main() -> None:
    """The command; its flags are defined here, so that who imports this module does not get them."""
    config = config_flags.DEFINE_config_file(
        "config", "configs/san.py", "What to train; add :small for two CPU cores."
    )
    workdir = flags.DEFINE_string("workdir", None, "Folder of everything that the run leaves behind.", required=True)
    common.run(lambda: common.train(config.value, Path(workdir.value)), module=__name__)


if __name__ == "__main__":
    main()
