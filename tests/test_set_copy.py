import json
import os

import own_set
import pytest
from object_store import put_folder

import tfds_builders
from san_jax import remote
from san_jax.errors import UserError
from san_jax.process import identity
from tfds_builders import set_copy, staging

PLACE = "own/all/1.0.0"


@pytest.fixture
def name(monkeypatch):
    splits = {split: own_set.pictures([1, 2, 3], start=split) for split in ("train", "query", "gallery")}
    return own_set.register(monkeypatch, splits)


@pytest.fixture
def data_dir(name, bucket, tmp_path):
    """The address of a folder that holds the prepared set."""
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "any").touch()
    tfds_builders.prepare(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "release")
    put_folder(tmp_path / "data" / PLACE, f"{bucket}/data/{PLACE}")
    return f"{bucket}/data"


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def pictures(source):
    return [source[row]["image"] for row in range(len(source))]


def test_set_is_copied_once_and_read_as_a_local_one(name, data_dir, tmp_path, capsys):
    local = tfds_builders.open_source(name, "train", data_dir=tmp_path / "data")
    there = tfds_builders.open_source(name, "train", data_dir=data_dir)
    assert pictures(there) == pictures(local)
    assert there.digest == local.digest
    copy = tmp_path / "cache" / "data" / data_dir.replace("://", "/") / PLACE
    assert f"copying {data_dir}/{PLACE} to {copy} (" in capsys.readouterr().err
    before = stamps(copy)
    tfds_builders.open_source(name, "train", data_dir=data_dir)
    assert stamps(copy) == before
    assert capsys.readouterr().err == ""


def test_copy_is_made_anew_if_it_is_damaged_or_the_set_has_changed(name, data_dir, tmp_path, capsys):
    copy = remote.data_folder(data_dir) / PLACE
    tfds_builders.prepare(name, data_dir=data_dir)
    shard = next(copy.glob("*.array_record*"))
    whole = shard.read_bytes()
    os.truncate(shard, len(whole) - 1)
    capsys.readouterr()
    tfds_builders.prepare(name, data_dir=data_dir)
    assert "copying" in capsys.readouterr().err
    assert shard.read_bytes() == whole
    (copy / set_copy.COPIED).write_text("[" * 100_000)
    tfds_builders.prepare(name, data_dir=data_dir)
    assert "copying" in capsys.readouterr().err
    info = tmp_path / "data" / PLACE / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"description": "another"}))
    put_folder(info.parent, f"{data_dir}/{PLACE}")
    tfds_builders.prepare(name, data_dir=data_dir)
    assert json.loads((copy / info.name).read_text())["description"] == "another"


def test_interrupted_copy_is_never_read_and_made_anew(name, data_dir, monkeypatch):
    download = remote.download

    def killed(address, names, folder):
        download(address, dict(list(names.items())[:1]), folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(remote, "download", killed)
        with pytest.raises(KeyboardInterrupt):
            tfds_builders.prepare(name, data_dir=data_dir)
    assert not (remote.data_folder(data_dir) / PLACE).exists()
    left = remote.data_folder(data_dir) / f"{staging.prefix(name)}killed"  # by SIGKILL
    left.mkdir()
    owner = {"name": name, "pid": 2**22 + 1, "started": "1", **identity.machine()}
    (left / staging.OWNER).write_text(json.dumps(owner))
    assert len(tfds_builders.open_source(name, "train", data_dir=data_dir)) == 12
    assert not left.exists()


def test_set_that_is_not_there_is_refused_with_the_commands_that_prepare_and_copy_it(name, bucket, tmp_path):
    said = rf"own/all is not in {bucket}/data; prepare it by `python -m tfds_builders own/all --data_dir=data`, and "
    said += rf"copy it by `aws s3 sync data/own/all/1\.0\.0 {bucket}/data/own/all/1\.0\.0`$"
    with pytest.raises(UserError, match=said):
        tfds_builders.prepare(name, data_dir=f"{bucket}/data", manual_dir=tmp_path)
    assert not (tmp_path / "cache").exists()


def test_list_of_copied_files_is_no_file_of_the_set(name, data_dir):
    tfds_builders.prepare(name, data_dir=data_dir)
    copy = remote.data_folder(data_dir) / PLACE
    listed = json.loads((copy / set_copy.COPIED).read_text())
    assert {path.name for path in copy.iterdir()} == {*listed, set_copy.COPIED}
