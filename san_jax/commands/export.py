"""A checkpoint's weights under PyTorch's names and in its layouts, encoder and decoder in one file.

    san-jax export runs/san san.safetensors          # the newest checkpoint
    san-jax export runs/san san.pth --best           # the best one, for torch.load

In PyTorch, `load_state_dict(safetensors.torch.load_file("san.safetensors"), strict=False)` of encoder and of decoder,
or `load_state_dict(torch.load("san.pth"), strict=False)`.
"""

from pathlib import Path

import jax
from absl import flags

from san_jax import devices
from san_jax.commands import common
from san_jax.model import of_checkpoint
from san_jax.weights import stored
from san_jax.weights.saving import check_suffix


def export(path: Path, out: Path, *, best: bool = False) -> None:
    """Writes the weights of a run or checkpoint; a file that is there is replaced by a whole one or not at all.

    Args:
      path: a run's workdir, or one checkpoint's folder.
      out: the file; its suffix says its format (see `save_weights`).
      best: the run's best checkpoint, by mAP or, of a texture generator, by L1, in place of its newest.

    Raises:
      UserError: there is no checkpoint, it cannot be read, or the file cannot be written.
    """
    check_suffix(out)
    model = of_checkpoint(stored.find(path, best=best), devices.make_mesh())
    size = model.save(out)
    if jax.process_index() == 0:
        count = len(jax.tree.leaves(model.weights))
        print(f"{out}: {count} tensors of {model.source}, {size / 1e6:.1f} MB", flush=True)


def main() -> None:
    """The command; its flag is defined here, so that who imports this module does not get it."""
    best = flags.DEFINE_bool("best", False, "Export the best checkpoint instead of the newest.")
    common.run_command(lambda path, out: export(path, out, best=best.value), files=("RUN", "OUT"), module=__name__)


if __name__ == "__main__":
    main()
