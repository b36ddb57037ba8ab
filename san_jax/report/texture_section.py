"""The part of the page on textures: their scores, and some pictures with the textures generated from them."""

from collections.abc import Mapping

import numpy as np

from san_jax.batch import Source
from san_jax.drawing import html_page
from san_jax.drawing.html_page import Markup, element
from san_jax.model import Model
from san_jax.report import picture_list
from san_jax.scoring import texture_scores

NUM_PICTURES = 8
SEED = 0  # for choosing the pictures; the same in all reports, so that they can be compared


def score_table(scores: Mapping[str, float]) -> Markup:
    """Scores of a texture generator, in their units."""
    cells = [f"{value:.4g}" for value in scores.values()]
    return html_page.table(list(scores), {"this run": cells}, caption=texture_scores.UNITS)


def elements(source: Source, model: Model) -> list[Markup]:
    """Some pictures with the textures that the decoder generates and, if the data set has them, the true textures.

    Args:
      source: the pictures.
      model: a model with a decoder.
    """
    side, width = model.architecture.height, model.architecture.width
    count = min(NUM_PICTURES, len(source))
    rows = np.sort(np.random.default_rng(SEED).choice(len(source), count, replace=False)).tolist()
    pictures = picture_list.read(source, rows, height=side, width=width)
    columns = {"picture": pictures, "generated texture": model.textures(pictures)}
    if source.has_textures:
        columns["true texture"] = picture_list.read(source, rows, "texture", height=side, width=side)
    figures = []
    for place, row in enumerate(rows):
        name = source.names[row]
        entries = [
            picture_list.entry(shown[place], alt=f"{kind} of {name}" if kind != "picture" else name, caption=kind)
            for kind, shown in columns.items()
        ]
        figures.append(element("figure", element("figcaption", name), element("ul", *entries, class_="pictures")))
    words = f"{count} of {len(source):,} pictures. BatchNorm uses its running statistics."
    return [
        element("h3", "Textures"),
        element("p", words, class_="faint"),
        element("div", *figures, class_="beside"),
    ]
