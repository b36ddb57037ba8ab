"""Data sets made from lists and folders of pictures."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from array_source import encoded
from own_pictures import SPLITS, noise, save, write, write_people
from PIL import Image

import tfds_builders
from san_jax.errors import UserError
from tfds_builders.folder import Folder


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path)


def opened(path, split, **options):
    return tfds_builders.open_source(str(path), split, data_dir=path.parent / "data", **options)


def test_list_is_a_data_set_whose_name_has_its_stem_and_digest(people):
    sources = {split: opened(people, split) for split in SPLITS}
    names = {source.name for source in sources.values()}
    assert len(names) == 1
    assert Folder.get_builder_config(names.pop().removeprefix("folder/")).listed.stem == "people"
    for split, pids in SPLITS.items():
        source = sources[split]
        assert sorted(set(source.pids.tolist())) == list(pids)
        for row, name in enumerate(source.names):
            assert source[row]["image"] == (people.parent / f"{name}.png").read_bytes()
    assert sources["query"].names == ["shop/query/3_0", "shop/query/4_0"]
    assert not sources["train"].has_textures


def test_prepared_list_is_opened_again_without_preparing_and_by_its_name_alone(people, capsys):
    name = opened(people, "train").name
    assert "preparing" in capsys.readouterr().err
    again = tfds_builders.open_source(name, "train", data_dir=people.parent / "data")
    opened(people, "query")
    assert again.name == name
    assert capsys.readouterr().err == ""


def test_name_that_is_not_prepared_asks_for_the_list(tmp_path):
    with pytest.raises(UserError, match="folder/people-0123abcd is not prepared; give the list or folder it is made"):
        tfds_builders.open_source("folder/people-0123abcd", "train", data_dir=tmp_path)


def test_changed_list_or_picture_is_prepared_again(people):
    first = opened(people, "train")
    changed = save(people.parent / "shop/train/0_0.png", noise(99, height=14))
    second = opened(people, "train")
    assert second.name != first.name
    assert second[second.names.index("shop/train/0_0")]["image"] == changed.read_bytes()
    people.write_text(people.read_text().replace("shop/train/0_1.png,0,", "shop/train/0_1.png,2,"))
    third = opened(people, "train")
    assert third.name not in (first.name, second.name)
    assert third.pids[third.names.index("shop/train/0_1")] == 2


def test_list_may_lack_splits_and_the_missing_one_is_named(people, tmp_path):
    lines = people.read_text().splitlines()
    path = tmp_path / "trained.csv"
    path.write_text("\n".join(line for line in lines if "shop/train" in line or "path" in line))
    assert len(opened(path, "train")) == 6
    with pytest.raises(UserError, match=r"folder/trained-\w{8} has no pictures in split query, only in train"):
        opened(path, "query")


def test_made_split_is_described_and_kept_as_a_list(tmp_path, capsys):
    for pid in range(4):
        for camid in (0, 1):
            save(tmp_path / f"shop/{pid}/{camid}_a.png", noise(pid, camid))
    pattern = r"(?P<camid>\d)_"
    source = opened(tmp_path / "shop", "train", pattern=pattern)
    said = capsys.readouterr().err.splitlines()
    sizes = "2 people with 4 pictures for training, 2 queries and 2 gallery pictures of the other 2"
    assert said[1:4] == [
        f"{tmp_path / 'shop'}: a folder a person: 8 pictures",
        f"shop has no splits; made: {sizes}",
        "people with one picture: 0",
    ]
    made = tmp_path / "data" / source.name / "1.0.0" / "split.csv"
    assert said[-1] == f"the split is {made}; copy it, change it, and give it in place of the list"
    kept = tmp_path / "mine.csv"
    kept.write_bytes(made.read_bytes())
    for split in SPLITS:
        own, other = opened(tmp_path / "shop", split, pattern=pattern), opened(kept, split)
        assert [own[row]["image"] for row in range(len(own))] == [other[row]["image"] for row in range(len(other))]
        np.testing.assert_array_equal(own.pids, other.pids)


def test_textures_of_training_pictures_are_stored(people):
    rows = list(csv.DictReader(io.StringIO(people.read_text())))
    for row in rows:
        if row["split"] == "train":
            save(people.parent / "t" / f"{row['pid']}.png", noise(7, int(row["pid"]), height=8, width=8))
            row["texture"] = f"t/{row['pid']}.png"
    source = opened(write(people, *rows), "train")
    assert source.has_textures
    assert source[0]["texture"] == (people.parent / "t/0.png").read_bytes()
    assert not opened(people, "query").has_textures


def test_list_with_drawn_textures_can_be_trained_on(people):
    drawn = people.parent / "drawn"
    source = opened(people, "train")
    for number, name in enumerate(source.names):
        save(drawn / f"{name}.png", noise(number, height=8, width=8))
    listed = tfds_builders.list_with_textures(str(people), drawn, split="train")
    path = listed.path
    assert path == drawn / "people_textures.csv"
    listed.write()
    textured = tfds_builders.open_source(str(path), "train", data_dir=people.parent / "data")
    assert textured.has_textures
    for row, name in enumerate(source.names):
        assert textured[row]["texture"] == (drawn / f"{name}.png").read_bytes()
        assert textured[row]["image"] == source[row]["image"]
    np.testing.assert_array_equal(textured.pids, source.pids)


def test_folder_of_textures_of_another_list_is_refused(people, tmp_path):
    drawn = tmp_path / "drawn"
    listed = tfds_builders.list_with_textures(str(people), drawn, split="train")
    listed.write()
    assert tfds_builders.list_with_textures(str(people), drawn, split="train") == listed
    other = write_people(tmp_path / "other")
    with pytest.raises(UserError, match=r"people_textures\.csv gives 0_0\.png to .*; write the textures"):
        tfds_builders.list_with_textures(str(other), drawn, split="train")


def test_times_are_stored_with_their_pictures(people):
    rows = list(csv.DictReader(io.StringIO(people.read_text())))
    rows[0]["time"] = "2026-11-28 14:03"
    name = opened(write(people, *rows), "train").name
    builder = tfds_builders.prepare(name, data_dir=people.parent / "data")
    assert builder.column("train", "time").tolist() == ["2026-11-28T14:03:00", *[""] * 5]


def test_boxes_cut_people_out_of_pictures(tmp_path):
    street = noise(1, height=40, width=60)
    save(tmp_path / "street.png", street)
    boxes = [(5, 3, 10, 20), (30.6, 1.2, 8, 9), (-4, 30, 10, 30)]
    rows = [{**dict(zip("xywh", box, strict=True)), "path": "street.png", "pid": 1, "split": "train"} for box in boxes]
    source = opened(write(tmp_path / "boxes.csv", *rows), "train")
    assert source.names == ["street-5,3,10,20", "street-30.6,1.2,8,9", "street--4,30,10,30"]
    cut = [np.asarray(Image.open(io.BytesIO(source[row]["image"]))) for row in range(3)]
    np.testing.assert_array_equal(cut[0], street[3:23, 5:15])
    np.testing.assert_array_equal(cut[1], street[1:11, 30:39])
    np.testing.assert_array_equal(cut[2], street[30:, :6])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is no picture, or damaged"),
        (b"text", "it is no picture, or damaged"),
        (encoded(noise(1, height=60, width=60))[:-200], "it is no picture, or damaged"),
    ],
)
def test_picture_that_cannot_be_read_is_named_and_nothing_is_left(content, said, people):
    broken = people.parent / "shop/gallery/5_1.png"
    broken.write_bytes(content)
    with pytest.raises(UserError) as caught:
        opened(people, "train")
    assert str(caught.value) == f"{broken} cannot be read ({said}); replace it, or take it out of the list"
    left = [path for path in (people.parent / "data").rglob("*") if not path.name.endswith("lock")]
    assert left == []


def test_data_set_is_preferred_to_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("pit/small/a.png"), noise(1))
    save(Path("shop/anna/a.png"), noise(1))
    assert [tfds_builders.is_own(name) for name in ("pit/small", "pit", "shop", "nowhere", "gone.csv")] == [
        *(False, False, True, False, True)
    ]
    save(Path("pit/images/a.png"), noise(1))
    with pytest.raises(UserError, match=r"there is no data set pit/images; .* write \./pit/images"):
        tfds_builders.open_source("pit/images", "train", data_dir=tmp_path)
    assert tfds_builders.is_own("./pit/images")
    assert not tfds_builders.is_own("x" * 300)
    with pytest.raises(UserError, match=r"gone\.csv cannot be read"):
        tfds_builders.open_source("gone.csv", "train", data_dir=tmp_path)
