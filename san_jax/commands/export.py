"""Writes a trained network as one file for other runtimes; the suffix of the file selects the format.

    san-jax export runs/san --output=san.onnx               # features; the newest checkpoint
    san-jax export runs/san --output=san.onnx --best --input=uint8_nhwc       # from pictures as they are
    san-jax export runs/san --output=san.onnx --textures    # the decoder's textures, too
    san-jax export runs/san --output=san.stablehlo          # for JAX without this package: CPU, CUDA, TPU
    san-jax export runs/san --output=san.safetensors        # the weights, under PyTorch's names, in its layouts
    san-jax export rendered-small --output=small.pth --half # for torch.load, rounded to float16, in half the bytes

The file is run by onnxruntime or JAX, or read back, and compared with the network before it is there. docs/deploy.md
says how to use it. In PyTorch, load weights into encoder and decoder each by
`load_state_dict(safetensors.torch.load_file("san.safetensors"), strict=False)` or
`load_state_dict(torch.load("san.pth"), strict=False)`. ONNX needs `pip install 'san_jax[onnx]'`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from san_jax import files
from san_jax import model as models
from san_jax.commands import common
from san_jax.errors import UserError
from san_jax.runtimes import exporting, interface
from san_jax.runtimes.exporting import Options


def export(path: Path, output: Path, *, best: bool = False, **given: Any) -> None:
    """Writes the networks of a run, a checkpoint or a file of weights to a file, atomically.

    Args:
      path: a run's workdir, the folder of one checkpoint, a file of weights, or a name of `pretrained`.
      output: the file.
      best: whether to export the run's best checkpoint (by mAP; by L1 for a texture generator), not its newest.
      given: as the fields of `exporting.Options`.

    Raises:
      UserError: there are no weights, they cannot be read, or they cannot be exported (see `exporting.export`).
    """
    options = Options(**given)
    options.checked(output)
    files.check_place(output)
    model = models.load(path, best=best)
    exported = exporting.export(model, output, options)
    if exported:
        print(f"{output}: {exported.format} of {model.source}, {exported.size / 1e6:.1f} MB, {exported.holds}")
        print(f"  {exported.figures}", flush=True)


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    switch, choice = flags.DEFINE_bool, flags.DEFINE_enum
    output = flags.DEFINE_string(
        "output", None, "The file: .onnx, .stablehlo, .safetensors, or .pth, .pt, .tar or .bin for torch.load."
    )
    best = switch("best", False, "Export the best checkpoint, not the newest.")
    given = {
        "format": choice("format", None, [*exporting.FORMATS], "What the file is, where its suffix does not say."),
        "input": choice(
            "input", None, [*interface.INPUTS],
            "What ONNX and StableHLO take: normalised float32 [batch 3 H W], or uint8 [batch H W 3] as they are. "
            "Default: float_nchw.",
        ),
        "textures": switch("textures", False, "ONNX and StableHLO have the decoder's textures as an output, too."),
        "precision": choice("precision", None, [*exporting.PRECISIONS], "Of ONNX. Default: float32."),
        "half": switch("half", False, "Round weights to float16, in half the bytes: .safetensors and .pth."),
    }  # fmt: skip

    def run(*paths: Path) -> None:
        path = _run_among(paths, output.value)
        export(path, Path(output.value), best=best.value, **{name: flag.value for name, flag in given.items()})

    common.run_command(run, files=None, module=__name__)


def _run_among(paths: Sequence[Path], output: str | None) -> Path:
    """The run among the command's arguments; a UserError if there is none, or the output is not given as a flag."""
    if len(paths) == 2 and not output:
        raise UserError(f"the file is given as a flag: san-jax export {paths[0]} --output={paths[1]}")
    if len(paths) != 1:
        given = " ".join(map(str, paths)) or "none"
        raise UserError(f"this command takes one argument, RUN, but was given {given}; see --help")
    if not output:
        raise UserError(f"--output names no file; give one, as san-jax export {paths[0]} --output=san.onnx")
    return paths[0]


if __name__ == "__main__":
    main()
