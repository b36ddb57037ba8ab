"""Trains a network from a config; started again on the same workdir, it resumes from the newest checkpoint.

    python train.py --config=configs/san.py --config.data.manual_dir=RELEASE                # into runs/san
    python train.py --config=configs/san.py:small --workdir=runs/small --config.batch.identities=4
"""

from absl import flags

from san_jax.commands import common, config_file
from san_jax.errors import UserError


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    about = "Config file; append :small for two CPU cores. --config.FIELD=VALUE sets one of its fields."
    config = config_file.define("configs/san.py", about)
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder for everything that the run writes. Default: runs/CONFIG, or runs/CONFIG_SIZE."
    )
    profile = flags.DEFINE_string(
        "profile", None, "FIRST:LAST records steps FIRST to LAST - 1 with JAX's profiler, in WORKDIR/profile."
    )

    def train() -> None:
        profiled = steps_of(profile.value) if profile.value else range(0)
        common.train(config.value, config_file.workdir(workdir.value), profiled=profiled)

    common.run_command(train, module=__name__, remote=("workdir",))


def steps_of(written: str) -> range:
    """The steps that --profile names.

    Raises:
      UserError: it is not of the form FIRST:LAST, or names no step.
    """
    first, _, last = written.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--profile={written}: give FIRST:LAST, two steps in ascending order, such as 100:110")
    return range(int(first), int(last))


if __name__ == "__main__":
    main()
