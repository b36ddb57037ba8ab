import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import xla_flags
from runs import save_run, write_pictures

from san_jax import devices
from san_jax import model as models
from san_jax.data import augmentation, crops, decoded, picture_folder
from san_jax.errors import UserError
from san_jax.gallery import embedding, feature_index, index_files
from san_jax.scoring import nearest
from san_jax.weights import stored

ROOT = Path(__file__).parent.parent
NAMES = ["a.png", "b.jpg", "c.PNG", "sub/d.e.bmp", "sub/deeper/a.webp"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), mode="baseline")


@functools.cache
def encoder_of(workdir):
    return models.of_checkpoint(stored.find(workdir), devices.make_mesh())


@pytest.fixture
def encoder(workdir):
    return encoder_of(workdir)


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path / "pictures", NAMES)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "search" / "index"


@pytest.fixture
def embedded(monkeypatch):
    """Names of the files that are decoded from now on; `clear` it to start over."""
    names, decode_into = [], picture_folder.decode_into

    def watched(encoded, into):
        names.append(encoded.__self__.name)
        return decode_into(encoded, into)

    monkeypatch.setattr(picture_folder, "decode_into", watched)
    return names


def kept_in(place, encoder):
    """All pictures of an index, in the order of their names, and what is wrong with it."""
    found, complaint = index_files.read(place, encoder)
    joined = index_files.joined([index_files.empty(encoder.num_feats), *found.parts.values()])
    return joined.rows(np.argsort(np.array(joined.names, str), kind="stable")), complaint


def state(place):
    """The files of an index."""
    return {path.name: path.read_bytes() for path in place.iterdir()}


def update(place, folder, encoder, **options):
    index, unreadable = feature_index.update(place, crops.in_folder(folder), encoder, **options)
    # Copied, since tests damage the files that are mapped.
    return index_files.Part(index.names, index.stamps, np.array(index.feats)), unreadable


def feats_by_hand(encoder, path):
    shape, weights = encoder.architecture, encoder.weights
    picture = decoded.decode(path.read_bytes(), height=shape.height, width=shape.width)
    images = augmentation.normalise(jnp.asarray(picture[None]))
    feats = jax.jit(shape.feats)(weights["encoder"], weights["encoder_stats"], images)
    return np.asarray(feats[0])


def assert_same(found, expected):
    assert found.names == expected.names
    np.testing.assert_array_equal(found.stamps, expected.stamps)
    np.testing.assert_allclose(found.feats, expected.feats, rtol=1e-4, atol=1e-6)


def test_index_that_grew_has_the_bits_of_one_that_was_made_at_once(encoder, folder, tmp_path, batch_sizes):
    first = min(path for path in folder.rglob("*") if path.is_file())
    aside = first.rename(tmp_path / first.name)
    update(tmp_path / "grown", folder, encoder, batch_size=2)
    aside.rename(first)
    grown, _ = update(tmp_path / "grown", folder, encoder, batch_size=2)
    at_once, _ = update(tmp_path / "at_once", folder, encoder, batch_size=2)
    assert grown.names == at_once.names
    np.testing.assert_array_equal(grown.feats, at_once.feats)
    assert set(batch_sizes) == {devices.rounded_up(encoder.mesh, 2)}


def test_features_of_a_folder_are_those_of_the_network_in_the_order_of_names(encoder, folder, place):
    index, unreadable = update(place, folder, encoder)
    assert (index.names, unreadable) == (NAMES, {})
    expected = np.stack([feats_by_hand(encoder, folder / name) for name in NAMES])
    assert np.ptp(expected, axis=0).max() > 0.01, "pictures differ"
    np.testing.assert_allclose(index.feats, expected, rtol=1e-4, atol=1e-6)


def test_second_update_embeds_nothing_and_leaves_the_file(encoder, folder, place, embedded, capsys):
    first, _ = update(place, folder, encoder)
    assert len(embedded) == 5
    embedded.clear()
    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    second, _ = update(place, folder, encoder)
    assert embedded == []
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before
    assert_same(second, first)
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 5 pictures, 0 of them in the index",
        f"{place}: 5 pictures, 5 of them new or changed",
        f"{folder}: 5 pictures, 5 of them in the index",
    ]


def test_update_shows_what_the_index_holds_and_then_every_batch(encoder, folder, place, tmp_path):
    expected, _ = update(tmp_path / "other", folder, encoder)
    seen = []
    for name in ("c.PNG", "sub/d.e.bmp"):
        (folder / name).rename(tmp_path / Path(name).name)
    update(place, folder, encoder)
    for name in ("c.PNG", "sub/d.e.bmp"):
        (tmp_path / Path(name).name).rename(folder / name)
    (folder / "x.png").write_bytes(b"no picture")
    update(place, folder, encoder, batch_size=2, seen=lambda *shown: seen.append(shown))
    assert [(rows.tolist(), failed) for rows, _, failed in seen] == [
        ([0, 1, 4], {}),
        ([2, 3], {}),
        ([], {5: "it is no picture"}),
    ]
    for rows, feats, _ in seen:
        np.testing.assert_allclose(feats, expected.feats[rows], rtol=1e-4, atol=1e-6)


def test_features_that_were_computed_elsewhere_are_known_to_the_next_update(encoder, folder, place, embedded):
    listed = crops.in_folder(folder)
    feats = np.random.default_rng(0).standard_normal((5, encoder.num_feats)).astype(np.float32)
    names = [crop.name for crop in listed.crops]
    made = index_files.Part(names, feature_index.stamps_of(listed), feats)
    index_files.write_about(place, encoder, index_files.PLAIN, gallery=listed.title)
    index_files.write_part(place, made)
    index, _ = update(place, folder, encoder)
    assert embedded == []
    np.testing.assert_array_equal(index.feats, feats)


def test_only_new_and_changed_pictures_are_embedded_and_lost_ones_dropped(encoder, folder, place, embedded, tmp_path):
    update(place, folder, encoder)
    embedded.clear()
    write_pictures(folder, ["new.png", "b.jpg"], seed=1)
    touched = (folder / "c.PNG").stat()
    os.utime(folder / "c.PNG", ns=(touched.st_atime_ns, touched.st_mtime_ns + 1))
    (folder / "a.png").unlink()
    index, _ = update(place, folder, encoder)
    assert sorted(embedded) == ["b.jpg", "c.PNG", "new.png"]
    assert index.names == ["b.jpg", "c.PNG", "new.png", "sub/d.e.bmp", "sub/deeper/a.webp"]
    assert_same(index, update(tmp_path / "fresh", folder, encoder)[0])
    assert_same(kept_in(place, encoder)[0], index)


def test_deleted_picture_is_dropped_from_the_file_too(encoder, folder, place):
    update(place, folder, encoder)
    (folder / "a.png").unlink()
    update(place, folder, encoder)
    assert kept_in(place, encoder)[0].names == NAMES[1:]


def test_index_of_another_gallery_is_refused_and_kept(encoder, folder, place, tmp_path):
    """Pictures of two galleries may have one name, size and time; the features would be those of the other."""
    update(place, folder, encoder)
    before = state(place)
    others = shutil.copytree(folder, tmp_path / "others")
    with pytest.raises(UserError, match=f"the index {place} is of {folder}, not of {others}; choose another --index"):
        update(place, others, encoder)
    assert state(place) == before


def test_unreadable_pictures_are_named_and_tried_again(encoder, folder, place, embedded):
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "gone.png").symlink_to("nowhere")
    reasons = {str(folder / "b.jpg"): "it is no picture", str(folder / "gone.png"): "No such file or directory"}
    for tried in (6, 2):
        embedded.clear()
        index, unreadable = update(place, folder, encoder)
        assert unreadable == reasons
        assert index.names == [name for name in NAMES if name != "b.jpg"]
        assert len(set(embedded)) == tried
    np.testing.assert_allclose(index.feats[1], feats_by_hand(encoder, folder / "c.PNG"), rtol=1e-4, atol=1e-6)
    write_pictures(folder, ["b.jpg"])
    index, unreadable = update(place, folder, encoder)
    assert list(unreadable) == [str(folder / "gone.png")]
    assert index.names == NAMES


def test_folder_without_readable_pictures_has_an_empty_index(encoder, tmp_path, place):
    (tmp_path / "a.png").write_bytes(b"no picture")
    for _ in range(2):
        index, unreadable = update(place, tmp_path, encoder)
        assert (len(index), list(unreadable)) == (0, [str(tmp_path / "a.png")])


def test_features_do_not_depend_on_the_batch(encoder, folder, tmp_path):
    one, _ = update(tmp_path / "one", folder, encoder, batch_size=2)
    other, _ = update(tmp_path / "other", folder, encoder, batch_size=100, workers=1)
    assert_same(one, other)


def test_interrupted_update_keeps_what_was_embedded(encoder, folder, place, embedded, monkeypatch):
    watched = picture_folder.decode_into

    def breaking(encoded, into):
        if encoded.__self__.name == "a.webp":
            raise KeyboardInterrupt
        return watched(encoded, into)

    monkeypatch.setattr(picture_folder, "decode_into", breaking)
    with pytest.raises(KeyboardInterrupt):
        update(place, folder, encoder, batch_size=2)
    assert kept_in(place, encoder)[0].names == NAMES[:2]
    monkeypatch.setattr(picture_folder, "decode_into", watched)
    embedded.clear()
    assert update(place, folder, encoder)[0].names == NAMES
    assert sorted(embedded) == sorted(Path(name).name for name in NAMES[2:])


def flipped(content, places):
    return [content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :] for place in places]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_damaged_part_is_never_read_as_another(suffix, encoder, folder, place):
    index, _ = update(place, folder, encoder)
    [path] = place.glob(f"0*{suffix}")
    whole = path.read_bytes()
    torn = [whole[:size] for size in np.linspace(0, len(whole) - 1, 20).astype(int)]
    noticed = 0
    for content in torn + flipped(whole, np.linspace(0, len(whole) - 1, 200).astype(int)):
        path.write_bytes(content)
        found, complaint = index_files.read(place, encoder)
        assert complaint == ""
        noticed += bool(found.damaged)
        if not found.damaged:  # bytes that do not matter, such as padding
            assert_same(kept_in(place, encoder)[0], index)
    assert noticed > 150


def test_pictures_of_a_damaged_part_are_embedded_again_and_the_others_are_not(encoder, folder, place, embedded, capsys):
    update(place, folder, encoder)
    write_pictures(folder, ["new.png"])
    whole, _ = update(place, folder, encoder)
    first, second = sorted(place.glob("0*.npy"))
    first.write_bytes(first.read_bytes()[:-100])
    embedded.clear()
    capsys.readouterr()
    assert_same(update(place, folder, encoder)[0], whole)
    assert sorted(embedded) == sorted(Path(name).name for name in NAMES)
    assert f"{place}: the part {first.stem} is damaged, and its pictures are embedded again" in capsys.readouterr().out
    assert second.exists()
    assert not first.exists()
    assert_same(kept_in(place, encoder)[0], dataclasses.replace(whole.rows(np.arange(6))))


def test_folder_that_is_no_index_is_refused_and_kept(encoder, folder, place):
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("words")
    with pytest.raises(UserError, match=r"is not an index, since it has no about\.json but mine\.txt; choose another"):
        update(place, folder, encoder)
    assert state(place) == {"mine.txt": b"words"}


def test_index_whose_description_is_damaged_is_moved_aside(encoder, folder, place, capsys):
    update(place, folder, encoder)
    (place / "about.json").write_text("{")
    before = state(place)
    capsys.readouterr()
    update(place, folder, encoder)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{place} is damaged, or was never an index: it is now {place}.old, and the index is built again"
    assert state(place.with_name("index.old")) == before
    (place / "about.json").write_text("[")
    before = state(place)
    update(place, folder, encoder)
    assert state(place.with_name("index.old")) == before, "the one before is replaced"


def test_folder_in_the_way_of_an_index_that_is_moved_aside_is_kept(encoder, folder, place):
    update(place, folder, encoder)
    (place / "about.json").write_text("{")
    place.with_name("index.old").mkdir()
    (place.with_name("index.old") / "mine.txt").write_text("words")
    update(place, folder, encoder)
    assert state(place.with_name("index.old")) == {"mine.txt": b"words"}
    assert (place.with_name("index.old1") / "about.json").read_text() == "{"


def test_a_new_picture_adds_a_part_and_leaves_the_others_alone(encoder, folder, place, embedded):
    update(place, folder, encoder)
    before = state(place)
    write_pictures(folder, ["new.png"])
    embedded.clear()
    update(place, folder, encoder)
    assert embedded == ["new.png"]
    after = state(place)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2


def test_many_small_parts_are_joined(encoder, folder, place, embedded, monkeypatch):
    monkeypatch.setattr(feature_index, "MOST_SMALL", 2)
    for number in range(4):
        write_pictures(folder, [f"new{number}.png"])
        whole, _ = update(place, folder, encoder)
        assert len(list(place.glob("*.npy"))) <= 3
    embedded.clear()
    assert_same(update(place, folder, encoder)[0], whole)
    assert embedded == []


def test_large_parts_are_cut(encoder, folder, place, embedded, monkeypatch):
    monkeypatch.setattr(index_files, "PART_ROWS", 2)
    whole, _ = update(place, folder, encoder)
    assert len(list(place.glob("*.npy"))) == 3
    (folder / "a.png").unlink()
    embedded.clear()
    assert_same(update(place, folder, encoder)[0], whole.rows(np.arange(1, 5)))
    assert embedded == []


def test_index_of_an_earlier_version_is_converted(encoder, folder, place, embedded):
    whole, _ = update(place, folder, encoder)
    shutil.rmtree(place)
    made_by = np.array([index_files.digest(encoder), encoder.source])
    np.savez(f"{place}.npz", made_by=made_by, names=np.array(whole.names), stamps=whole.stamps, feats=whole.feats)
    embedded.clear()
    assert_same(update(place, folder, encoder)[0], whole)
    assert embedded == []
    assert not Path(f"{place}.npz").exists()
    assert_same(kept_in(place, encoder)[0], whole)


@pytest.mark.parametrize("content", [b"some words", b""])
def test_file_beside_the_index_that_is_no_index_is_kept(content, encoder, folder, place):
    place.parent.mkdir()
    Path(f"{place}.npz").write_bytes(content)
    update(place, folder, encoder)
    assert Path(f"{place}.npz").read_bytes() == content


def test_index_that_is_deleted_while_it_grows_is_not_begun_again(encoder, folder, place, monkeypatch):
    write_part = index_files.write_part

    def late(path, part):
        shutil.rmtree(path)
        return write_part(path, part)

    monkeypatch.setattr(index_files, "write_part", late)
    with pytest.raises(UserError, match="was deleted while a search used it; start the search again"):
        update(place, folder, encoder)
    assert not place.exists()


def test_rests_of_killed_processes_are_removed_and_other_files_kept(encoder, folder, place, embedded):
    update(place, folder, encoder)
    before = state(place)
    number = "0" * 20
    rests = [place / f"{number}_1.npy", place / f"{number}_1.json.77.part", place / "about.json.77.part"]
    for path in [*rests, place / "found.json"]:
        path.write_bytes(b"rest")
        os.utime(path, (0, 0))
    (place / f"{number}_2.npy").write_bytes(b"in use")
    embedded.clear()
    update(place, folder, encoder)
    assert embedded == []
    assert state(place) == before | {"found.json": b"rest", f"{number}_2.npy": b"in use"}


def test_unfinished_description_of_a_killed_process_is_no_hindrance(encoder, folder, place):
    place.mkdir(parents=True)
    (place / "about.json.77.part").write_text("{")
    assert update(place, folder, encoder)[0].names == NAMES


def test_what_is_kept_of_a_gallery_can_be_forgotten(encoder, folder, tmp_path):
    home = tmp_path / "search"
    others = write_pictures(tmp_path / "others", NAMES)
    for gallery in (folder, others):
        update(home / f"{gallery.name}_0", gallery, encoder)
    (home / "q_in_pictures_0.png").write_bytes(b"sheet")
    (home / "q_in_others_0.png").write_bytes(b"sheet")
    gone = feature_index.forget(home, folder)
    assert gone == [home / "pictures_0", home / "q_in_pictures_0.png"]
    assert sorted(path.name for path in home.iterdir()) == ["others_0", "q_in_others_0.png"]
    assert feature_index.forget(home, folder) == []
    assert feature_index.forget(tmp_path / "nowhere", folder) == []


def test_features_of_another_model_are_not_used_and_not_lost(encoder, folder, place, embedded, capsys):
    update(place, folder, encoder)
    before = state(place)
    other = dataclasses.replace(encoder, weights=jax.tree.map(lambda weight: weight + 0.1, encoder.weights))
    embedded.clear()
    capsys.readouterr()
    index, _ = update(place, folder, other)
    assert len(embedded) == 5
    np.testing.assert_allclose(index.feats[0], feats_by_hand(other, folder / "a.png"), rtol=1e-4, atol=1e-6)
    assert capsys.readouterr().out.startswith(
        f"{place} holds features by another model, {encoder.source}: it is now {place}.old"
    )
    assert state(place.with_name("index.old")) == before


def test_same_weights_in_another_folder_are_the_same_model(encoder, folder, place, embedded, tmp_path):
    update(place, folder, encoder)
    embedded.clear()
    moved = encoder_of(save_run(tmp_path / "copy", mode="baseline"))
    assert moved.source != encoder.source
    update(place, folder, moved)
    assert embedded == []


def test_unwritable_path_is_reported_before_anything_is_embedded(encoder, folder, tmp_path, embedded):
    (tmp_path / "file").write_text("")
    for place in ("file/index", "file"):
        with pytest.raises(UserError, match=f"the index .*{place} cannot be read"):
            update(tmp_path / place, folder, encoder)
    with pytest.raises(UserError, match=r"cannot write /proc/index/about.json .*choose another place"):
        update(Path("/proc/index"), folder, encoder)
    assert embedded == []


def test_folder_without_pictures_leaves_the_index_unchanged(encoder, folder, place, tmp_path):
    update(place, folder, encoder)
    before = state(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        update(place, tmp_path / "empty", encoder)
    assert state(place) == before


def test_names_that_are_not_utf_8_are_kept(encoder, tmp_path, place, embedded):
    folder = write_pictures(tmp_path / "pictures", ["\udcff é.png"])
    for _ in range(2):
        assert update(place, folder, encoder)[0].names == ["\udcff é.png"]
    assert len(embedded) == 1


def test_embed_all_returns_the_readable_pictures_and_the_reasons_for_the_others(encoder, folder):
    (folder / "b.jpg").write_bytes(b"no picture")
    gallery = crops.in_folder(folder)
    readable, feats, unreadable = embedding.embed_all(encoder, gallery)
    assert readable == [crop for crop in gallery.crops if crop.name != "b.jpg"]
    assert unreadable == {str(folder / "b.jpg"): "it is no picture"}
    np.testing.assert_allclose(feats[1], feats_by_hand(encoder, folder / "c.PNG"), rtol=1e-4, atol=1e-6)


def test_texture_generator_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is a texture generator.*; give a network of mode san or baseline"):
        encoder_of(save_run(tmp_path, mode="san_pg")).check_learnt_people()


def test_default_path_is_in_the_run_and_differs_by_folder_and_newest_or_best(tmp_path):
    places = [
        feature_index.default_place(tmp_path / checkpoint, tmp_path / folder)
        for checkpoint in ("run/checkpoints/3", "run/best/3")
        for folder in ("a/shop", "b/shop")
    ]
    assert len(set(places)) == 4
    assert {place.parent for place in places} == {tmp_path / "run/search"}
    assert all(place.name.startswith("shop_") for place in places)
    same = feature_index.default_place(tmp_path / "run/checkpoints/700", tmp_path / "a/../a/shop")
    assert same == places[0], "the run went on"
    alone = feature_index.default_place(tmp_path / "models/final", tmp_path / "a/shop")
    assert alone == tmp_path / "models/search" / places[0].name


KILLED = """
from pathlib import Path
from san_jax import devices
from san_jax import model as models
from san_jax.data import crops
from san_jax.gallery import feature_index
from san_jax.weights import stored
run, folder, place = map(Path, {paths})
encoder = models.of_checkpoint(stored.find(run), devices.make_mesh())
feature_index.update(place, crops.in_folder(folder), encoder, batch_size=4, save_seconds=0.0)
"""


def test_features_stay_in_the_files_of_their_parts(encoder, folder, place, monkeypatch):
    """What was added since the start, too; and a search in them is one in all of them together."""
    monkeypatch.setattr(feature_index, "GATHERED_ROWS", 2)
    update(place, folder, encoder)
    write_pictures(folder, ["0.png", "new.png"])
    (folder / "c.PNG").unlink()
    monkeypatch.setattr(feature_index, "SMALL_ROWS", 0)
    index, _ = feature_index.update(place, crops.in_folder(folder), encoder, batch_size=1, save_seconds=0.0)
    *parts, nothing = index.parts
    assert len(parts) == len(list(place.glob("0*.npy"))) > 2
    assert len(nothing) == 0
    assert all(isinstance(part, np.memmap) for part in parts)
    expected = encoder.features([folder / name for name in index.names])
    np.testing.assert_allclose(index.feats, expected, rtol=1e-4, atol=1e-6)
    found = index.ready(encoder.mesh).nearest(expected, k=len(index))
    together = nearest.nearest(expected, index.feats, k=len(index))
    np.testing.assert_array_equal(found.rows, together.rows)
    np.testing.assert_allclose(found.distances, together.distances, atol=1e-4)


def test_features_too_large_for_half_precision_are_refused(encoder, folder, place, monkeypatch):
    monkeypatch.setattr(feature_index, "embed", lambda *_, **__: iter([(np.arange(1), np.full((1, 8), 7e4), {})]))
    with pytest.raises(UserError, match=r"there are features above 65504, .*; leave out --half"):
        update(place, folder, encoder, kind=index_files.Kind(half=True))


@pytest.mark.slow
def test_killed_update_resumes_where_it_was_on_two_devices(workdir, encoder, place, tmp_path):
    """SIGKILL at three arbitrary moments; pictures that are then in the file are not embedded again."""
    folder = write_pictures(tmp_path / "pictures", [f"{number % 7}/{number}.png" for number in range(600)])
    script = KILLED.format(paths=[str(workdir), str(folder), str(place)])
    environment = os.environ | {"XLA_FLAGS": xla_flags("--xla_force_host_platform_device_count=2")}
    counts = [0]
    while len(counts) <= 3:
        process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        while process.poll() is None and len(kept_in(place, encoder)[0]) <= counts[-1] + 8:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, "the update ended before it could be killed"
        known = int(said.decode().splitlines()[0].split()[-6])
        assert known >= counts[-1]
        index, complaint = kept_in(place, encoder)
        assert complaint == ""
        counts.append(len(index))
    unbroken, _ = update(tmp_path / "unbroken", folder, encoder)
    assert len(unbroken) == 600 > counts[-1]
    assert_same(update(place, folder, encoder)[0], unbroken)


def test_no_pictures_have_no_features(encoder):
    readable, feats, unreadable = embedding.embed_all(encoder, crops.Crops("none", ()))
    assert (readable, feats.shape, unreadable) == ([], (0, encoder.num_feats), {})


def test_default_place_of_a_run_in_an_object_store_is_on_this_machine(tmp_path):
    for checkpoint, end in (("s3://bucket/run/checkpoints/700", ""), ("s3://bucket/run/best/700", "_best")):
        place = feature_index.default_place(Path(checkpoint), tmp_path / "shop")
        assert place.parent == Path("runs/s3/bucket/run/search")
        assert place.name.startswith("shop_")
        assert place.name.endswith(end)
