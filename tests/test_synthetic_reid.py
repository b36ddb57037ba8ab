import filecmp
import io
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import tfds_builders
from san_jax.errors import UserError
from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment
from tfds_builders import open_source
from tfds_builders.pit import Pit
from tfds_builders.synthetic_reid import RENDERED, SyntheticReid, SyntheticReidConfig, twin

TRAIN, TEST = 4, 3
TINY = SyntheticReidConfig(name="tiny", seed=5, train_people=TRAIN, test_people=TEST, height=32, texture_side=32)


class TinyReid(SyntheticReid):
    """Few people, small pictures."""

    BUILDER_CONFIGS = (TINY, twin(TINY))


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tfds_builders.BUILDERS, "tiny_reid", TinyReid)
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def decode(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


def records_of(data_dir, split, name="tiny"):
    source = open_source(f"tiny_reid/{name}", split, data_dir=data_dir)
    return [source[row] for row in range(len(source))]


def config_of(name):
    return SyntheticReid.get_builder_config(name)


@pytest.mark.parametrize(("config", "train", "test"), [("full", 767, 700), ("small", 200, 100), ("ablation", 200, 400)])
def test_plan_has_the_documented_people_cameras_and_protocol(config, train, test, tmp_path):
    splits = SyntheticReid(config=config, data_dir=tmp_path).plan(None)
    assert {item.person for item in splits["train"]} == set(range(train))
    tested = set(range(train, train + test))
    for split in ("query", "gallery"):
        assert {item.person for item in splits[split]} == tested
        assert {item.camera for item in splits[split]} == set(range(6))
    asked = Counter((item.person, item.camera) for item in splits["query"])
    assert set(asked.values()) == {1}
    assert Counter(person for person, _ in asked) == dict.fromkeys(tested, 2)
    everything = [item for items in splits.values() for item in items]
    assert len(set(everything)) == len(everything) == len({item.name for item in everything})
    counts = Counter((item.person, item.camera) for item in everything)
    assert len(counts) == 2 * (train + test)
    assert set(counts.values()) == {3, 4, 5}
    assert np.mean(list(counts.values())) == pytest.approx(14_096 / 2 / 1467, abs=0.03)  # that of CUHK03


def test_no_set_of_people_or_pairs_has_the_clothes_of_another():
    pairs = [config.seed for config in Pit.BUILDER_CONFIGS if not config.released and not config.photographs]
    seeds = [config.seed for config in RENDERED] + pairs
    assert len(set(seeds)) == len(seeds) == 7


def test_docstring_counts_the_pictures(tmp_path):
    module = tfds_builders.synthetic_reid.__doc__
    for config in ("full", "small", "ablation", "many"):
        (line,) = (line for line in module.splitlines() if line.strip().startswith(config))
        numbers = [int(word.replace(",", "")) for word in line.split() if word.replace(",", "").isdigit()]
        splits = SyntheticReid(config=config, data_dir=tmp_path).plan(None)
        sizes = [size for items in splits.values() for size in (len(items), len({item.person for item in items}))]
        assert numbers[:6] == sizes


def test_occlusion_and_sloppiness_are_read_from_the_config_name():
    config = config_of("full-occlusion0.6-sloppiness1")
    assert (config.name, config.occlusion, config.sloppiness) == ("full-occlusion0.6-sloppiness1", 0.6, 1.0)
    assert (config.height, config.train_people, config.seed) == (256, 767, config_of("full").seed)
    only = config_of("small-occlusion0")
    assert (only.occlusion, only.sloppiness, only.height) == (0.0, config_of("small").sloppiness, 128)


@pytest.mark.parametrize(
    "settings", ["occlusion1.5", "occlusion-1", "fog0.5", "occlusion", "", "occlusion0-occlusion1", "occlusion0.5/../x"]
)
def test_invalid_settings_are_an_error_of_one_line_with_the_way_out(settings, tmp_path):
    message = "synthetic_reid/full-.* is not understood after 'full'; write -occlusionX, -sloppinessX, -varietyX, or"
    with pytest.raises(UserError, match=message) as caught:
        open_source(f"synthetic_reid/full-{settings}", "train", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_settings_of_an_unknown_config_list_the_known_configs(tmp_path):
    with pytest.raises(UserError, match=r"no data set synthetic_reid/huge-occlusion1; there are .*synthetic_reid/full"):
        open_source("synthetic_reid/huge-occlusion1", "train", data_dir=tmp_path)


@pytest.mark.slow
def test_records_follow_the_plan(data_dir, tmp_path):
    plan = TinyReid(config="tiny", data_dir=tmp_path).plan(None)
    for split, items in plan.items():
        source = open_source("tiny_reid/tiny", split, data_dir=data_dir)
        assert source.names == [f"{item.person:04d}_c{item.camera + 1}_{item.index:02d}" for item in items]
        assert source.pids.tolist() == [item.person for item in items]
        assert source.camids.tolist() == [item.camera for item in items]
        assert source.has_textures == (split == "train")
        for row, item in enumerate(items):
            record = source[row]
            assert decode(record["image"]).shape == (32, 16, 3)
            assert (record["pid"], record["camid"], record["name"]) == (item.person, item.camera, item.name)


@pytest.mark.slow
def test_pictures_and_textures_are_those_of_the_world(data_dir):
    world = studio.make_world(jax.random.key(5), cameras=6, occlusion=0.25, sloppiness=0.5)
    for record in records_of(data_dir, "train")[::5]:
        shot = Moment(*(np.array([int(record["name"][part])], np.int32) for part in (slice(4), 6, slice(8, None))))
        shot = shot._replace(camera=shot.camera - 1)
        size = dict(height=32, width=16, texture_side=32)
        ((picture, texture),) = studio.render(studio.before_a_camera, world, world.people, shot.person, shot, **size)
        np.testing.assert_array_equal(decode(record["image"]), picture)
        np.testing.assert_array_equal(decode(record["texture"]), texture)


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(data_dir, tmp_path):
    first, second = (
        open_source("tiny_reid/tiny", "train", data_dir=folder)._builder.data_path for folder in (data_dir, tmp_path)
    )
    names = sorted(path.name for path in first.iterdir())
    assert len(names) == 6
    assert filecmp.cmpfiles(first, second, names, shallow=False) == (names, [], [])


@pytest.mark.slow
def test_other_occlusion_and_sloppiness_keep_people_and_textures(data_dir):
    for split in ("train", "query", "gallery"):
        usual, hidden = records_of(data_dir, split), records_of(data_dir, split, "tiny-occlusion1-sloppiness1")
        assert [r["name"] for r in usual] == [r["name"] for r in hidden]
        assert [r["texture"] for r in usual] == [r["texture"] for r in hidden]
        assert not {r["image"] for r in usual} & {r["image"] for r in hidden}
    assert (data_dir / "tiny_reid" / "tiny-occlusion1-sloppiness1").is_dir()


def test_twin_name_and_settings_follow_the_original_set():
    config = config_of("small_pseudo-occlusion0.6")
    assert (config.drawn_for, config.occlusion) == ("small-occlusion0.6", 0.6)
    drawn = tfds_builders.drawn_textures("synthetic_reid/small_pseudo-occlusion0.6")
    assert drawn == ("synthetic_reid/small-occlusion0.6", Path("synthetic_reid/texture_small-occlusion0.6"))
    assert tfds_builders.drawn_textures("synthetic_reid/small") is None
    assert config_of("full_pseudo").drawn_for == "full"
    assert config_of("small_pseudonym") is None


@pytest.mark.slow
def test_twin_has_the_same_pictures_and_the_textures_of_manual_dir(data_dir, tmp_path):
    textures = tmp_path / "synthetic_reid" / "texture_tiny"
    textures.mkdir(parents=True)
    rendered = records_of(data_dir, "train")
    for shade, record in enumerate(rendered):
        Image.new("RGB", (256, 256), (shade, 0, 0)).save(textures / f"{record['name']}.png")
    for split in ("train", "query", "gallery"):
        source = open_source("tiny_reid/tiny_pseudo", split, data_dir=data_dir, manual_dir=tmp_path)
        copies = [source[row] for row in range(len(source))]
        for shade, (copy, record) in enumerate(zip(copies, records_of(data_dir, split), strict=True)):
            assert {**copy, "texture": b""} == {**record, "texture": b""}
            if split == "train":
                assert decode(copy["texture"])[0, 0].tolist() == [shade, 0, 0]
            else:
                assert copy["texture"] == b""
        assert source.has_textures == (split == "train")


@pytest.mark.slow
def test_twin_with_a_missing_texture_names_it_and_how_to_generate_it(data_dir, tmp_path):
    textures = tmp_path / "manual" / "synthetic_reid" / "texture_tiny-occlusion0"
    textures.mkdir(parents=True)
    Image.new("RGB", (256, 256)).save(textures / "other.png")
    with pytest.raises(UserError, match=r"c\d_01.png is missing \(\d+ textures of .*textures.py --input=tfds:tiny"):
        open_source("tiny_reid/tiny_pseudo-occlusion0", "train", data_dir=data_dir, manual_dir=tmp_path / "manual")
