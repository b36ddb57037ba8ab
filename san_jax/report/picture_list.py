"""Lists of pictures for the page, each picture with a short caption."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from san_jax.batch import Source
from san_jax.data import decoded
from san_jax.data.decoded import Field
from san_jax.drawing import html_page
from san_jax.drawing.html_page import Markup, element


def read(
    source: Source,
    rows: Sequence[int | np.integer] | Int[np.ndarray, "n"],
    field: str = "image",
    *,
    height: int,
    width: int,
) -> UInt8[np.ndarray, "n {height} {width} 3"]:
    """Decodes and resizes the pictures or textures of some records.

    Args:
      source: the records.
      rows: which of them.
      field: "image" or "texture".
      height, width: in pixels.

    Raises:
      UserError: a picture cannot be read.
    """
    return decoded.decode_rows(source, [Field(field, height, width)], rows)[field]


def entry(pixels: UInt8[np.ndarray, "H W 3"], *, alt: str, caption: str, class_: str | None = None) -> Markup:
    """A list entry with one picture.

    Args:
      pixels: RGB.
      alt: alternative text.
      caption: shown below the picture.
      class_: CSS class of the entry.
    """
    figure = element("figure", html_page.picture(pixels, alt), element("figcaption", caption))
    return element("li", figure, class_=class_)
