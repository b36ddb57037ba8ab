import errno
import json
import os
import time

import numpy as np
import pytest

from san_jax.data import decoded_store
from san_jax.data.decoded_store import DecodedStore, key_of

SHAPE = (10, 4, 3, 3)
SIZE = int(np.prod(SHAPE))
PICTURES = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def keep(store, key="one", shape=SHAPE, fill=None):
    """What the store has for a key, and whether it had to be filled."""
    filled = []

    def copy(target):
        filled.append(target.shape)
        target[:] = PICTURES[: len(target)]

    about = {"source": "test/people", "field": "image"}
    array = store.kept(key, shape, fill or copy, num_bytes=int(np.prod(shape)), about=about, workers=2)
    return array, bool(filled)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def test_entry_is_filled_once_and_read_from_then_on(tmp_path):
    folder = tmp_path / "data" / "decoded"
    for expected in (True, False):
        array, filled = keep(DecodedStore(folder, max_bytes=10**5))
        assert filled == expected
        np.testing.assert_array_equal(array, PICTURES)
        assert not array.flags.writeable
    assert names(folder) == ["one.json", "one.npy"]
    assert json.loads((folder / "one.json").read_text())["source"] == "test/people"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("one.npy", flip_a_bit),
        ("one.npy", lambda path: os.truncate(path, 200)),
        ("one.npy", lambda path: path.write_bytes(b"")),
        ("one.json", lambda path: path.write_text("{")),
        ("one.json", lambda path: path.write_text("[]")),
        ("one.json", lambda path: path.write_text('{"crc32": [1, -2]}')),
    ],
)
def test_damaged_entry_is_filled_again_and_said_once(name, damage, tmp_path, capsys):
    store = DecodedStore(tmp_path, max_bytes=10**5)
    keep(store)
    damage(tmp_path / name)
    array, filled = keep(store)
    assert filled
    np.testing.assert_array_equal(array, PICTURES)
    assert capsys.readouterr().err == f"{tmp_path / 'one.npy'} is damaged; its pictures are decoded again\n"
    assert not keep(store)[1]


def test_missing_file_is_filled_in_silence(tmp_path, capsys):
    store = DecodedStore(tmp_path, max_bytes=10**5)
    for name in ("one.npy", "one.json"):
        keep(store)
        (tmp_path / name).unlink()
        assert keep(store)[1]
    assert capsys.readouterr().err == ""


def test_entries_that_were_not_used_for_the_longest_time_make_room(tmp_path):
    store = DecodedStore(tmp_path, max_bytes=3 * (SIZE + 128) + 100)  # 128 bytes: the header of a file
    for age, key in enumerate(("old", "older", "oldest"), start=1):
        keep(store, key)
        past = time.time() - 1000 * age
        os.utime(tmp_path / f"{key}.json", (past, past))
    assert not keep(store, "oldest")[1]  # used just now
    assert keep(store, "new")[1]
    assert names(tmp_path) == [f"{key}.{suffix}" for key in ("new", "old", "oldest") for suffix in ("json", "npy")]


def test_array_in_use_survives_the_removal_of_its_entry(tmp_path):
    store = DecodedStore(tmp_path, max_bytes=SIZE + 200)
    first, _ = keep(store)
    keep(store, "other")
    assert names(tmp_path) == ["other.json", "other.npy"]
    np.testing.assert_array_equal(first, PICTURES)


def test_set_beyond_the_bound_or_the_disk_is_not_kept(tmp_path, monkeypatch):
    assert keep(DecodedStore(tmp_path / "new", max_bytes=SIZE - 1)) == (None, False)
    monkeypatch.setattr(decoded_store, "SPARE_BYTES", 1 << 60)
    assert keep(DecodedStore(tmp_path / "new", max_bytes=10**5)) == (None, False)
    assert not (tmp_path / "new").exists()


def test_folder_whose_name_a_file_has_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "decoded").touch()
    assert keep(DecodedStore(tmp_path / "decoded", max_bytes=10**5)) == (None, False)
    said = capsys.readouterr().err
    assert said.startswith(f"decoded pictures cannot be kept in {tmp_path / 'decoded'} (File exists); they stay")
    assert said.count("\n") == 1


def test_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert keep(DecodedStore(tmp_path, max_bytes=10**5)) == (None, False)
    assert names(tmp_path) == []
    said = capsys.readouterr().err
    assert said.startswith(f"decoded pictures cannot be kept in {tmp_path} (No space left on device); they stay")
    assert said.count("\n") == 1


def test_interrupted_filling_leaves_nothing_and_what_a_killed_process_left_is_removed(tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    store = DecodedStore(tmp_path, max_bytes=10**5)
    with pytest.raises(KeyboardInterrupt):
        keep(store, fill=stop)
    assert names(tmp_path) == []
    (tmp_path / "dead.npy.part").write_bytes(b"begun")
    keep(store)
    assert names(tmp_path) == ["one.json", "one.npy"]


def test_key_changes_with_pictures_field_and_shape():
    keys = {key_of(*parts) for parts in (("a", "image", SHAPE), ("b", "image", SHAPE), ("a", "texture", SHAPE))}
    assert len(keys | {key_of("a", "image", (10, 4, 4, 3))}) == 4
    assert key_of("a", "image", SHAPE) in keys
