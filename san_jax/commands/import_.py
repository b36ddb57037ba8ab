"""Weights from elsewhere into a checkpoint of ours.

    san-jax import resnet50-0676ba61.pth imagenet      # then train.py --config.init_from=imagenet
    san-jax import checkpoint_ep300.pth.tar authors    # then eval.py --checkpoint=authors

It takes the files of docs/weights.md; `config.init_from` takes them without this step.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

from san_jax.commands import common
from san_jax.errors import UserError
from san_jax.training import checkpoints
from san_jax.training.train_step import TrainState
from san_jax.weights import stored
from san_jax.weights.loading import load_weights

STAGING = ".importing"  # of the folder that is written; what it holds counts only once it has been moved out


def import_file(
    path: Path, out: Path, *, last_stride: int | None = None, height: int | None = None, width: int | None = None
) -> None:
    """Writes a checkpoint of ours with the weights of a file; `out` then holds it as a run's workdir does.

    Args:
      path: a file of PyTorch or safetensors.
      out: a folder that is empty or not there; after an error it is as it was.
      last_stride: see `load_weights`, as for height and width.
      height: of the pictures that the network sees, in pixels.
      width: as `height`.

    Raises:
      UserError: the file cannot be read or is of no network of ours, or the folder cannot be written.
    """
    stored.check_name(out)
    if os.path.exists(out) and not (out.is_dir() and all(entry.name == STAGING for entry in out.iterdir())):
        raise UserError(f"{out} is there already; give a new folder")
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
        f"{out} sees pictures of {shape.height} x {shape.width} (--height, --width) "
        f"at last stride {shape.last_stride} (--last_stride)"
    )


@contextlib.contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder to write into, whose entries stand in `out` afterwards; if anything fails, `out` is as it was.

    Raises:
      UserError: it cannot be written.
    """
    staging = out / STAGING
    made = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]  # inner before outer
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of an import that was killed
        staging.mkdir(parents=True)
        yield staging
        for entry in sorted(staging.iterdir()):
            entry.replace(out / entry.name)
        staging.rmdir()
    except BaseException as error:  # Ctrl-C too
        for name in (STAGING, "best", "checkpoints"):
            shutil.rmtree(out / name, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        cause = error.__cause__ if isinstance(error, UserError) else error  # whose message names the staging folder
        if not isinstance(error, UserError | OSError) or cause is None:
            raise
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split())[:200]
        raise UserError(f"cannot write {out} ({reason}); make room or give another folder") from error


def main() -> None:
    """The command; its flags are defined here, so that who imports this module does not get them."""
    last_stride = flags.DEFINE_integer(
        "last_stride",
        None,
        "Of stage 4. Default: what the file or its code says (docs/weights.md).",
        lower_bound=1,
        upper_bound=2,
    )
    height = flags.DEFINE_integer("height", None, "Of the pictures that the network sees. Default: 256.", lower_bound=1)
    width = flags.DEFINE_integer("width", None, "Of the pictures that the network sees. Default: 128.", lower_bound=1)
    common.run_command(
        lambda path, out: import_file(path, out, last_stride=last_stride.value, height=height.value, width=width.value),
        files=("FILE", "OUT"),
        module=__name__,
    )


if __name__ == "__main__":
    main()
