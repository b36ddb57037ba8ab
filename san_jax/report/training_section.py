"""The part of the page on training: curves of losses, scores and learning rates."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from san_jax.drawing import html_page
from san_jax.drawing.html_page import Markup, element
from san_jax.report import event_files

MAX_POINTS = 150  # in a curve; longer ones are averaged over groups of steps
# Scores that have a chart: title with unit, and the factor that converts the logged number to this unit.
CHARTED_SCORES = {
    "rank1": ("rank-1, %", 100.0),
    "mAP": ("mAP, %", 100.0),
    "L1": ("L1", 1.0),
    "L1_visible": ("L1 of visible texels", 1.0),
    "PSNR": ("PSNR, dB", 1.0),
    "SSIM": ("SSIM", 1.0),
}


def elements(events: Path) -> list[Markup]:
    """A chart of each loss term, of each score during training, and of each learning rate; what the decoder has learnt.

    Args:
      events: the run's folder of TensorBoard event files.
    """
    charts = {"loss": [], "ratio": [], "score": [], "rate": []}
    scalars = event_files.read_scalars(events)
    for tag, points in sorted(scalars.items()):
        group, _, name = tag.rpartition("/")
        if len(points) < 2:
            continue
        if group in ("loss", "ratio", "rate"):
            charts[group].append(curve(f"{group}: {name.replace('_', ' ')}", points))
        elif name in CHARTED_SCORES:
            title, factor = CHARTED_SCORES[name]
            charts["score"].append(curve(f"{group}: {title}", points, factor=factor))
    shown = [chart for group in charts.values() for chart in group]
    if not shown:
        return [element("p", "The run's event files hold no curves: nothing was logged at two or more steps.")]
    return [*verdict(scalars.get(event_files.OVER_CONSTANT, {})), element("div", *shown, class_="charts")]


def verdict(shares: Mapping[int, float]) -> list[Markup]:
    """A sentence on what the decoder has learnt, by the last of `recon_over_constant`; nothing without a decoder."""
    if not shares:
        return []
    share = list(shares.values())[-1]
    words = f"The reconstruction loss is {share:.2f} times that of the best texture that is the same for everybody"
    words += "." if share < 1 else ": the decoder has learnt nothing."
    return [element("p", words)]


def curve(title: str, points: Mapping[int, float], *, factor: float = 1.0) -> Markup:
    """A chart of one number by step; its caption gives the last value.

    Args:
      title: name of the number, with its unit.
      points: step -> number, steps ascending. More than MAX_POINTS are averaged over groups of steps.
      factor: what the numbers are multiplied by.
    """
    steps, values = np.array(list(points)), factor * np.array(list(points.values()))
    groups = [np.array_split(numbers, min(len(steps), MAX_POINTS)) for numbers in (steps, values)]
    x, y = (np.array([group.mean() for group in numbers]) for numbers in groups)
    size = -(-len(steps) // len(x))
    averaged = f"; each point is the mean of up to {size}" if size > 1 else ""
    caption = element("figcaption", f"{title}: {values[-1]:.4g} at step {steps[-1]:,}{averaged}")
    chart = html_page.line_chart(x, {title: y}, x_label="step", y_label="", width=340, height=190)
    return element("figure", caption, chart)
