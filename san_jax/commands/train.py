"""Trains a network from a config; started again on the same workdir, it resumes from the newest checkpoint.

    python train.py --config=configs/san.py --config.data.manual_dir=RELEASE                # into runs/san
    python train.py --config=configs/san.py:small --workdir=runs/small --config.batch.identities=4
"""

from absl import flags

from san_jax.commands import common, config_file


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    about = "Config file; append :small for two CPU cores. --config.FIELD=VALUE sets one of its fields."
    config = config_file.define("configs/san.py", about)
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder for everything that the run writes. Default: runs/CONFIG, or runs/CONFIG_SIZE."
    )
    common.run_command(lambda: common.train(config.value, config_file.workdir(workdir.value)), module=__name__)


if __name__ == "__main__":
    main()
