"""A checkpoint's weights under PyTorch's names and in its layouts, encoder and decoder in one file.

    python -m san_jax.commands.export runs/san san.safetensors          # the newest checkpoint
    python -m san_jax.commands.export runs/san san.pth --best           # the best one, for torch.load

In PyTorch, `load_state_dict(safetensors.torch.load_file("san.safetensors"), strict=False)` of encoder and of decoder,
or `load_state_dict(torch.load("san.pth"), strict=False)`.
"""

from pathlib import Path

import jax
from absl import flags

from san_jax import devices
from san_jax.commands import common
from san_jax.training import checkpoints, run_config
from san_jax.training.starting_weights import learnt_no_people
from san_jax.weights.saving import check_suffix, save_weights


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
    checkpoint = checkpoints.find(path, best=best)
    draws = checkpoints.has_decoder(checkpoint)
    weights, _ = checkpoints.restore_networks(checkpoint, devices.replicated(devices.make_mesh()), draws=draws)
    if jax.process_index():
        return
    architecture = checkpoints.read_architecture(checkpoint)
    size = save_weights(out, architecture=architecture, mode=mode_of(checkpoint), weights=weights)
    print(f"{out}: {len(jax.tree.leaves(weights))} tensors of {checkpoint}, {size / 1e6:.1f} MB", flush=True)


def mode_of(checkpoint: Path) -> str:
    """The mode in which a checkpoint was trained: its run's config says it, else what it holds."""
    workdir = checkpoint.resolve().parent.parent
    if (workdir / run_config.NAME).exists():
        return run_config.read(workdir).mode
    if learnt_no_people(checkpoint):
        return "san_pg"
    return "san" if checkpoints.has_decoder(checkpoint) else "baseline"


def main() -> None:
    """The command; its flag is defined here, so that who imports this module does not get it."""
    best = flags.DEFINE_bool("best", False, "Export the best checkpoint instead of the newest.")
    common.run(lambda path, out: export(path, out, best=best.value), files=("WORKDIR", "OUT.safetensors"))


if __name__ == "__main__":
    main()
