"""Converts a file of PyTorch or safetensors weights to a checkpoint of this package.

    san-jax import resnet50-0676ba61.pth imagenet      # then train.py --config.init_from=imagenet
    san-jax import checkpoint_ep300.pth.tar authors    # then eval.py --checkpoint=authors

Supported files are listed in docs/weights.md; `config.init_from` also reads them directly.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

from san_jax import files
from san_jax.commands import common
from san_jax.errors import UserError
from san_jax.training import checkpoints
from san_jax.training.train_step import TrainState
from san_jax.weights import stored
from san_jax.weights.loading import load_weights

QUIET = 5  # tenths of a second in which nobody has written into a folder that was removed
STAGING = ".importing"  # subfolder that is written first; its contents are moved out when they are complete


def import_file(
    path: Path, out: Path, *, last_stride: int | None = None, height: int | None = None, width: int | None = None
) -> None:
    """Writes a checkpoint with the weights of a file; `out` then has the layout of a run's workdir.

    Args:
      path: a PyTorch or safetensors file.
      out: a folder that is empty or does not exist; unchanged after an error.
      last_stride: stride of stage 4; see `load_weights`, as for height and width.
      height: height of the network's input in pixels.
      width: its width.

    Raises:
      UserError: the file cannot be read or its network is not supported, or the folder cannot be written.
    """
    for place, what in ((path, "FILE"), (out, "OUT")):
        files.check_local(place, what=what)
    stored.check_name(out)
    if os.path.exists(out) and not (out.is_dir() and all(entry.name == STAGING for entry in out.iterdir())):
        raise UserError(f"{out} exists already; give a new folder")
    loaded = load_weights(path, height=height, width=width, last_stride=last_stride)
    print(f"weights of {path}\n{loaded.report}", flush=True)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        **{"decoder": {}, "decoder_stats": {}} | jax.tree.map(jnp.asarray, loaded.weights),
        reid_opt={},
        recon_opt={},
    )
    shape = loaded.architecture
    with whole_or_nothing(out) as staging, checkpoints.Checkpoints(staging, shape, mode=loaded.mode) as saved:
        saved.save(0, state)
    print(
        f"{out}: input {shape.height} x {shape.width} pixels (--height, --width), "
        f"last stride {shape.last_stride} (--last_stride)"
    )


@contextlib.contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """A staging folder whose entries are moved to `out` afterwards; if anything fails, `out` is unchanged.

    Raises:
      UserError: the folder cannot be written.
    """
    staging = out / STAGING
    made = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]  # inner before outer
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by an import that was killed
        staging.mkdir(parents=True)
        yield staging
        for entry in sorted(staging.iterdir()):
            entry.replace(out / entry.name)
        staging.rmdir()
    except BaseException as error:  # Ctrl-C too
        _remove([out / name for name in (STAGING, "best", "checkpoints")])
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        # A UserError's own message would name the staging folder.
        cause = error.__cause__ if isinstance(error, UserError) else error
        if not isinstance(error, UserError | OSError) or cause is None:
            raise
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())[:200]
        raise UserError(f"cannot write {out} ({reason}); free some space or give another folder") from error


def _remove(folders: Sequence[Path]) -> None:
    """Removes folders until they stay away: after a failed write, orbax's other threads go on for a moment."""
    away = 0
    for _ in range(100):
        away = 0 if any(os.path.exists(folder) for folder in folders) else away + 1
        if away > QUIET:
            return
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    last_stride = flags.DEFINE_integer(
        "last_stride",
        None,
        "Stride of stage 4. Default: that of the file, or of the code that wrote it (docs/weights.md).",
        lower_bound=1,
        upper_bound=2,
    )
    height = flags.DEFINE_integer("height", None, "Input height in pixels. Default: 256.", lower_bound=1)
    width = flags.DEFINE_integer("width", None, "Input width in pixels. Default: 128.", lower_bound=1)
    common.run_command(
        lambda path, out: import_file(path, out, last_stride=last_stride.value, height=height.value, width=width.value),
        files=("FILE", "OUT"),
        module=__name__,
    )


if __name__ == "__main__":
    main()
