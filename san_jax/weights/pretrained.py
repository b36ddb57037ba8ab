"""Weights that come with the package, by name: trained on rendered people alone, see docs/models.md."""

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "pretrained"
NAMES = ("rendered-small", "rendered-small-pg")  # SAN, and the texture generator that it started from


def is_name(source: str | os.PathLike) -> bool:
    """Whether a source is the name of weights in the package; an existing path of this name comes first."""
    return str(source) in NAMES and not os.path.lexists(source)


def nearest(source: str | os.PathLike) -> str:
    """The name most similar to a source that was not found; "" if none is similar."""
    return next(iter(difflib.get_close_matches(str(source), NAMES, n=1, cutoff=0.8)), "")


def path_of(source: str | os.PathLike) -> Path:
    """The path of a source: the package's file for a name, else the source itself."""
    return FOLDER / f"{source}.safetensors" if is_name(source) else Path(source)
