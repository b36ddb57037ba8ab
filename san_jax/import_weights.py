"""Weights from elsewhere into a checkpoint of ours.

    python -m san_jax.import_weights resnet50-0676ba61.pth imagenet      # then train.py --config.init_from=imagenet
    python -m san_jax.import_weights checkpoint_ep300.pth.tar authors    # then eval.py --checkpoint=authors

It takes what `starting_weights.read_tensors` reads; `config.init_from` takes such files without this step.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from san_jax import commands
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.networks.encoder import BLOCKS
from san_jax.starting_weights import Tensors, fill, read_tensors, shortened
from san_jax.training import checkpoints
from san_jax.training.train_step import Networks, make_state
from san_jax.weights import torch_names

CHANNELS = {"conv1.weight": 64, "reduce_dim.0.weight": 512}  # of encoder and decoder at width 1


def import_file(path: Path, out: Path, *, last_stride: int | None, height: int, width: int) -> None:
    """Writes a checkpoint of ours with the weights of a file; `out` then holds it as a run's workdir does.

    Depth, widths, fc, people and decoder follow from the file. Where it has no classifier, ours is one zero output.

    Args:
      path: a file with PyTorch's names (see `read_tensors`).
      out: a folder that is empty or not there.
      last_stride: of stage 4; None is 1 for networks of re-ID, with fc or decoder, and 2 for others, as in torchvision.
      height: of the pictures that the network sees, in pixels.
      width: likewise.

    Raises:
      UserError: the file cannot be read or is of no network of ours, or the folder cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is there already; give a new folder")
    tensors = read_tensors(path)
    architecture = architecture_of(tensors, source=str(path), last_stride=last_stride, height=height, width=width)
    networks = Networks("san" if draws(tensors) else "baseline", architecture)
    if networks.draws:
        architecture.check(draws=True)
    no_tx = optax.GradientTransformation(lambda params: {}, lambda *_: {})
    fresh = jax.eval_shape(functools.partial(make_state, networks, reid_tx=no_tx, recon_tx=no_tx, seed=0))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), fresh)
    state = fill(state, tensors, architecture=architecture, source=str(path))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out} ({error.strerror or error}); give another one") from error
    with checkpoints.Checkpoints(out, architecture) as saved:
        saved.save(0, state)
    stride = architecture.last_stride
    print(f"{out} sees pictures of {height} x {width} (--height, --width) at last stride {stride} (--last_stride)")


def draws(tensors: Tensors) -> bool:
    """Whether there is a decoder among them."""
    return "reduce_dim.0.weight" in tensors


def architecture_of(tensors: Tensors, *, source: str, last_stride: int | None, height: int, width: int) -> Architecture:
    """The networks that these tensors fill; what names and shapes don't show is given (see `import_file`).

    Raises:
      UserError: they are no ResNet of ours.
    """
    depth = torch_names.depth_of(tensors)
    if depth is None:
        raise UserError(f"{source} is no ResNet of depth {', '.join(map(str, BLOCKS))}; it holds {shortened(tensors)}")

    def rows(name: str, default: int) -> int:
        shape = np.shape(tensors.get(name))
        return shape[0] if shape else default

    encoder_width, decoder_width = (rows(name, channels) / channels for name, channels in CHANNELS.items())
    fc_dim = rows("fc.0.weight", 0)
    return Architecture(
        depth=depth,
        fc_dim=fc_dim,
        last_stride=last_stride or (1 if fc_dim or draws(tensors) else 2),
        encoder_width=encoder_width,
        num_pids=rows("classifier.weight", 1),
        decoder_width=decoder_width,
        skips="embed_layer3.0.weight" in tensors or not draws(tensors),
        height=height,
        width=width,
    )


def main() -> None:
    """The command; its flags are defined here, so that who imports this module does not get them."""
    last_stride = flags.DEFINE_integer(
        "last_stride",
        None,
        "Of stage 4. Default: 1 with fc or decoder, else 2 as in torchvision.",
        lower_bound=1,
        upper_bound=2,
    )
    height = flags.DEFINE_integer("height", 256, "Of the pictures that the network sees, in pixels.", lower_bound=1)
    width = flags.DEFINE_integer("width", 128, "Of the pictures that the network sees, in pixels.", lower_bound=1)
    commands.run(
        lambda path, out: import_file(path, out, last_stride=last_stride.value, height=height.value, width=width.value),
        files=("PATH", "OUT"),
    )


if __name__ == "__main__":
    main()
