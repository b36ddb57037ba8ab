import numpy as np
import own_set
import pytest
from own_set import pictures

from san_jax.errors import UserError
from tfds_builders import open_source
from tfds_builders.record import whole_label


def splits_of(pids):
    return {"train": pictures(pids), "query": pictures(pids, each=1), "gallery": pictures(pids)}


def opened(monkeypatch, tmp_path, splits):
    name = own_set.register(monkeypatch, splits)
    return {split: open_source(name, split, data_dir=tmp_path) for split in splits}


@pytest.mark.parametrize(
    ("pids", "numbers"),
    [
        ([2, 7, 10, -1], [2, 7, 10, -1]),
        ([3_000_000_002, 5, 10**30], [1, 0, 2]),
        (["0002", "anna", "0001"], [1, 2, 0]),
        (["2", 7, "0002"], [0, 1, 2]),
        (["12", "7"], [12, 7]),
        ([np.int64(4), np.uint8(9), 3.0, b"5"], [4, 9, 3, 5]),
        ([1.5, 2], [1, 0]),
    ],
)
def test_pids_are_any_numbers_or_words_and_the_same_in_all_splits(pids, numbers, monkeypatch, tmp_path):
    sources = opened(monkeypatch, tmp_path, splits_of(pids))
    for split, each in (("train", 4), ("query", 2), ("gallery", 4)):
        np.testing.assert_array_equal(sources[split].pids, np.repeat(numbers, each))
        assert sources[split].pids.dtype == np.int32
        assert [sources[split][row]["pid"] for row in (0, len(sources[split]) - 1)] == [numbers[0], numbers[-1]]


def test_pids_of_one_split_do_not_shift_those_of_another(monkeypatch, tmp_path):
    splits = splits_of(["b", "d"]) | {"train": pictures(["a", "c"])}
    sources = opened(monkeypatch, tmp_path, splits)
    assert {split: sorted(set(source.pids.tolist())) for split, source in sources.items()} == {
        "train": [0, 2],
        "query": [1, 3],
        "gallery": [1, 3],
    }


def test_people_are_named_as_the_set_names_them_in_the_order_of_their_pids(monkeypatch, tmp_path):
    sources = opened(monkeypatch, tmp_path, splits_of(["b", "d"]) | {"train": pictures(["e", 10**12, "a", 3])})
    assert sources["train"].people == ["own/3", "own/1000000000000", "own/a", "own/e"]
    assert sources["query"].people == ["own/b", "own/d"]


def test_cameras_are_any_numbers_or_words_too(monkeypatch, tmp_path):
    cameras = ["hall", 2**40, "door", 3]
    items = [(pid, camera, f"{pid}_{camera}") for pid in (1, 2) for camera in cameras]
    sources = opened(monkeypatch, tmp_path, {split: items for split in ("train", "query", "gallery")})
    np.testing.assert_array_equal(sources["query"].camids, [3, 1, 2, 0] * 2)
    assert [sources["query"][row]["camid"] for row in range(4)] == [3, 1, 2, 0]


@pytest.mark.parametrize("pid", [None, "", " ", float("nan")])
def test_picture_without_a_pid_is_refused_by_its_name(pid, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"^p7 has no pid; give every picture"):
        opened(monkeypatch, tmp_path, {split: [(pid, 0, "p7")] for split in ("train", "query", "gallery")})


def test_label_is_an_integer_where_a_text_spells_one_canonically():
    labels = [whole_label(value, field="pid", name="x") for value in ("7", "-3", "007", "+7", "7.0", " 8 ", "٣", True)]
    assert labels == [7, -3, "007", "+7", "7.0", 8, "٣", "True"]


@pytest.mark.parametrize("empty", ["train", "query", "gallery"])
@pytest.mark.parametrize("missing", [False, True])
def test_split_without_pictures_is_refused_when_the_set_is_prepared(empty, missing, monkeypatch, tmp_path):
    splits = {split: items for split, items in splits_of([1, 2]).items() if not (missing and split == empty)}
    name = own_set.register(monkeypatch, splits if missing else splits | {empty: []})
    for _ in range(2):
        with pytest.raises(UserError, match=f"^own/all has no pictures in split {empty}; it is not prepared"):
            open_source(name, "train", data_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".own-all.lock"]


def test_label_of_bytes_that_are_no_text_is_kept_with_escapes_and_several_are_refused():
    assert whole_label(b"\xff7", field="pid", name="x") == r"\xff7"
    for several in ((1, 2), [3], np.array([4, 5])):
        with pytest.raises(UserError, match=r"^p7 has the camid .*; give every picture one number or one word"):
            whole_label(several, field="camid", name="p7")
