"""The field's sets, from stand-ins for their releases with their file names and numbers."""

import collections
import re
import shutil

import field_releases
import numpy as np
import pytest
from array_source import encoded

import tfds_builders
from configs import san_market1501, san_msmt17
from san_jax.errors import UserError
from san_jax.scoring.evaluation import RetrievalSet, queries_without_match
from tfds_builders import open_source
from tfds_builders.people_list import Row
from tfds_builders.releases import RELEASES, Market1501, Size, Viper

FOLDERS = {
    "market1501": "Market-1501-v15.09.15",
    "dukemtmc_reid": "DukeMTMC-reID",
    "occluded_duke": "Occluded_Duke",
    "partial_reid": "Partial_REID",
    "partial_ilids": "PartialiLIDS",
    "viper": "VIPeR",
}
PUBLISHED = {  # pictures and people of each split; as on the owners' pages
    "market1501": {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)},
    "dukemtmc_reid": {"train": (16_522, 702), "query": (2_228, 702), "gallery": (17_661, 1_110)},
    "occluded_duke": {"train": (15_618, 702), "query": (2_210, 519), "gallery": (17_661, 1_110)},
    "cuhk03_np": {"train": (7_368, 767), "query": (1_400, 700), "gallery": (5_328, 700)},
    "msmt17": {"train": (32_621, 1_041), "query": (11_659, 3_060), "gallery": (82_161, 3_060)},
    "partial_reid": {"query": (300, 60), "gallery": (300, 60)},
    "partial_ilids": {"query": (119, 119), "gallery": (119, 119)},
    "viper": {"train": (632, 316), "query": (316, 316), "gallery": (316, 316)},
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """`releases(NAME)`: a manual_dir with the stand-in for a set."""
    top = tmp_path_factory.mktemp("releases")
    picture = field_releases.picture(top)

    def of(name):
        folder = top / name
        if not folder.exists():
            field_releases.write(folder / FOLDERS[name], picture, getattr(field_releases, name)())
        return folder

    return of


def sizes(plan):
    return {split: (len(rows), len({row.pid for row in rows})) for split, rows in plan.items()}


def planned(name, manual_dir):
    return tfds_builders.make_builder(tfds_builders.whole_name(name), manual_dir / "nowhere").plan(manual_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["market1501", "dukemtmc_reid", "occluded_duke", "partial_reid", "partial_ilids"])
def test_release_of_the_true_size_is_read_as_published(name, releases):
    plan = planned(name, releases(name))
    assert sizes(plan) == PUBLISHED[name]
    if name == "market1501":  # with its distractors, without its junk
        counted = collections.Counter(row.pid for row in plan["gallery"])
        assert (counted[0], counted[-1]) == (2_798, 0)
    names = [row.name for rows in plan.values() for row in rows]
    assert len(set(names)) == len(names)
    assert all(row.path.is_file() for rows in plan.values() for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_msmt17_of_the_true_size_is_read_from_its_lists(version, tmp_path):
    release = field_releases.write_msmt17(tmp_path / f"MSMT17_{version.upper()}", version=version)
    plan = planned(f"msmt17/{version}", tmp_path)
    assert sizes(plan) == PUBLISHED["msmt17"]
    folder = "test" if version == "v1" else "mask_test_v2"
    assert plan["query"][0] == Row(
        path=release / folder / "0000/0000_000_01_0303morning_0000_0.jpg",
        pid=0,
        camid=1,
        name="test/0000/0000_000_01_0303morning_0000_0",
        split="query",
    )
    assert {row.camid for row in plan["gallery"]} == set(range(1, 16))
    assert tfds_builders.whole_name("msmt17") == "msmt17/v1"


@pytest.mark.slow
@pytest.mark.parametrize("boxes", ["labeled", "detected"])
def test_cuhk03_np_of_the_true_size_is_read_as_published(boxes, tmp_path):
    picture = field_releases.picture(tmp_path)
    field_releases.write(tmp_path / "cuhk03-np", picture, field_releases.cuhk03_np(boxes))
    other = {"train": (7_365, 767), "gallery": (5_332, 700)} if boxes == "detected" else {}
    assert sizes(planned(f"cuhk03_np/{boxes}", tmp_path)) == PUBLISHED["cuhk03_np"] | other
    assert tfds_builders.drawn_textures(f"cuhk03_np/{boxes}_texture").pictures == f"cuhk03_np/{boxes}"


def test_every_release_has_a_test_of_its_size():
    assert {builder.name for builder in RELEASES} == set(PUBLISHED)


def test_queries_of_partial_sets_find_all_whole_pictures_of_their_person(releases, tmp_path):
    query, gallery = (
        open_source("partial_reid", split, data_dir=tmp_path, manual_dir=releases("partial_reid"))
        for split in ("query", "gallery")
    )
    assert set(query.camids.tolist()).isdisjoint(gallery.camids.tolist())
    assert queries_without_match(RetrievalSet("partial_reid", query, gallery)) == 0
    assert query[0]["image"] == gallery[299]["image"]
    with pytest.raises(UserError, match="partial_reid has no split train; it has query, gallery"):
        open_source("partial_reid", "train", data_dir=tmp_path)


def test_viper_has_ten_seeded_halves(releases, tmp_path):
    def opened(k, split):
        return open_source(f"viper{k}", split, data_dir=tmp_path, manual_dir=releases("viper"))

    assert tfds_builders.all_variants("viper:all") == [f"viper:{k}" for k in range(10)]
    halves = []
    for k in ("", ":0", ":1", ":9"):
        sources = {split: opened(k, split) for split in PUBLISHED["viper"]}
        found = {split: (len(source), len(set(source.pids.tolist()))) for split, source in sources.items()}
        assert found == PUBLISHED["viper"]
        trained = set(sources["train"].pids.tolist())
        assert trained.isdisjoint(sources["query"].pids.tolist())
        assert set(sources["query"].pids.tolist()) == set(sources["gallery"].pids.tolist())
        assert (set(sources["query"].camids.tolist()), set(sources["gallery"].camids.tolist())) == ({0}, {1})
        halves.append(trained)
    assert halves[0] == halves[1]
    assert halves[1] != halves[2] != halves[3]
    with pytest.raises(UserError, match="half 10 of viper is none of 0 to 9"):
        opened(":10", "query")


@pytest.mark.slow
def test_whole_set_is_prepared_and_read(releases, tmp_path):
    places = dict(data_dir=tmp_path, manual_dir=releases("market1501"))
    for split, (pictures, _) in PUBLISHED["market1501"].items():
        source = open_source("market1501", split, **places)
        assert len(source) == pictures
    picture = (releases("market1501").parent / "picture.jpg").read_bytes()
    assert source[pictures - 1]["image"] == picture
    assert source[0]["name"] == source.names[0]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A manual_dir with a small Market-1501 and three further distractors, and sizes to suit."""
    names = [*field_releases.market_names("bounding_box_train", 8, [2, 4], 2)]
    names += field_releases.market_names("query", 2, [1, 3])
    names += field_releases.market_names("bounding_box_test", 4, [1, 3], 2)
    names += field_releases.market_names("images", 3, [0], 2)
    field_releases.write(tmp_path / "Market-1501", field_releases.picture(tmp_path), iter(names))
    numbers = {"train": Size(8, 2), "query": Size(2, 2), "gallery": Size(4, 2)}
    monkeypatch.setattr(Market1501, "SIZES", numbers)
    monkeypatch.setattr(Market1501, "DISTRACTORS", 3)
    return tmp_path


def test_further_distractors_of_market_1501_join_the_gallery_as_nobody(small, monkeypatch):
    gallery = planned("market1501/distractors_500k", small)["gallery"]
    assert len(gallery) == 4 + 3
    assert {(row.pid, row.camid) for row in gallery if row.name.startswith("images/")} == {(0, 1), (0, 2)}
    monkeypatch.setattr(Market1501, "DISTRACTORS", 500_000)
    with pytest.raises(UserError, match="has 7 gallery pictures of 2 people, market1501 has 500,004 of 2; unpack"):
        planned("market1501/distractors_500k", small)


def test_training_pictures_have_the_textures_that_were_drawn_for_them(small, tmp_path):
    places = dict(data_dir=tmp_path / "data", manual_dir=small)
    textures = tfds_builders.drawn_textures("market1501/texture")
    assert textures == ("market1501/pictures", textures.folder)
    pictures = open_source(textures.pictures, "train", **places)
    with pytest.raises(UserError, match=r"\(8 textures of 8 training pictures\); generate_textures.py --input=tfds:"):
        open_source("market1501/texture", "train", **places)
    drawn = {name: encoded(np.full((4, 4, 3), row, np.uint8)) for row, name in enumerate(pictures.names)}
    for name, texture in drawn.items():
        path = small / textures.folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(texture)
    source = open_source("market1501/texture", "train", **places)
    assert {name: source[row]["texture"] for row, name in enumerate(source.names)} == drawn
    assert not open_source("market1501/texture", "query", **places).has_textures


def test_release_with_other_numbers_is_refused(small, tmp_path):
    next((small / "Market-1501" / "query").iterdir()).unlink()
    with pytest.raises(UserError, match="has 1 query pictures of 1 people, market1501 has 2 of 2; unpack the release"):
        open_source("market1501", "train", data_dir=tmp_path / "data", manual_dir=small)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_missing_release_says_what_belongs_where(name, tmp_path):
    (tmp_path / "other").mkdir()
    split = next(iter(PUBLISHED[name]))
    for manual_dir, said in (("", "holds no release; manual_dir holds "), (tmp_path, "has no folder ")):
        with pytest.raises(UserError, match=said):
            open_source(name, split, data_dir=tmp_path / "data", manual_dir=manual_dir)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("msmt17", lambda folder: (folder / "list_query.txt").write_text("a.jpg 1\n"), "line 1 is not PICTURE PID"),
        ("msmt17", lambda folder: (folder / "list_val.txt").unlink(), "list_val.txt cannot be read"),
    ],
)
def test_damaged_lists_are_named(name, spoil, said, tmp_path):
    spoil(field_releases.write_msmt17(tmp_path / "MSMT17_V1", version="v1"))
    with pytest.raises(UserError, match=re.escape(said)):
        planned(name, tmp_path)


def test_picture_that_names_nobody_is_named(releases, tmp_path):
    shutil.copytree(releases("partial_ilids"), tmp_path / "release", symlinks=True)
    folder = tmp_path / "release" / "PartialiLIDS" / "Probe"
    (folder / "001.jpg").rename(folder / "x.jpg")
    with pytest.raises(UserError, match=r"x\.jpg does not begin with the number of a person"):
        planned("partial_ilids", tmp_path / "release")


@pytest.mark.parametrize("module", [san_market1501, san_msmt17])
def test_configs_of_the_sets_name_sets_with_textures(module):
    assert tfds_builders.drawn_textures(module.get_config().data.train)


def test_pids_of_viper_are_those_of_the_release(releases):
    builder = tfds_builders.make_builder("viper/pictures", releases("viper"))
    [rows] = builder.plan(releases("viper")).values()
    assert isinstance(builder, Viper)
    assert (len(rows), max(row.pid for row in rows)) == (1_264, 631 + 631 // 50)
