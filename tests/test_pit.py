import filecmp
import io
import shutil

import numpy as np
import pytest
from PIL import Image

import tfds_builders
from san_jax.errors import UserError
from tfds_builders import open_source, whole_name
from tfds_builders.pit import Pit, PitConfig

TINY = dict(seed=5, wardrobes=5, pairs=2, height=32, texture_side=32)


class TinyPit(Pit):
    """Few pairs, small pictures."""

    BUILDER_CONFIGS = (
        PitConfig(name="procedural", **TINY),
        PitConfig(name="photographs", photographs=True, **TINY),
        PitConfig(name="release", released=True),
    )


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tfds_builders.BUILDERS, "tiny_pit", TinyPit)
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def decode(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


def records_of(source) -> list:
    return [source[row] for row in range(len(source))]


def refused(config, manual_dir, data_dir) -> str:
    """The one-line message of the error that preparing raises."""
    with pytest.raises(UserError) as caught:
        open_source(f"tiny_pit/{config}", "train", data_dir=data_dir, manual_dir=manual_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert [path.name for path in data_dir.iterdir()] == [f".tiny_pit-{config}.lock"]
    return message


# ---- Rendered pairs.


def test_default_is_procedural_with_as_many_pairs_as_the_paper(tmp_path):
    assert whole_name("pit") == "pit/procedural"
    splits = Pit(data_dir=tmp_path).plan(None)
    train, test = splits["train"], splits["test"]
    assert len(train) + len(test) == 9290
    wardrobes = [{item.wardrobe for item in items} for items in (train, test)]
    assert not wardrobes[0] & wardrobes[1]
    assert wardrobes[0] | wardrobes[1] == set(range(929))
    assert len(wardrobes[1]) / 929 == pytest.approx(0.05, abs=0.003)
    assert {number ^ 1 for number in wardrobes[1]} == wardrobes[1]  # a double in the other split would be leakage
    for items, own in zip((train, test), wardrobes, strict=True):
        assert {item.pid for item in items} == set(range(len(own)))


@pytest.mark.slow
def test_pairs_of_a_wardrobe_share_its_texture_but_not_their_pictures(data_dir):
    train, test = (open_source("tiny_pit/procedural", split, data_dir=data_dir) for split in ("train", "test"))
    assert train.names == ["0002_00", "0002_01", "0003_00", "0003_01", "0004_00", "0004_01"]
    assert test.names == ["0000_00", "0000_01", "0001_00", "0001_01"]
    assert (train.pids.tolist(), test.pids.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1])
    assert train.has_textures
    assert test.has_textures
    records = records_of(train) + records_of(test)
    textures = [record["texture"] for record in records]
    assert textures[::2] == textures[1::2]
    assert len(set(textures)) == 5
    assert len({record["image"] for record in records}) == 10
    assert {record["camid"] for record in records} == {0}
    assert {decode(record["image"]).shape for record in records} == {(32, 16, 3)}
    assert {decode(texture).shape for texture in textures} == {(32, 32, 3)}
    visible = [decode(record["visible"]) for record in records]
    assert {(squares.shape, *np.unique(squares)) for squares in visible} == {((64, 64), 0, 255)}
    shares = [(squares > 0).mean() for squares in visible]
    assert 0.1 < min(shares) < max(shares) < 0.5


def test_variant_pictures_pairs_each_picture_with_itself(data_dir):
    for split in ("train", "test"):
        pairs, pictures = (open_source(f"tiny_pit{name}", split, data_dir=data_dir) for name in ("", ":pictures"))
        assert pictures.name == "tiny_pit:pictures"
        assert (pictures.names, pictures.pids.tolist()) == (pairs.names, pairs.pids.tolist())
        assert pictures.has_textures
        assert pictures.digest != pairs.digest
        for pair, picture in zip(records_of(pairs), records_of(pictures), strict=True):
            assert picture.pop("texture") == picture["image"] == pair["image"]
            del pair["texture"], pair["visible"]  # which texels of a texture the picture shows
            assert picture == pair


def test_unknown_variant_is_named(data_dir):
    with pytest.raises(UserError, match="tiny_pit/procedural has no variant 7; it has pictures"):
        open_source("tiny_pit:7", "train", data_dir=data_dir)


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(data_dir, tmp_path):
    first, second = (
        open_source("tiny_pit/procedural", "train", data_dir=folder)._builder.data_path
        for folder in (data_dir, tmp_path)
    )
    names = sorted(path.name for path in first.iterdir())
    assert len(names) == 5
    assert filecmp.cmpfiles(first, second, names, shallow=False) == (names, [], [])


# ---- Photographs.


@pytest.fixture
def photographs(tmp_path):
    """A manual_dir with a red and a blue photograph, whose shapes differ from that of the pictures."""
    folder = tmp_path / "manual" / "photographs"
    folder.mkdir(parents=True)
    Image.new("RGB", (90, 60), (230, 20, 20)).save(folder / "a.jpg")
    Image.new("RGB", (60, 70), (20, 20, 230)).save(folder / "b.png")
    return folder.parent


@pytest.mark.slow
def test_photographs_are_backgrounds_of_the_same_people(photographs, data_dir, tmp_path):
    train = open_source("tiny_pit/photographs", "train", data_dir=tmp_path / "data", manual_dir=photographs)
    rendered = open_source("tiny_pit/procedural", "train", data_dir=data_dir)
    assert [r["texture"] for r in records_of(train)] == [r["texture"] for r in records_of(rendered)]
    corners = np.stack([decode(r["image"])[:4, [0, 1, -2, -1]].mean((0, 1)) for r in records_of(train)])
    is_red, is_blue = corners[:, 0] > 2 * corners[:, 2], corners[:, 2] > 2 * corners[:, 0]
    assert (is_red | is_blue).all()
    assert is_red.any()
    assert is_blue.any()


def test_missing_photographs_are_requested(tmp_path):
    assert "manual_dir holds photographs/, a folder of .jpg or .png" in refused("photographs", "", tmp_path)


@pytest.mark.parametrize("left", ["nothing", "no folder", "no pictures"])
def test_folder_without_photographs_is_named(left, photographs, tmp_path):
    (photographs / "read me.txt").write_text("")
    if left == "no pictures":
        for path in (photographs / "photographs").iterdir():
            path.rename(path.with_suffix(".gif"))
    else:
        shutil.rmtree(photographs / "photographs")
        if left == "nothing":
            (photographs / "photographs").mkdir()
    message = refused("photographs", photographs, tmp_path / "data")
    assert f"{photographs / 'photographs'} holds no pictures (.jpg, .jpeg, .png)" in message


def test_unreadable_photograph_is_named(photographs, tmp_path):
    path = photographs / "photographs" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert f"{path} is not a readable picture; delete it" in refused("photographs", photographs, tmp_path / "data")


# ---- The release.

STEMS = ["0007_0", "0007_1", "0012_0", "0012_1", "man_03_0", "woman_1_0", "woman_1_1"]


def picture_of(stem, kind):
    return np.full((8, 4) if kind == "image" else (8, 8), 17 * STEMS.index(stem) + (kind == "image"), np.uint8)


@pytest.fixture(params=["folders", "suffixes"])
def release(request, tmp_path):
    """The folder of a release in one of the two layouts, and the name patterns of its files."""
    root = tmp_path / "manual" / "pit"
    names = {
        "folders": {"image": "images/{}.jpg", "texture": "textures/{}.png"},
        "suffixes": {"image": "{}_image.jpg", "texture": "{}_texture.png"},
    }[request.param]
    for kind, name in names.items():
        for stem in STEMS:
            path = root / name.format(stem)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture_of(stem, kind)).convert("RGB").save(path)
    (root / "read me.txt").write_text("")
    return root, names


def test_released_pairs_are_stored_as_they_are(release, tmp_path):
    root, names = release
    seen = {}
    for split in ("train", "test"):
        source = open_source("tiny_pit/release", split, data_dir=tmp_path / "data", manual_dir=root.parent)
        assert source.has_textures
        seen[split] = list(zip(source.names, source.pids.tolist(), strict=True))
        for record in records_of(source):
            for kind in ("image", "texture"):
                assert record[kind] == (root / names[kind].format(record["name"])).read_bytes()
    assert seen["test"] == [("0007_0", 0), ("0007_1", 0), ("0012_0", 1), ("0012_1", 1)]
    assert seen["train"] == [("man_03_0", 0), ("woman_1_0", 1), ("woman_1_1", 1)]


def test_missing_release_is_requested(tmp_path):
    message = refused("release", tmp_path / "nowhere", tmp_path / "data")
    assert "manual_dir holds pit/images/ and pit/textures/" in message


def test_folder_without_a_release_is_named(tmp_path):
    manual_dir = tmp_path / "manual"
    (manual_dir / "other").mkdir(parents=True)
    assert f"{manual_dir / 'pit'} holds no pictures" in refused("release", manual_dir, tmp_path / "data")


@pytest.mark.parametrize("kind", ["image", "texture"])
def test_unpaired_picture_or_texture_is_named(kind, release, tmp_path):
    root, names = release
    for stem in ("0012_0", "man_03_0"):
        (root / names[kind].format(stem)).unlink()
    message = refused("release", root.parent, tmp_path / "data")
    assert f"{root}: 0012_0 is a picture without texture or a texture without picture (2 in all)" in message


def test_two_files_of_one_stem_are_named(release, tmp_path):
    root, names = release
    first = root / names["texture"].format("0012_0")
    shutil.copy(first, first.with_suffix(".jpeg"))
    message = refused("release", root.parent, tmp_path / "data")
    assert f"{first.with_suffix('.jpeg')} and {first} have the same stem" in message


def test_too_few_wardrobes_for_a_test_split_are_an_error(release, tmp_path):
    root, names = release
    for stem in STEMS[4:]:
        for name in names.values():
            (root / name.format(stem)).unlink()
    assert f"{root} has pairs of 2 wardrobes, but needs" in refused("release", root.parent, tmp_path / "data")


def test_pictures_in_neither_layout_are_an_error(tmp_path):
    (tmp_path / "manual" / "pit").mkdir(parents=True)
    Image.new("RGB", (4, 8)).save(tmp_path / "manual" / "pit" / "0001.png")
    assert "has pairs of 0 wardrobes" in refused("release", tmp_path / "manual", tmp_path / "data")


def test_unreadable_file_of_the_release_is_named(release, tmp_path):
    root, names = release
    path = root / names["image"].format("0007_1")
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path} is not a readable picture" in refused("release", root.parent, tmp_path / "data")
