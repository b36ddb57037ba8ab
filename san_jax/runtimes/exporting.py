"""Exports a model to one file for other runtimes, and checks the file before it is there."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree, UInt8

from san_jax import files
from san_jax.data import picture_batches
from san_jax.data.picture_batches import Picture
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.networks.architecture import Architecture
from san_jax.runtimes import checks, onnx_file, onnx_graph, quantised, stablehlo
from san_jax.runtimes.interface import INPUTS, Interface
from san_jax.weights import loading, saving

FORMATS = {  # the suffixes that name each
    "safetensors": saving.SAFETENSORS[:1],
    "torch": saving.TORCH,
    "onnx": (".onnx",),
    "stablehlo": (".stablehlo",),
}
PROGRAMS = ("onnx", "stablehlo")  # formats that hold layers, not weights alone
PRECISIONS = ("float32", "float16", "int8")
ADVICE_INT8 = "calibrate on pictures of the kind that it will see, or export in float16"
ADVICE = "this is a fault of san_jax, please report it, and export to another format"


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
      format: one of FORMATS.
      size: in bytes.
      holds: what is in it.
      figures: how far what was read from it is from the model.
    """

    format: str
    size: int
    holds: str
    figures: str


@dataclasses.dataclass(frozen=True)
class Options:
    """What is exported, and how; None and False where the format decides.

    Attributes:
      format: one of FORMATS; by default as the file's suffix says.
      input: one of `interface.INPUTS`, of a program; by default float_nchw.
      textures: whether a program has the decoder's textures as an output, beside the features.
      precision: one of PRECISIONS, of ONNX; by default float32.
      half: whether the values of a file of weights are rounded to float16.
    """

    format: str | None = None
    input: str | None = None
    textures: bool = False
    precision: str | None = None
    half: bool = False

    def checked(self, path: Path) -> "Options":
        """These options with all defaults filled in.

        Raises:
          UserError: the file's suffix names no format or another one, or an option has no effect or no such value.
        """
        for name, known in (("format", FORMATS), ("input", INPUTS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise UserError(f"{name} is {value!r}; it can be {', '.join(known)}")
        found = format_of(path, self.format)
        for name in ("onnx", "onnxruntime") if found == "onnx" else ():
            onnx_graph.library(name)  # says so now if it is not installed
        takes = dict(input=PROGRAMS, textures=PROGRAMS, precision=("onnx",), half=("safetensors", "torch"))
        for name, formats in takes.items():
            if getattr(self, name) and found not in formats:
                more = "; for float16 in ONNX, give precision=float16" if name == "half" else ""
                raise UserError(f"{name} has no effect on {found}, only on {' and '.join(formats)}; leave it out{more}")
        return dataclasses.replace(
            self, format=found, input=self.input or INPUTS[0], precision=self.precision or PRECISIONS[0]
        )


def format_of(path: Path, given: str | None) -> str:
    """The format of a file, by its suffix or, if that does not say, as given.

    Raises:
      UserError: they contradict each other, or neither says.
    """
    named = next((name for name, suffixes in FORMATS.items() if path.suffix in suffixes), None)
    if named is None and given is None:
        raise UserError(
            f"{path}: the suffix {path.suffix!r} names no format; name it .safetensors, .pth, .onnx or .stablehlo, "
            f"or give a format ({', '.join(FORMATS)})"
        )
    if named is not None and given not in (None, named):
        raise UserError(f"{path} is named as {named}, but the format is {given}; leave it out, or give another name")
    return given or named


def export(
    model: Model,
    path: Path,
    options: Options,
    *,
    calibration: Sequence[Picture] | UInt8[np.ndarray, "n H W 3"] | None = None,
) -> Exported | None:
    """Writes one file, checked as it lies there under a temporary name: an existing one is kept on failure.

    A program (ONNX, StableHLO) is run by the other runtime on ten pictures, alone and in a batch; weights are read
    back and compared bit for bit.

    Args:
      model: the networks.
      path: the file.
      options: as the user gave them.
      calibration: pictures for int8, as for `Model.features`.

    Returns:
      What was written; None on processes other than the first, which do not write.

    Raises:
      UserError: an option is wrong, the networks cannot be exported, the file cannot be written, or what was read from
        it is too far from the model.
    """
    options = options.checked(path)
    if (options.precision == "int8") != (calibration is not None):
        needed = "int8 needs calibration" if calibration is None else "calibration has no effect without int8"
        raise UserError(f"{needed}: pictures of the kind that the network will see, with precision=int8")
    files.check_place(path)
    weights = jax.tree.map(np.asarray, dict(model.weights))
    if options.format in PROGRAMS:
        interface = interface_of(model, options)
        wanted = checks.expected(model, interface)
        calibration = None if calibration is None else sized(calibration, model.architecture)
        write = lambda: _program(path, options, interface, weights, wanted, calibration)  # noqa: E731
    else:
        write = lambda: _weights(path, options, model, weights)  # noqa: E731
    return write() if jax.process_index() == 0 else None


def interface_of(model: Model, options: Options) -> Interface:
    """The inputs and outputs of a program: features unless a texture generator drew them, textures on demand."""
    if options.textures:
        model.check_draws()
    else:
        model.check_learnt_people()
    return Interface(model.architecture, options.input, feats=model.mode != "san_pg", textures=options.textures)


def sized(
    pictures: Sequence[Picture] | UInt8[np.ndarray, "n H W 3"], architecture: Architecture
) -> UInt8[np.ndarray, "n {architecture.height} {architecture.width} 3"]:
    """Pictures of any kind in the network's size; a UserError names one that cannot be read, or says that none is."""
    if not len(pictures):
        raise UserError("calibration has no pictures; give some dozens of the kind that the network will see")
    found = np.zeros((len(pictures), architecture.height, architecture.width, 3), np.uint8)
    for row, picture in enumerate(pictures):
        if why := picture_batches.reader(picture)(found[row]):
            named = picture if isinstance(picture, str | Path) else f"picture {row}"
            raise UserError(f"cannot read {named} ({why}); replace or remove it")
    return found


def _program(
    path: Path,
    options: Options,
    interface: Interface,
    weights: dict[str, PyTree],
    wanted: dict[str, np.ndarray],
    calibration: UInt8[np.ndarray, "n H W 3"] | None,
) -> Exported:
    if options.format == "onnx":
        content = onnx_file.content(interface, weights, half=options.precision == "float16", what=str(path))
        if calibration is not None:
            content = quantised.content(content, interface, calibration)
        kinds = onnx_graph.counts(content)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        holds = f"opset {onnx_graph.OPSET}, {sum(kinds.values())} nodes ({listed})"
        module, runtime = onnx_file, f"onnxruntime {onnx_graph.library('onnxruntime').__version__}"
    else:
        content = stablehlo.content(interface, weights)
        holds, module, runtime = f"for {', '.join(stablehlo.PLATFORMS)}", stablehlo, f"jax {jax.__version__}"
    with files.replacing(path) as part:
        part.write_bytes(content)
        options_of_check = dict(precision=options.precision, what=str(path))
        options_of_check |= dict(advice=ADVICE if calibration is None else ADVICE_INT8)
        figures = checks.checked(module.runner(part), interface, wanted, **options_of_check)
    figures = f"{runtime} on {checks.PICTURES} pictures, alone and in a batch: {figures}"
    return Exported(options.format, len(content), holds, figures)


def _weights(path: Path, options: Options, model: Model, weights: dict[str, PyTree]) -> Exported:
    given = dict(architecture=model.architecture, mode=model.mode, weights=weights, half=options.half)
    content = saving.encoded(torch=options.format == "torch", **given)
    if options.half:
        weights = jax.tree.map(lambda values: values.astype(np.float16).astype(np.float32), weights)
    with files.replacing(path) as part:
        part.write_bytes(content)
        loaded = loading.load_weights(part)
        described = (loaded.architecture, loaded.mode) == (model.architecture, model.mode)
        if not described or not same_bits(loaded.weights, weights):
            raise UserError(f"{path} is not written: what was read back is not what was exported; {ADVICE}")
    count = len(jax.tree.leaves(weights))
    return Exported(options.format, len(content), f"{count} tensors", f"read back: all {count} are the same bits")


def same_bits(found: PyTree, wanted: PyTree) -> bool:
    """Whether two trees have the same arrays, NaN in the same places too."""
    if jax.tree.structure(found) != jax.tree.structure(wanted):
        return False
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return all(one.dtype == other.dtype and one.tobytes() == other.tobytes() for one, other in pairs)
