"""Builds a self-contained HTML page: elements with escaped text, embedded pictures, charts as SVG.

The page loads nothing, and its content security policy forbids it to. It follows the reader's light or dark scheme.
"""

import base64
import html
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real, UInt8
from PIL import Image

from san_jax.drawing import contact_sheet

# Nothing may be loaded: pictures are data URLs, styles are inline.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
VOID = ("img", "meta")  # elements without a closing tag
JPEG_QUALITY = 85

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 26, 40  # margins around a chart's curves, in SVG units; text is 13 units high

STYLE = f"""
:root {{
  color-scheme: light dark;
  --ink: #1d2126; --faint: #5d6670; --paper: #ffffff; --panel: #f4f6f8; --rule: #d8dde3; --heat: 31 95 208;
  --line0: #1f5fd0; --line1: #b4540a; --line2: #6c757f;
  --right: rgb{contact_sheet.GREEN}; --wrong: rgb{contact_sheet.RED};
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ink: #e4e8ed; --faint: #9aa5b1; --paper: #14171b; --panel: #1d2227; --rule: #363d46; --heat: 84 145 255;
    --line0: #7aa9ff; --line1: #f0a05a; --line2: #98a2ad;
  }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.35rem; margin: 3rem 0 .5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--rule); }}
h3 {{ font-size: 1.05rem; margin: 2rem 0 .4rem; }}
p {{ margin: .4rem 0; max-width: 46rem; }}
.faint, figcaption, caption {{ color: var(--faint); font-size: .875rem; }}
figure {{ margin: 0; }}
.chart {{ max-width: 38rem; }}
.wide {{ overflow-x: auto; }}
.beside {{ display: grid; gap: .5rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }}
.charts {{ display: grid; gap: 1.5rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }}
caption {{ text-align: left; padding-bottom: .3rem; }}
th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); overflow-wrap: normal; }}
th, td.corner {{ font-weight: 500; color: var(--faint); white-space: nowrap; }}
th[scope=row], td.corner {{ text-align: left; }}
td.heat {{ background: rgb(var(--heat) / calc(.55 * var(--share))); border: 2px solid var(--paper);
  text-align: center; }}
tr.first td, tr.first th {{ font-weight: 600; color: var(--ink); }}
table.fields td {{ text-align: left; font: .85rem ui-monospace, monospace; overflow-wrap: anywhere; }}
summary {{ cursor: pointer; color: var(--faint); }}
svg {{ display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; fill: var(--faint); }}
svg .grid {{ stroke: var(--rule); stroke-width: 1; }}
svg .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
svg .line0 {{ stroke: var(--line0); }}
svg .line1 {{ stroke: var(--line1); stroke-dasharray: 7 3; }}
svg .line2 {{ stroke: var(--line2); stroke-dasharray: 2 3; }}
svg .at {{ fill: transparent; }}
svg .at:hover {{ fill: var(--ink); fill-opacity: .12; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; margin: .3rem 0; padding: 0;
  font-size: .875rem; }}
.legend svg {{ display: inline-block; width: 30px; height: 10px; margin-right: .4rem; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; margin: .4rem 0 1.2rem; padding: 0; }}
.pictures img {{ display: block; height: 7.5rem; width: auto; border-radius: 2px; }}
.pictures figcaption {{ font-size: .75rem; line-height: 1.3; text-align: center; }}
.pictures .framed {{ border: 4px solid; border-radius: 5px; padding: 2px 2px 0; }}
.pictures .right {{ border-color: var(--right); }}
.pictures .wrong {{ border-color: var(--wrong); }}
.pictures .asked {{ padding: 6px 12px 0 0; margin-right: .3rem; border-right: 1px solid var(--rule); }}
@media (max-width: 40rem) {{
  .pictures img {{ height: 6rem; }}
  .pictures .asked {{ flex: 0 0 100%; border: 0; }}
  .pictures .asked figcaption {{ text-align: left; }}
  table {{ font-size: .75rem; }}
  th, td {{ padding: .25rem .2rem; }}
  th[scope=row] {{ white-space: normal; }}
}}
"""


class Markup(str):
    """A string that is HTML already. Any other string is escaped when it becomes part of an element."""


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """The element `<tag attributes>children</tag>`.

    Args:
      tag: name of the element.
      children: elements, or text, which is escaped.
      attributes: values are escaped; None omits the attribute. `class_` is `class`, `text_anchor` is `text-anchor`.
    """
    given = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    opening = " ".join([tag, *(f'{name}="{html.escape(str(value))}"' for name, value in given.items())])
    inside = "".join(child if isinstance(child, Markup) else html.escape(child) for child in children)
    return Markup(f"<{opening}>" if tag in VOID else f"<{opening}>{inside}</{tag}>")


def page(title: str, *children: str) -> str:
    """A complete HTML document.

    Args:
      title: title of the document.
      children: contents of its body.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', element('main', *children)), lang='en')}\n"


def picture(pixels: UInt8[np.ndarray, "H W 3"], alt: str) -> Markup:
    """A picture, embedded as JPEG.

    Args:
      pixels: RGB.
      alt: alternative text.
    """
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    data = base64.b64encode(jpeg.getvalue()).decode()
    height, width, _ = pixels.shape
    return element("img", src=f"data:image/jpeg;base64,{data}", alt=alt, width=width, height=height)


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]], *, caption: str = "") -> Markup:
    """A table of text; the first row is emphasised.

    Args:
      columns: titles of the columns.
      rows: title of each row -> its cells.
      caption: shown above the table.
    """
    head = element("tr", element("td"), *(element("th", name, scope="col") for name in columns))
    body = [
        element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells), class_=kind)
        for (name, cells), kind in zip(rows.items(), itertools.chain(["first"], itertools.repeat(None)), strict=False)
    ]
    return _scrolling(element("caption", caption), element("thead", head), element("tbody", *body))


def heat_table(
    shares: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str], columns: Sequence[str], corner: str, caption: str
) -> Markup:
    """A table of percentages with a background that is darker for higher values.

    Args:
      shares: fractions from 0 to 1; NaN is shown as a dash.
      rows, columns: titles of rows and columns.
      corner: text of the top left cell, which says what rows and columns are.
      caption: shown above the table.
    """

    def cell(share: float) -> Markup:
        if math.isnan(share):
            return element("td", "-", class_="heat", style="--share: 0")
        return element("td", f"{100 * share:.1f}", class_="heat", style=f"--share: {share:.3f}")

    titles = [element("th", name, scope="col") for name in columns]
    head = element("tr", element("td", corner, class_="corner"), *titles)
    body = [
        element("tr", element("th", name, scope="row"), *map(cell, row)) for name, row in zip(rows, shares, strict=True)
    ]
    return _scrolling(element("caption", caption), element("thead", head), element("tbody", *body))


def fields_table(fields: Mapping[str, object]) -> Markup:
    """A table of names and values."""
    rows = [
        element("tr", element("th", name, scope="row"), element("td", str(value))) for name, value in fields.items()
    ]
    return _scrolling(element("tbody", *rows), class_="fields")


def _scrolling(*children: Markup, **attributes: str) -> Markup:
    """A table that scrolls sideways if it is wider than the page."""
    return element("div", element("table", *children, **attributes), class_="wide")


def line_chart(
    x: Real[np.ndarray, "n"],
    lines: Mapping[str, Real[np.ndarray, "n"]],
    *,
    x_label: str,
    y_label: str,
    width: int,
    height: int,
    x_ticks: Sequence[int] | None = None,
    top: float | None = None,
) -> Markup:
    """A chart of up to three curves over the same x. The vertical axis includes zero; hovering shows the values.

    Args:
      x: ascending.
      lines: name of each curve -> its value at each x.
      x_label: label of the horizontal axis.
      y_label: label of the vertical axis, with the unit.
      width, height: of the chart, in SVG units; the page scales it to the available width.
      x_ticks: ticks of the horizontal axis; by default round numbers.
      top: upper end of the vertical axis; by default the round number above the curves.
    """
    values = np.array(list(lines.values()), np.float64)
    y_ticks = round_numbers(min(0.0, values.min()), values.max() if top is None else top)
    x_ticks = [mark for mark in x_ticks or round_numbers(float(x[0]), float(x[-1])) if x[0] <= mark <= x[-1]]
    plane = _Plane(float(x[0]), float(x[-1]), y_ticks[0], y_ticks[-1], width, height)
    labels = [
        element("text", y_label, x=0, y=13),
        element("text", x_label, x=width - RIGHT, y=height - 4, text_anchor="end"),
    ]
    curves = [
        element("path", d=plane.path(x, line), class_=f"line line{place}") for place, line in enumerate(values)
    ]
    ends = ", ".join(f"{name} ends at {line[-1]:.4g}" for name, line in lines.items())
    whole = dict(viewBox=f"0 0 {width} {height}", role="img", aria_label=f"{y_label} by {x_label}: {ends}")
    parts = _axes(plane, x_ticks, y_ticks), labels, curves, _hovers(plane, x, lines, x_label=x_label)
    return element("svg", *itertools.chain(*parts), **whole)


class _Plane(NamedTuple):
    """Maps x and y to positions on a chart, in SVG units."""

    left: float
    right: float
    low: float
    high: float
    width: int
    height: int

    def across(self, x):
        share = (x - self.left) / max(self.right - self.left, 1e-9)
        return np.round(LEFT + (self.width - LEFT - RIGHT) * share, 2)

    def down(self, y):
        share = (y - self.low) / (self.high - self.low)
        return np.round(self.height - BOTTOM - (self.height - BOTTOM - TOP) * share, 2)

    def path(self, x, y) -> str:
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in zip(self.across(x), self.down(y), strict=True))


def _axes(plane, x_ticks, y_ticks):
    for tick in y_ticks:
        at = plane.down(tick)
        yield element("line", x1=LEFT, x2=plane.width - RIGHT, y1=at, y2=at, class_="grid")
        yield element("text", f"{tick:g}", x=LEFT - 8, y=at + 4, text_anchor="end")
    for tick in x_ticks:
        yield element("text", f"{tick:g}", x=plane.across(tick), y=plane.height - 22, text_anchor="middle")


def _hovers(plane, x, lines, *, x_label):
    """Invisible strips, one for each x, whose tooltips show the values at this x."""
    borders = plane.across(np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]]))
    for place, (start, end) in enumerate(itertools.pairwise(borders)):
        said = [f"{x_label} {x[place]:g}", *(f"{name}: {line[place]:.4g}" for name, line in lines.items())]
        size = dict(x=start, width=np.round(end - start, 2), y=TOP, height=plane.height - BOTTOM - TOP)
        yield element("rect", element("title", "\n".join(said)), class_="at", **size)


def legend(names: Sequence[str]) -> Markup:
    """The legend of a chart: a sample of each line and its name."""

    def entry(place: int, name: str) -> Markup:
        stroke = element("path", d="M0 5L30 5", class_=f"line line{place}")
        return element("li", element("svg", stroke, viewBox="0 0 30 10", aria_hidden="true"), name)

    return element("ul", *itertools.starmap(entry, enumerate(names)), class_="legend")


def round_numbers(low: float, high: float, *, most: int = 6) -> list[float]:
    """Ticks from `low` or below to `high` or above, up to about `most` multiples of 1, 2 or 5 times a power of ten."""
    high = high if high > low else low + 1
    power = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * (most - 1) >= (high - low) * (1 - 1e-9))
    return [step * mark for mark in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
