"""Writes a trained network as one file for other runtimes; the suffix of the file selects the format.

    san-jax export runs/san --output=san.onnx               # features; the newest checkpoint
    san-jax export runs/san --output=san.onnx --best --input=uint8_nhwc       # from pictures as they are
    san-jax export runs/san --output=san.onnx --textures    # the decoder's textures, too
    san-jax export runs/san --output=san.onnx --precision=int8 --calibration=PICTURES
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

import jax
import numpy as np
from absl import flags
from jaxtyping import UInt8

from san_jax import files
from san_jax import model as models
from san_jax.commands import common
from san_jax.data import picture_folder
from san_jax.errors import UserError
from san_jax.runtimes import exporting, interface
from san_jax.runtimes.exporting import Options
from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment

CALIBRATION, PEOPLE = 200, 16  # pictures of a folder, and rendered people, for int8


def export(path: Path, output: Path, *, best: bool = False, calibration: str | None = None, **given: Any) -> None:
    """Writes the networks of a run, a checkpoint or a file of weights to a file, atomically.

    Args:
      path: a run's workdir, the folder of one checkpoint, a file of weights, or a name of `pretrained`.
      output: the file.
      best: whether to export the run's best checkpoint (by mAP; by L1 for a texture generator), not its newest.
      calibration: a folder of pictures for int8; by default pictures are rendered.
      given: as the fields of `exporting.Options`.

    Raises:
      UserError: there are no weights, they cannot be read, or they cannot be exported (see `exporting.export`).
    """
    options = Options(**given)
    quantises = options.checked(output).precision == "int8"
    if calibration is not None and not quantises:
        raise UserError("--calibration has no effect without --precision=int8; leave it out")
    listed = pictures_of(Path(calibration)) if calibration is not None else None
    files.check_place(output)
    model = models.load(path, best=best)
    if quantises and listed is None:
        listed = rendered(height=model.architecture.height, width=model.architecture.width)
    exported = exporting.export(model, output, options, calibration=listed)
    if exported:
        print(f"{output}: {exported.format} of {model.source}, {exported.size / 1e6:.1f} MB, {exported.holds}")
        print(f"  {exported.figures}", flush=True)


def pictures_of(folder: Path) -> list[Path]:
    """Pictures of a folder and its subfolders: all, or CALIBRATION of them at equal distances.

    Raises:
      UserError: there are none, or the folder cannot be read.
    """
    found = picture_folder.list_files(folder).pictures
    rows = np.unique(np.linspace(0, len(found) - 1, min(len(found), CALIBRATION)).round().astype(int))
    return [found[row] for row in rows]


def rendered(*, height: int, width: int) -> UInt8[np.ndarray, "n {height} {width} 3"]:
    """Rendered pictures of PEOPLE people under six cameras, always the same."""
    world = studio.make_world(jax.random.key(0), cameras=6, occlusion=0.3, sloppiness=0.3)
    person, camera = (grid.ravel() for grid in np.mgrid[:PEOPLE, :6])
    shots = Moment(person, camera, np.zeros_like(person))
    size = dict(height=height, width=width)
    taken = studio.render(studio.before_a_camera, world, world.people, person, shots, **size)
    return np.stack([picture for picture, _ in taken])


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    switch, choice = flags.DEFINE_bool, flags.DEFINE_enum
    output = flags.DEFINE_string(
        "output", None, "The file: .onnx, .stablehlo, .safetensors, or .pth, .pt, .tar or .bin for torch.load."
    )
    best = switch("best", False, "Export the best checkpoint, not the newest.")
    calibration = flags.DEFINE_string(
        "calibration", None, "A folder of pictures of the kind that an int8 network will see. Default: rendered ones."
    )
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
        options = {name: flag.value for name, flag in given.items()}
        export(path, Path(output.value), best=best.value, calibration=calibration.value, **options)

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
