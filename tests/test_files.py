import os
import subprocess
import sys
from pathlib import Path

import pytest

from san_jax import files
from san_jax.errors import UserError
from san_jax.process import identity


def test_surrogates_in_a_text_are_escaped(tmp_path):
    name = b"\xfcx".decode(errors="surrogateescape")
    files.write(tmp_path / "a", f"{name} ü")
    assert (tmp_path / "a").read_text() == r"\udcfcx ü"


def test_write_creates_the_folders_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "a" / "b" / "scores.json"
    files.write(path, "ü")
    files.write(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert list(path.parent.iterdir()) == [path]


def test_home_folders_are_filled_in_and_an_unknown_user_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert files.at_home("~/data") == Path("/home/anna/data")
    assert [files.at_home(place) for place in ("data/~x", "./~nosuch")] == [Path("data/~x"), Path("~nosuch")]
    assert files.at_home("~nosuch", known=False) == Path("~nosuch")
    assert files.at_home("") == Path()
    with pytest.raises(UserError, match=r"^~nosuch/data: the home folder of ~nosuch is not known; give the"):
        files.at_home("~nosuch/data")
    with pytest.raises(UserError, match=r"^the path 'da\\x00ta' holds a NUL character"):
        files.at_home("da\0ta")


def test_file_that_an_ended_process_has_begun_is_deleted_at_once(tmp_path):
    code = "import os, sys; from pathlib import Path; from san_jax import files; Path.replace = lambda *_: os._exit(9);"
    code += "files.write(Path(sys.argv[1]), 'text')"
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "a"])
    assert killed.returncode == 9
    [left] = tmp_path.iterdir()
    assert left.name.endswith(files.UNFINISHED)
    assert files.is_abandoned(left)
    own = tmp_path / f"b.{identity.machine_number()}.{os.getpid()}{files.UNFINISHED}"
    elsewhere = tmp_path / f"b.{'0' * 8}.{2**22 + 1}{files.UNFINISHED}"
    for path in (own, elsewhere):
        path.touch()
    files.delete_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([own, elsewhere])


def test_path_that_cannot_be_replaced_is_named_and_no_other_file_is_left(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*taken \(.*\); choose another place or free some space"):
        files.write(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("folder", "it is a folder"), ("file/scores.json", "file is not a folder"), ("file/a/b", "file is not a folder")],
)
def test_place_is_refused_before_anything_is_written(name, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=f"cannot write {tmp_path / name} \\(.*{reason}\\); choose another place"):
        files.check_place(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("name", ["new.json", "folder/new.json", "folder/a/b/new.json", "file"])
def test_place_that_can_be_written_passes_and_is_not_created(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    files.check_place(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_interrupted_write_keeps_the_earlier_content(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    files.write(path, "before")

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, "after")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])


def test_what_killed_processes_have_begun_of_a_long_file_is_deleted_by_the_next_one(tmp_path):
    begun = f"{identity.machine_number()}.{2**22 + 1}{files.UNFINISHED}"
    own = f"{identity.machine_number()}.{os.getpid()}{files.UNFINISHED}"
    kept = ["[a].onnx.old.part", f"b.onnx.{begun}", f"[a].onnx.data.{begun}", f"a.onnx.{begun}"]
    for name in [f"[a].onnx.{begun}", *kept]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    with files.replacing(tmp_path / "[a].onnx") as part:
        assert part.name == f"[a].onnx.{own}"
        part.write_bytes(b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "[a].onnx"])


def test_only_files_that_were_begun_long_ago_are_abandoned(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png.1.part", "sub/b.png.2.part", "c.png.3.part", "d.part.png"):
        (tmp_path / name).write_bytes(b"begun")
        os.utime(tmp_path / name, (0, 0))
    os.utime(tmp_path / "c.png.3.part")
    files.delete_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.p*")) == ["c.png.3.part", "d.part.png"]
    assert not files.is_abandoned(tmp_path / "gone.part")


def test_two_processes_may_write_one_file_at_once(tmp_path):
    """Each leaves a whole file, whoever is last."""
    code = "import sys; from pathlib import Path; from san_jax import files\n"
    code += "for _ in range(300): files.write(Path(sys.argv[1]), sys.argv[2] * 100_000)"
    words = [[sys.executable, "-c", code, str(tmp_path / "one"), letter] for letter in "ab"]
    writing = [subprocess.Popen(each, cwd=Path(__file__).parent.parent) for each in words]
    assert [process.wait() for process in writing] == [0, 0]
    assert (tmp_path / "one").read_text() in ("a" * 100_000, "b" * 100_000)
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe\xfd"])
def test_text_that_is_no_json_is_a_value_error_however_deep_it_is_nested(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=r".+"):
        files.read_json(path)


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("s3://bucket", True),
        ("gs://bucket/run", True),
        (Path("s3://bucket/run"), True),
        ("runs/san", False),
        ("/s3/bucket", False),
        ("s3", False),
        ("tfds:/pictures/people.csv", False),
        ("", False),
    ],
)
def test_addresses_of_object_stores_are_told_from_local_paths(place, remote):
    assert files.is_remote(place) == remote


@pytest.mark.parametrize("address", ["https://host/run", "hdfs://host/run", "file:///run"])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match=rf"^{address} is neither a local path nor an s3:// or gs:// address; copy it"):
        files.is_remote(address)


@pytest.mark.parametrize("does", [files.check_place, lambda path: files.write(path, "text")])
def test_nothing_is_written_to_an_address(does, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a file to be written is s3://bucket/a, but must be local, since .*; give a"):
        does(Path("s3://bucket/a"))
    assert list(tmp_path.iterdir()) == []
