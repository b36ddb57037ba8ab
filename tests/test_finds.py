from pathlib import Path

import numpy as np
import pytest
from array_source import encoded

from san_jax.data import crops
from san_jax.data.crops import Crop
from san_jax.data.frames import Frame
from san_jax.gallery import finds
from san_jax.gallery.finds import Find


def crop_of(path, name=None):
    return Crop(Frame(Path(path)), name or Path(path).name)


def found_for(queries, folder, names, rows, distances):
    rows, distances = np.array(rows, np.int32), np.array(distances, np.float32)
    gallery = [crop_of(folder / name, name) for name in names]
    return finds.finds([crop_of(path) for path in queries], gallery, names, rows=rows, distances=distances)


def test_finds_are_files_of_the_gallery_with_their_distances(tmp_path):
    names = ["a.png", "sub/b.png"]
    found = found_for([Path("q.png"), Path("r.png")], tmp_path, names, [[1, 0], [0, 1]], [[0.5, 2], [0, 0.25]])
    first, second = crop_of(tmp_path / "a.png"), crop_of(tmp_path / "sub/b.png", "sub/b.png")
    assert found == [
        [Find(second, "sub/b.png", 0.5, False), Find(first, "a.png", 2.0, False)],
        [Find(first, "a.png", 0.0, False), Find(second, "sub/b.png", 0.25, False)],
    ]


def test_query_in_the_gallery_is_recognised_by_any_path(tmp_path, monkeypatch):
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery/a.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "gallery/a.png")
    monkeypatch.chdir(tmp_path)
    queries = [tmp_path / "gallery/a.png", Path("gallery/../gallery/a.png"), Path("link.png"), Path("a.png")]
    found = found_for(queries, tmp_path / "gallery", ["a.png"], [[0]] * 4, [[0.0]] * 4)
    assert [of_query[0].is_query for of_query in found] == [True, True, True, False]


def test_table_is_aligned_and_marks_the_query_itself():
    found = [
        [Find(crop_of("g/a.png"), "a.png", 0.0, True), Find(crop_of("g/b c.png"), "b c.png", 12.34567, False)],
        [Find(crop_of("g/a.png"), "a.png", 1234.5, False), Find(crop_of("g/a.png"), "a.png", 1300.0, False)],
    ]
    assert finds.table(["q/a.png", "r.png"], found) == "\n".join(
        [
            "q/a.png",
            "  rank    distance  picture",
            "     1      0.0000  a.png  (the same file)",
            "     2     12.3457  b c.png",
            "",
            "r.png",
            "  rank    distance  picture",
            "     1   1234.5000  a.png",
            "     2   1300.0000  a.png",
        ]
    )


def test_unprintable_name_stays_on_one_line(tmp_path):
    [[found]] = found_for([Path("q.png")], tmp_path, ["a\nb\udcff.png"], [[0]], [[1.0]])
    assert found.name == "a�b�.png"
    assert found.crop.frame.path == tmp_path / "a\nb\udcff.png"
    finds.table(["\udcff.png"], [[found]]).encode("utf-8")


COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]


@pytest.fixture
def gallery(tmp_path):
    for name, colour in zip("qabc", COLOURS, strict=True):
        (tmp_path / f"{name}.png").write_bytes(encoded(np.full((40, 20, 3), colour, np.uint8)))
    return tmp_path


def places_of(sheet, colour):
    """Top and left edge of each block of one colour."""
    same = (sheet == colour).all(axis=2)
    ups, lefts = np.diff(same.astype(int), axis=0, prepend=0) == 1, np.diff(same.astype(int), axis=1, prepend=0) == 1
    return [tuple(map(int, place)) for place in np.argwhere(ups & lefts)]


def sheet_of(queries, found):
    small = crops.Crops("some", ()).thumbnails
    return finds.sheet(
        [crop_of(path) for path in queries], found, title="some", query_thumbnails=small, thumbnails=small
    )


def test_sheet_shows_the_query_and_then_its_finds_by_rank(gallery):
    query = gallery / "q.png"
    found = [[Find(crop_of(gallery / f"{name}.png"), f"{name}.png", 1.0, name == "q") for name in "qbac"]]
    sheet, shown = sheet_of([query], found)
    assert shown == 1
    blocks = [places_of(sheet, colour) for colour in COLOURS]
    assert [len(places) for places in blocks] == [2, 1, 1, 1], "the query finds itself, too"
    (top, left), first = blocks[0]
    order = [(top, left), first, *blocks[2], *blocks[1], *blocks[3]]
    assert len({top for top, _ in order}) == 1
    assert [left for _, left in order] == sorted(left for _, left in order)


def test_long_list_continues_in_the_next_row_below_the_finds(gallery):
    found = [[Find(crop_of(gallery / "a.png"), f"{place}.png", 1.0, False) for place in range(23)]]
    sheet, shown = sheet_of([gallery / "q.png"], found)
    places = places_of(sheet, COLOURS[1])
    tops, lefts = sorted({top for top, _ in places}), sorted({left for _, left in places})
    assert [[place[0] for place in places].count(top) for top in tops] == [10, 10, 3]
    assert len(lefts) == 10
    [(query_top, query_left)] = places_of(sheet, COLOURS[0])
    assert query_top == tops[0]
    assert query_left < lefts[0]
    assert shown == 1


def test_sheet_of_many_queries_shows_as_many_as_fit(gallery, monkeypatch):
    monkeypatch.setattr(finds, "MOST_ROWS", 5)
    find = Find(crop_of(gallery / "a.png"), "a.png", 1.0, False)
    for num_finds, num_shown, num_pictures in ((10, 5, 50), (11, 2, 22), (60, 1, 50)):
        sheet, shown = sheet_of([gallery / "q.png"] * 9, [[find] * num_finds] * 9)
        assert shown == num_shown
        assert len(places_of(sheet, COLOURS[0])) == num_shown
        assert len(places_of(sheet, COLOURS[1])) == num_pictures
