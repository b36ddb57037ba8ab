import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from san_jax import remote
from san_jax.errors import UserError
from san_jax.remote import Entry

CLOSED = "http://127.0.0.1:9"  # nothing listens there


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def texts_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_travel_there_and_back(bucket, tmp_path):
    files = {"a.txt": "a", "deep/er/b.txt": "bb", "deep/c": ""}
    remote.upload(write(tmp_path / "from", files), list(files), f"{bucket}/some/place")
    there = remote.listing(f"{bucket}/some/place/")
    assert {name: entry.size for name, entry in there.items()} == {"a.txt": 1, "deep/er/b.txt": 2, "deep/c": 0}
    remote.download(Path(f"{bucket}/some/place"), there, tmp_path / "to")  # a Path has one slash less
    assert texts_in(tmp_path / "to") == files
    remote.delete(f"{bucket}/some/place", ["a.txt"])
    assert set(remote.listing(f"{bucket}/some")) == {"place/deep/er/b.txt", "place/deep/c"}
    assert remote.listing(f"{bucket}/som") == {}  # no part of a name


def test_object_that_is_written_anew_has_another_version(bucket, tmp_path):
    versions = []
    for text in ("one", "two"):
        remote.upload(write(tmp_path, {"a": text}), ["a"], bucket)
        versions.append(remote.listing(f"{bucket}/a")[""])
    assert versions[0].size == versions[1].size
    assert versions[0] != versions[1]


def test_file_of_another_size_than_listed_is_an_error(bucket, tmp_path):
    remote.upload(write(tmp_path, {"a": "four"}), ["a"], bucket)
    with pytest.raises(UserError, match=r"cannot read s3://\S+ \(a has 4 bytes in place of 5\)"):
        remote.download(bucket, {"a": Entry(5, "")}, tmp_path / "to")


def test_copy_has_a_place_that_tells_its_address(monkeypatch, tmp_path):
    monkeypatch.setenv(remote.CACHE, str(tmp_path))
    copy = remote.copy_of("gs://bucket/runs/one/", "runs")
    assert copy == tmp_path / "runs" / "gs" / "bucket" / "runs" / "one"
    assert remote.named(copy / "config.json") == "gs://bucket/runs/one/config.json"
    for other in ("runs/one", tmp_path / "runs" / "one" / "two", tmp_path, "/"):
        assert remote.named(other) == str(other)


def test_cache_is_in_the_users_cache_unless_a_variable_names_it(monkeypatch):
    monkeypatch.delenv(remote.CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert remote.cache() == Path("/x/san_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert remote.cache() == Path.home() / ".cache" / "san_jax"


@pytest.mark.parametrize("address", ["s3://", "s3:///", "gs://bucket//run", "s3://bucket/../../etc", "s3://bucket/./a"])
def test_address_that_is_no_folder_is_refused(address):
    with pytest.raises(UserError, match=r"has no bucket, or an empty part; give (s3|gs)://BUCKET"):
        remote.copy_of(address, "runs")


def test_bucket_that_does_not_exist_is_named(bucket):
    with pytest.raises(UserError, match=rf"cannot read {bucket}-2/run \(not found: The specified bucket does not"):
        remote.listing(f"{bucket}-2/run")


def test_missing_credentials_are_reported(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match=rf"cannot read {bucket} \(Unable to locate credentials\); check the address"):
        remote.listing(bucket)


def test_server_that_is_away_is_reported(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", CLOSED)
    with pytest.raises(remote.StoreError, match=rf'cannot write {bucket} \(Could not connect .*"{CLOSED}'):
        remote.upload(write(tmp_path, {"a": "a"}), ["a"], bucket)


@pytest.mark.parametrize(("address", "library"), [("s3://bucket", "s3fs"), ("gs://bucket", "gcsfs")])
def test_missing_extra_is_named(address, library):
    code = "import sys; sys.modules[sys.argv[2]] = None\nfrom san_jax import errors, remote\n"
    code += "try: remote.listing(sys.argv[1])\nexcept errors.UserError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code, address, library], capture_output=True, text=True, check=True)
    assert said.stdout == f'{address} needs {library}, which is not installed; pip install "san_jax[remote]"\n'


def test_opened_copy_holds_what_was_chosen_and_is_deleted(bucket, tmp_path):
    remote.upload(write(tmp_path / "from", {"a": "a", "b/c": "c"}), ["a", "b/c"], f"{bucket}/run")
    with remote.opened(f"{bucket}/run", lambda names: [name for name in names if name != "a"]) as copy:
        assert texts_in(copy) == {"b/c": "c"}
    with remote.opened(f"{bucket}/run/a", list) as copy:
        assert copy.read_text() == "a"
    assert list(remote.cache().iterdir()) == []


def test_local_path_is_opened_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    with remote.opened("runs/one", lambda names: pytest.fail("nothing is listed")) as path:
        assert path == Path("runs/one")
    assert not (tmp_path / "cache").exists()


def test_errors_inside_an_opened_copy_name_the_address(bucket):
    with pytest.raises(UserError, match=rf"^{bucket}/run/config\.json cannot be read$"):  # noqa: SIM117
        with remote.opened(f"{bucket}/run", list) as copy:
            raise UserError(f"{copy}/config.json cannot be read")


def test_copies_that_killed_processes_have_left_are_deleted_and_those_in_use_are_not(bucket, tmp_path):
    left, new, used = (remote.cache() / f"{remote.TEMPORARY}{name}" for name in ("left", "new", "used"))
    for area in (left, new, used):
        write(area, {remote.HELD: "", "s3/bucket/a": "a"})
    for area in (left, used):
        os.utime(area, (time.time() - 7200,) * 2)
    with remote.lock.held(used / remote.HELD, what="a reader"), remote.opened(bucket, list):
        assert not left.exists()
        assert texts_in(new)["s3/bucket/a"] == texts_in(used)["s3/bucket/a"] == "a"


def test_file_of_a_copy_is_published_and_any_other_is_not(bucket, tmp_path):
    copy = write(remote.copy_of(f"{bucket}/run", "reading-x"), {"scores.json": "{}"})
    remote.publish(copy / "scores.json")
    assert {name: entry.size for name, entry in remote.listing(f"{bucket}/run").items()} == {"scores.json": 2}
    remote.publish(write(tmp_path, {"other.json": "{}"}) / "other.json")
    assert set(remote.listing(bucket)) == {"run/scores.json"}
