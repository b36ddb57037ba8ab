"""Exports a checkpoint's weights under PyTorch's names and in its layouts, encoder and decoder in one file.

    san-jax export runs/san san.safetensors          # the newest checkpoint
    san-jax export runs/san san.pth --best           # the best one, for torch.load
    san-jax export runs/san san.safetensors --half   # values rounded to float16, in half the bytes
    san-jax export rendered-small small.pth          # weights that come with the package, for PyTorch

In PyTorch, load them into encoder and decoder each by
`load_state_dict(safetensors.torch.load_file("san.safetensors"), strict=False)` or
`load_state_dict(torch.load("san.pth"), strict=False)`.
"""

from pathlib import Path

import jax
from absl import flags

from san_jax import model as models
from san_jax.commands import common
from san_jax.weights.saving import check_suffix


def export(path: Path, out: Path, *, best: bool = False, half: bool = False) -> None:
    """Writes the weights of a run, a checkpoint or a file of weights to a file, atomically.

    Args:
      path: a run's workdir, the folder of one checkpoint, a file of weights, or a name of `pretrained`.
      out: the file; its suffix selects the format (see `save_weights`).
      best: whether to export the run's best checkpoint (by mAP; by L1 for a texture generator), not its newest.
      half: whether values are rounded to float16.

    Raises:
      UserError: there are no weights, they cannot be read, or the file cannot be written (see `save_weights`).
    """
    check_suffix(out)
    model = models.load(path, best=best)
    size = model.save(out, half=half)
    if jax.process_index() == 0:
        count = len(jax.tree.leaves(model.weights))
        print(f"{out}: {count} tensors of {model.source}, {size / 1e6:.1f} MB", flush=True)


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    best = flags.DEFINE_bool("best", False, "Export the best checkpoint, not the newest.")
    half = flags.DEFINE_bool("half", False, "Round values to float16, in half the bytes.")
    common.run_command(
        lambda path, out: export(path, out, best=best.value, half=half.value), files=("RUN", "OUT"), module=__name__
    )


if __name__ == "__main__":
    main()
