import numpy as np
import pytest
from page_reader import Page

from san_jax.drawing import html_page
from san_jax.drawing.html_page import Markup, element


def cells(text):
    return [word.strip() for word in Page(text).texts]


def test_text_and_values_are_escaped_and_markup_is_not():
    inside = element("b", "<&>")
    assert inside == "<b>&lt;&amp;&gt;</b>"
    found = element("p", inside, '"', class_='a" onload="b', aria_label="x", style=None)
    assert found == '<p class="a&quot; onload=&quot;b" aria-label="x"><b>&lt;&amp;&gt;</b>&quot;</p>'
    assert isinstance(found, Markup)


def test_page_forbids_loading_anything_from_outside():
    page = Page(html_page.page("a <title>", element("p", "text")))
    [policy] = page.named("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert [text for text in page.texts if text.strip()] == ["a <title>", "text"]


def test_tables_have_a_header_on_every_row_and_column():
    text = html_page.table(["one", "two"], {"a": ["1", "2"], "b": ["3", "4"]}, caption="numbers")
    assert cells(text) == ["numbers", "one", "two", "a", "1", "2", "b", "3", "4"]
    scopes = [found["scope"] for found in Page(text).named("th")]
    assert scopes == ["col", "col", "row", "row"]


def test_heat_table_is_shaded_by_the_share_and_nan_is_a_dash():
    shares = np.array([[0.25, np.nan]])
    text = html_page.heat_table(shares, rows=["r"], columns=["a", "b"], corner="c", caption="shares")
    assert cells(text) == ["shares", "c", "a", "b", "r", "25.0", "-"]
    styles = [found["style"] for found in Page(text).named("td", **{"class": "heat"})]
    assert styles == ["--share: 0.250", "--share: 0"]


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 6.64, [0, 2, 4, 6, 8]),
        (0, 3e-5, [0, 1e-5, 2e-5, 3e-5]),
        (-0.2, 0.31, [-0.2, 0, 0.2, 0.4]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (40, 41, [40, 40.2, 40.4, 40.6, 40.8, 41]),
    ],
)
def test_axes_have_round_numbers_around_the_values(low, high, numbers):
    np.testing.assert_allclose(html_page.round_numbers(float(low), float(high)), numbers, atol=1e-12)


def chart(x, lines, **options):
    lines = {name: np.array(line) for name, line in lines.items()}
    words = dict(x_label="rank", y_label="found, %")
    return html_page.line_chart(np.array(x), lines, **words, width=400, height=200, **options)


def test_chart_shows_its_numbers_on_hover():
    text = chart([1, 2, 4], {"<run>": [10, 50, 100], "chance": [1, 2, 3]}, top=100.0)
    titles = [title for title in Page(text).texts if title.startswith("rank ")]
    assert titles == ["rank 1\n<run>: 10\nchance: 1", "rank 2\n<run>: 50\nchance: 2", "rank 4\n<run>: 100\nchance: 3"]
    assert len(Page(text).named("rect")) == 3


def test_curve_goes_from_corner_to_corner_and_higher_is_further_up():
    [path] = Page(chart([0, 10], {"a": [0, 100]}, top=100.0)).named("path")
    right, bottom = 400 - html_page.RIGHT, 200 - html_page.BOTTOM
    assert path["d"] == f"M{html_page.LEFT} {bottom}L{right} {html_page.TOP}"


def test_zero_is_on_the_axis_of_a_chart_of_high_numbers():
    assert "0" in cells(chart([0, 1], {"a": [5.0, 6.0]}))


def test_curve_of_zeros_lies_on_the_axis():
    [path] = Page(chart([0, 10], {"a": [0, 0]})).named("path")
    assert path["d"].endswith(f" {200 - html_page.BOTTOM}")


def test_picture_is_embedded_with_its_size_and_alternative_text():
    [found] = Page(html_page.picture(np.zeros((4, 2, 3), np.uint8), 'a "picture"')).named("img")
    assert found["src"].startswith("data:image/jpeg;base64,/9j/")
    assert (found["alt"], found["width"], found["height"]) == ('a "picture"', "2", "4")
