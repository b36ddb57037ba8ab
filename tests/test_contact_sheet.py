import numpy as np
import pytest
from PIL import Image

from san_jax.commands import sheet as sheet_command
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import BORDER, FRAME, GREEN, GREY, PAPER, RED, SPACE, Cell, compose
from san_jax.errors import UserError

BLUE, PINK = (0, 0, 255), (255, 0, 255)
HEIGHT = 64


def plain(colour, height=40, width=20):
    return np.broadcast_to(np.uint8(colour), (height, width, 3))


def where(sheet, colour):
    """The smallest box around all pixels of a colour: top, bottom, left, right."""
    rows, columns = np.nonzero(np.all(sheet == colour, axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def inked(sheet):
    """Indices of the rows and of the columns that are not all paper."""
    ink = np.any(sheet != PAPER, axis=2)
    return np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))


def small(rows, **options):
    return compose(rows, cell_height=HEIGHT, **options)


@pytest.mark.parametrize(("size", "width"), [((40, 20), 32), ((10, 30), 192), ((128, 64), 32), ((64, 7), 7)])
def test_pictures_of_all_sizes_have_one_height_and_keep_their_aspect_ratio(size, width):
    top, bottom, left, right = where(small([[Cell(plain(BLUE, *size)), Cell(plain(PINK))]]), BLUE)
    assert (bottom - top, right - left) == (HEIGHT, width)


def test_picture_of_the_right_height_is_shown_pixel_by_pixel():
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, 50, 3)).astype(np.uint8)
    sheet = small([[Cell(plain(BLUE), frame=RED), Cell(picture, frame=GREEN)]])
    top, _, left, _ = where(sheet, GREEN)
    np.testing.assert_array_equal(sheet[top + BORDER :][:HEIGHT, left + BORDER :][:, :50], picture)


def test_frame_is_a_ring_with_a_little_space_around_the_picture():
    sheet = small([[Cell(plain(BLUE), frame=RED)]])
    top, bottom, left, right = where(sheet, RED)
    assert where(sheet, BLUE) == (top + BORDER, bottom - BORDER, left + BORDER, right - BORDER)
    inner = sheet[top + FRAME : bottom - FRAME, left + FRAME : right - FRAME]
    assert np.all(inner[:SPACE] == PAPER)
    assert np.all(inner[:, -SPACE:] == PAPER)
    ring = (bottom - top) * (right - left) - inner.shape[0] * inner.shape[1]
    assert np.sum(np.all(sheet == RED, axis=2)) == ring


def test_columns_are_aligned_whatever_their_pictures_and_frames():
    sheet = small([[Cell(plain(PINK, 10, 30)), Cell(plain(BLUE))], [Cell(plain(RED), frame=GREY), Cell(plain(GREEN))]])
    assert where(sheet, PINK)[2] == where(sheet, RED)[2]
    assert where(sheet, BLUE)[2] == where(sheet, GREEN)[2] > where(sheet, PINK)[3]
    assert where(sheet, PINK)[:2] == where(sheet, BLUE)[:2]
    assert where(sheet, RED)[0] > where(sheet, PINK)[1]


def test_none_leaves_a_gap():
    full = small([[Cell(plain(PINK)), Cell(plain(BLUE), frame=GREEN)], [Cell(plain(RED))]])
    gap = small([[None, Cell(plain(BLUE), frame=GREEN)], [Cell(plain(RED))]])
    assert gap.shape == full.shape
    for colour in (BLUE, GREEN, RED):
        assert where(gap, colour) == where(full, colour)
    top, bottom, left, right = where(full, PINK)
    assert np.all(gap[top:bottom, left:right] == PAPER)
    assert small([[None, None], [None, Cell(plain(BLUE))]]).shape == small([[Cell(plain(BLUE))] * 2] * 2).shape


def test_caption_that_fits_is_whole_and_one_that_does_not_is_cut_to_its_column():
    sheets = [small([[Cell(plain(BLUE), caption)]]) for caption in ("1", "12", 50 * "1", 50 * "1" + "2")]
    assert np.any(sheets[0] != sheets[1])
    np.testing.assert_array_equal(sheets[2], sheets[3])
    assert len({sheet.shape for sheet in sheets}) == 1
    _, bottom, left, right = where(sheets[2], BLUE)
    rows, _ = inked(sheets[2])
    assert rows[-1] > bottom, "there is a caption"
    _, columns = inked(sheets[2][bottom:])
    assert left <= columns[0] < columns[-1] < right


def test_every_line_of_a_caption_is_under_the_one_before():
    heights = [small([[Cell(plain(BLUE), caption)]]).shape[0] for caption in ("", "a", "a\nb", "a\nb\nc")]
    assert np.all(np.diff(heights) == heights[1] - heights[0])
    assert heights[1] > heights[0]


def test_titles_are_above_and_beside_the_pictures():
    rows = [[Cell(plain(BLUE)), Cell(plain(PINK))]]
    bare = small(rows)
    with_column_titles = small(rows, column_titles=["a", ""])
    top, _, left, right = where(with_column_titles, BLUE)
    _, columns = inked(with_column_titles[: top - 1])
    assert left <= columns[0] < columns[-1] < right
    with_row_title = small(rows, row_titles=["row"])
    _, columns = inked(with_row_title[:, : where(with_row_title, BLUE)[2]])
    assert len(columns)
    assert where(with_row_title, BLUE)[0] == where(bare, BLUE)[0]
    with_title = small(rows, title="title")
    lines, _ = inked(with_title[: where(with_title, BLUE)[0]])
    assert len(lines)
    assert with_title.shape[1] == bare.shape[1]


def test_long_titles_are_cut():
    title = 500 * "n"
    sheet = small([[Cell(plain(BLUE))]], title=title, row_titles=[title], column_titles=[title])
    assert sheet.shape[1] < 8 * HEIGHT


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_no_rows_are_an_error(rows):
    with pytest.raises(ValueError, match="no rows"):
        compose(rows)


@pytest.mark.parametrize("titles", [{"row_titles": ["a", "b"]}, {"column_titles": ["a"]}])
def test_titles_that_do_not_match_are_an_error(titles):
    with pytest.raises(ValueError, match=r"titles for [12] (row|column)s"):
        compose([[Cell(plain(BLUE)), None]], **titles)


def test_sheet_is_written_as_png(tmp_path):
    sheet = small([[Cell(plain(BLUE), "caption", GREEN)]])
    contact_sheet.save(tmp_path / "new" / "sheet.png", sheet)
    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), sheet)


def test_sheet_among_the_pictures_or_without_suffix_png_is_refused(tmp_path):
    contact_sheet.check_place(tmp_path / "look.png", pictures=[tmp_path / "pictures"])
    for name, error in (
        ("look.jpg", r"--sheet is .*look\.jpg, which does not end in \.png"),
        ("pictures/sub/look.png", r"look\.png would lie among the pictures of .*pictures; give another --sheet"),
    ):
        with pytest.raises(UserError, match=error):
            contact_sheet.check_place(tmp_path / name, pictures=[tmp_path / "other", tmp_path / "pictures"])


def test_sheet_of_the_rendered_world_is_refused_under_the_name_of_something_else(tmp_path):
    trouble = dict(occlusion=0.0, sloppiness=0.0, variety=0.0)
    with pytest.raises(UserError, match=r"OUT\.png is .*people\.jpg, which does not end in \.png"):
        sheet_command.draw_people(tmp_path / "people.jpg", people=1, cameras=1, seed=0, height=32, **trouble)
    assert list(tmp_path.iterdir()) == []


def test_share_that_is_no_number_draws_nothing(tmp_path):
    trouble = dict(occlusion=0.0, sloppiness=float("nan"), variety=0.0)
    with pytest.raises(UserError, match="--sloppiness is nan; give a number from 0 to 1"):
        sheet_command.draw_people(tmp_path / "people.png", people=1, cameras=1, seed=0, height=32, **trouble)
