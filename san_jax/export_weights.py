"""A checkpoint's weights under PyTorch's names and in its layouts, encoder and decoder in one safetensors file.

    python -m san_jax.export_weights runs/san san.safetensors          # the newest checkpoint
    python -m san_jax.export_weights runs/san san.safetensors --best   # the best one

In PyTorch, `load_state_dict(safetensors.torch.load_file("san.safetensors"), strict=False)` of encoder and of decoder.
"""

from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from absl import flags

from san_jax import commands, devices, files
from san_jax.starting_weights import read_checkpoint
from san_jax.training import checkpoints


def export(path: Path, out: Path, *, best: bool = False) -> None:
    """Writes the weights of a run or checkpoint; a file that is there is replaced by a whole one or not at all.

    Args:
      path: a run's workdir, or one checkpoint's folder.
      out: the safetensors file; float32, and `num_batches_tracked`, int64 zeros, for PyTorch's strict loading.
      best: the run's best checkpoint, by mAP or, of a texture generator, by L1, in place of its newest.

    Raises:
      UserError: there is no checkpoint, it cannot be read, or the file cannot be written.
    """
    checkpoint = checkpoints.find(path, best=best)
    tensors = read_checkpoint(checkpoint, devices.replicated(devices.make_mesh()))
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
    counters = {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    content = safetensors.numpy.save(tensors | counters, {"format": "pt"})
    if jax.process_index():
        return
    files.write(out, content)
    print(f"{out}: {len(tensors)} tensors of {checkpoint}, {len(content) / 1e6:.1f} MB", flush=True)


def main() -> None:
    """The command; its flag is defined here, so that who imports this module does not get it."""
    best = flags.DEFINE_bool("best", False, "Export the best checkpoint instead of the newest.")
    commands.run(lambda path, out: export(path, out, best=best.value), files=("WORKDIR", "OUT.safetensors"))


if __name__ == "__main__":
    main()
