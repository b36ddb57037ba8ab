"""Trains a network from a config; start it again on the same workdir and it goes on where it was.

    python train.py --config=configs/san.py --config.data.manual_dir=RELEASE                # into runs/san
    python train.py --config=configs/san.py:small --workdir=runs/small --config.batch.identities=4
"""

from absl import flags

from san_jax.commands import common, config_file


def main() -> None:
    """The command; its flags are defined here, so that who imports this module does not get them."""
    config = config_file.define("configs/san.py", "What to train; add :small for two CPU cores.")
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of everything that the run leaves behind. Default: runs/CONFIG, or runs/CONFIG_SIZE."
    )
    common.run_command(lambda: common.train(config.value, config_file.workdir(workdir.value)), module=__name__)


if __name__ == "__main__":
    main()
