import sys

import boxed_frames
import pytest

from san_jax.errors import UserError
from tfds_builders import __main__, boxed_list, people_list


@pytest.fixture
def frames(tmp_path):
    boxed_frames.write_mot(tmp_path / "gt.txt")
    return boxed_frames.write_frames(tmp_path / "frames")


def test_list_names_every_box_with_its_id_as_pid(frames, tmp_path):
    said = boxed_list.write(tmp_path / "people.csv", frames, tmp_path / "gt.txt", camid="door")
    assert said[-1] == f"{tmp_path}/people.csv: 4 pictures of 2 people"
    rows = people_list.read(tmp_path / "people.csv").rows
    assert [(row.path.name, row.pid, row.camid) for row in rows] == [
        ("000001.png", 3, "door"),
        ("000001.png", 7, "door"),
        ("000002.png", 3, "door"),
        ("000002.png", 7, "door"),
    ]
    assert rows[0].box == (10.0, 20.0, 20.0, 60.0)


def test_command_writes_a_list_and_says_what_was_left_out(frames, tmp_path, monkeypatch, capsys):
    arguments = [str(frames), f"--boxes={tmp_path}/gt.txt", f"--list={tmp_path}/people.csv", "--camid=2"]
    monkeypatch.setattr(sys, "argv", ["tfds_builders", *arguments])
    __main__.main()
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/gt.txt: 4 boxes of 2 tracks in 2 frames",
        f"{tmp_path}/people.csv: 4 pictures of 2 people",
    ]
    assert {row.camid for row in people_list.read(tmp_path / "people.csv").rows} == {2}


@pytest.mark.parametrize(
    ("boxes", "output", "error"),
    [
        ("nameless.txt", "new.csv", r"000001\.png, box .* has no id, so who it shows is unknown; give"),
        ("gt.txt", "old.csv", r"old\.csv exists; delete it or choose another name"),
        ("gt.txt", "new.txt", r"--list is .*new\.txt, which does not end in \.csv"),
        ("nothing.txt", "new.csv", r"nothing\.txt cannot be read"),
    ],
)
def test_list_that_cannot_be_written_is_refused_and_nothing_is_written(boxes, output, error, frames, tmp_path):
    (tmp_path / "nameless.txt").write_text("1,-1,10,20,20,60,0.9\n")
    (tmp_path / "old.csv").write_text("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=error):
        boxed_list.write(tmp_path / output, frames, tmp_path / boxes)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.csv").read_text() == "mine"


def test_name_that_a_list_cannot_hold_is_refused(frames, tmp_path):
    (frames / "000001.png").rename(frames / "\udcff000001.png")
    with pytest.raises(UserError, match="is no UTF-8, as lists are; rename it"):
        boxed_list.write(tmp_path / "people.csv", frames, tmp_path / "gt.txt")
    assert not (tmp_path / "people.csv").exists()


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--boxes=gt.txt", "--list=new.csv", "--check"], "--check has no effect with --list; leave it out"),
        (["--boxes=gt.txt", "--list=new.csv", "--pattern=x"], "--pattern has no effect with --list"),
        (["--camid=3"], "--camid is for --list; give --boxes and --list, too"),
        (["--margin=0"], "--margin is for --list"),
        (["--boxes=gt.txt", "--list=new.csv", "--margin=2"], "--margin is 2.0; give a number from 0 to 1"),
    ],
)
def test_flags_without_effect_or_out_of_range_are_refused(flags, error, frames, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tfds_builders", str(frames), *flags])
    with pytest.raises(SystemExit):
        __main__.main()
    assert error in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("flag", ["--boxes=gt.txt", "--list=people.csv"])
def test_one_flag_without_the_other_is_refused(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfds_builders", str(tmp_path), flag])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "is missing; give both, --boxes=gt.txt --list=people.csv" in capsys.readouterr().err
