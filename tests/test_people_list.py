"""Reading and writing lists of people's pictures."""

import dataclasses
import os
from pathlib import Path

import pytest

from san_jax.errors import UserError
from tfds_builders import people_list
from tfds_builders.people_list import ListFault, Row


def written(folder, *lines, name="people.csv", newline="\n", encoding="utf-8"):
    path = folder / name
    path.write_bytes(newline.join([*lines, ""]).encode(encoding))
    return path


def read(folder, *lines, **options):
    return people_list.read(written(folder, *lines, **options)).rows


def faults_of(folder, *lines):
    with pytest.raises(ListFault) as caught:
        read(folder, *lines)
    return caught.value.faults


def test_columns_may_come_in_any_order_and_only_path_and_pid_are_needed(tmp_path):
    first, second = read(tmp_path, "pid, path", "7,a/b.jpg", "anna,c.png")
    assert first == Row(path=tmp_path / "a/b.jpg", pid=7, camid=0, name="a/b")
    assert (second.pid, second.name) == ("anna", "c")


def test_every_column_is_read(tmp_path):
    header = "path,pid,camid,split,texture,time,x,y,w,h"
    [row] = read(tmp_path, header, "a.jpg,0007,hall,Query,t/a.png,2026-11-28T14:03,1,2.5,30,60")
    assert row == Row(
        path=tmp_path / "a.jpg",
        pid="0007",
        camid="hall",
        name="a-1,2.5,30,60",
        split="query",
        texture=tmp_path / "t/a.png",
        time="2026-11-28T14:03:00",
        box=(1.0, 2.5, 30.0, 60.0),
    )


@pytest.mark.parametrize(
    ("separator", "options"),
    [
        (",", {"newline": "\r\n"}),
        (";", {}),
        ("\t", {"name": "people.tsv"}),
        (",", {"encoding": "utf-8-sig"}),
    ],
)
def test_files_of_spreadsheets_are_read(separator, options, tmp_path):
    lines = [separator.join(cells) for cells in (("Path", " PID "), ("a.jpg", " 3 "), ("", ""), ("ü b.jpg", "4"))]
    assert [(row.path.name, row.pid) for row in read(tmp_path, *lines, **options)] == [("a.jpg", 3), ("ü b.jpg", 4)]


def test_quoted_cells_may_hold_commas(tmp_path):
    [row] = read(tmp_path, "path,pid", '"a, b.jpg","smith, j"')
    assert (row.path.name, row.pid) == ("a, b.jpg", "smith, j")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a.jpg,1", "line 2: it has 2 cells, and the first line 10; quote cells that hold a comma"),
        (",1,0,,,,,,,", "line 2: it has no path; name a picture"),
        ("a.jpg,,0,,,,,,,", "line 2: a.jpg has no pid; give every picture a number or a string"),
        ("a.jpg,1,,,,,,,,", "line 2: a.jpg has no camid; give every picture a number or a string"),
        ("~\0.jpg,1,0,,,,,,,", r"line 2: the path '~\x00.jpg' holds a NUL character, which no path can; correct it"),
        ("a.jpg,1,0,,a\0,,,,,", r"line 2: the path 'a\x00' holds a NUL character, which no path can; correct it"),
        ("a.jpg,1,0,test,,,,,,", "line 2: the split 'test' is none of train, query, gallery"),
        ("a.jpg,1,0,,,noon,,,,", "line 2: the time 'noon' is not in ISO 8601, such as 2026-11-28T14:03:00"),
        ("a.jpg,1,0,,,,1,2,3,", "line 2: the box 1,2,3, is not four numbers; give x, y, w and h in pixels"),
        ("a.jpg,1,0,,,,1,2,3,b", "line 2: the box 1,2,3,b is not four numbers; give x, y, w and h in pixels"),
        ("a.jpg,1,0,,,,1,2,0,5", "line 2: the box 1,2,0,5 has no area; give x, y, w and h in pixels"),
        ("a.jpg,1,0,,,,1e308,0,1e308,5", "line 2: the box 1e308,0,1e308,5 has no area; give x, y, w and h in pixels"),
        ("a.jpg,1,0,,,,1,2,nan,5", "line 2: the box 1,2,nan,5 has no area; give x, y, w and h in pixels"),
    ],
)
def test_fault_of_a_line_names_it_and_the_way_out(line, fault, tmp_path):
    assert faults_of(tmp_path, "path,pid,camid,split,texture,time,x,y,w,h", line) == [fault]


@pytest.mark.parametrize(
    ("header", "faults"),
    [
        ("path,nobody", ["the first line has no column pid; it names the columns, such as path,pid,camid"]),
        ("path,pid,camera", ["there is no column camera; did you mean camid?"]),
        ("path,pid,cam_id", ["there is no column cam_id; did you mean camid?"]),
        ("path,pid,pid", ["the column pid comes twice; name it once"]),
        ("path,pid,x,y", ["of a box it has only x, y; give x, y, w and h, or none of them"]),
        (
            "a.jpg,7",
            [
                "the first line has no column path; it names the columns, such as path,pid,camid",
                "the first line has no column pid; it names the columns, such as path,pid,camid",
            ],
        ),
    ],
)
def test_faults_of_the_header(header, faults, tmp_path):
    assert faults_of(tmp_path, header, "1,2") == faults


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("a.jpg,1,,", "a.jpg,2,,"), "line 3: {}/a.jpg is in line 2 already; list every picture once"),
        (("a.jpg,1,train,", "b.jpg,2,,"), "line 3: it has no split, and others have; give all of them one, or none"),
        (
            ("a.jpg,1,train,t.png", "b.jpg,2,train,", "c.jpg,3,query,"),
            "line 3: it has no texture, and others have; give all training pictures one, or none",
        ),
        ((), "it lists no pictures; give each a line"),
    ],
)
def test_faults_of_lines_that_are_right_one_by_one(lines, fault, tmp_path):
    assert faults_of(tmp_path, "path,pid,split,texture", *lines) == [fault.format(tmp_path)]


def test_message_gives_the_first_fault_the_number_of_all_and_how_to_see_them(tmp_path):
    path = written(tmp_path, "path,pid", ",1", "a.jpg,", "b.jpg,2")
    more = f"2 faults; python -m tfds_builders --check {path} lists them"
    with pytest.raises(ListFault) as caught:
        people_list.read(path)
    assert str(caught.value) == f"{path}: line 2: it has no path; name a picture ({more})"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); give a list that exists"),
        (b"", "is empty; its first line names the columns: path,pid,camid"),
        (b"path,pid\n\xff.jpg,1\n", "is no text in UTF-8 (invalid start byte); save it as UTF-8"),
        (b'path,pid\n"a.jpg,1\n', "line 2 is no CSV (unexpected end of data); correct it"),
    ],
)
def test_unreadable_list_is_one_line(content, said, tmp_path):
    path = tmp_path / "people.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        people_list.read(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_columns_without_a_use_are_named(tmp_path):
    listed = people_list.read(written(tmp_path, "path,pid,notes", "a.jpg,1,tall"))
    assert listed.remarks == (f"{tmp_path / 'people.csv'}: columns without a use here: notes",)


def test_names_are_unique_and_lead_out_of_no_folder(tmp_path):
    rows = read(tmp_path, "path,pid", "c/1.jpg,1", "c/1.png,2", "c/1.gif,3", "c/1-2.png,4")
    assert [row.name for row in rows] == ["c/1", "c/1-3", "c/1-4", "c/1-2"]
    rows = read(tmp_path, "path,pid", "../up/a.jpg,1", f"{tmp_path}/b.jpg,2")
    assert [row.name for row in rows] == ["up/a", f"{tmp_path}/b".removeprefix("/")]


def test_name_of_a_box_stays_that_of_its_box_whatever_else_is_listed(tmp_path):
    lines = "street.jpg,1,4,1,2,2.5", "street.jpg,2,7,1,2,2"
    rows = read(tmp_path, "path,pid,x,y,w,h", *lines)
    assert [row.name for row in rows] == ["street-4,1,2,2.5", "street-7,1,2,2"]
    assert read(tmp_path, "path,pid,x,y,w,h", *reversed(lines)) == rows[::-1]


@pytest.mark.parametrize("lines", [("sep=;", "path;pid", "a.jpg;1"), ("", "path,pid", 'a.jpg, "1"')])
def test_habits_of_spreadsheets_are_understood(lines, tmp_path):
    assert [(row.path.name, row.pid) for row in read(tmp_path, *lines)] == [("a.jpg", 1)]


@pytest.mark.parametrize("cells", ["~nobody-of-this-name/a.jpg,1", f"a.jpg,{'1' * 5000}"])
def test_strange_cells_are_no_traceback(cells, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        assert people_list.read(written(tmp_path, "path,pid", cells)).digest


def test_digest_changes_with_rows_and_with_files_alone(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"1")

    def digest(*lines):
        return people_list.read(written(tmp_path, *lines)).digest

    first = digest("path,pid", "a.jpg,1", "b.jpg,2")
    assert digest("pid,path", "1,a.jpg", "", "2,b.jpg") == first
    assert digest("path,pid", "a.jpg,1", "b.jpg,3") != first
    assert digest("path,pid", "b.jpg,2", "a.jpg,1") != first
    (tmp_path / "b.jpg").write_bytes(b"12")
    second = digest("path,pid", "a.jpg,1", "b.jpg,2")
    assert second != first
    os.utime(tmp_path / "b.jpg", (1, 1))
    assert digest("path,pid", "a.jpg,1", "b.jpg,2") not in (first, second)


def test_digest_is_that_of_the_list_wherever_it_stands_and_however_it_is_named(tmp_path, monkeypatch):
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "a.jpg").write_bytes(b"1")
    path = written(shop, "path,pid", "a.jpg,1")
    digests = {people_list.read(path).digest}
    monkeypatch.chdir(shop)
    digests |= {people_list.read(Path(name)).digest for name in ("people.csv", "../shop/people.csv")}
    moved = shop.rename(tmp_path / "moved")
    digests.add(people_list.read(moved / "people.csv").digest)
    assert len(digests) == 1


def test_digest_of_a_list_whose_file_is_missing_names_it(tmp_path):
    with pytest.raises(UserError, match=r"gone.jpg cannot be read \(No such file or directory\); correct the list"):
        assert people_list.read(written(tmp_path, "path,pid", "gone.jpg,1")).digest


def test_written_list_is_read_as_the_same_rows(tmp_path):
    header = "path,pid,camid,split,texture,time,x,y,w,h"
    lines = ("a.jpg,0007,hall,train,t.png,2026-11-28T14:03:00,1,2.5,30,60", "b.jpg,2,1,query,,,,,,")
    rows = read(tmp_path, header, *lines)
    copy = tmp_path / "elsewhere" / "copy.csv"
    people_list.write(copy, rows)
    unnamed = [dataclasses.replace(row, name="") for row in rows]
    assert [dataclasses.replace(row, name="") for row in people_list.read(copy).rows] == unnamed
    people_list.write(copy, [Row(path=Path("/a.jpg"), pid=1, camid=0, name="a")])
    assert copy.read_text() == "path,pid,camid\n/a.jpg,1,0\n"
    box = (1234.567, 1999.9996, 3.25, 1234567.5)
    people_list.write(copy, [Row(path=Path("/a.jpg"), pid=1, camid=0, name="a", box=box)])
    assert people_list.read(copy).rows[0].box == box
