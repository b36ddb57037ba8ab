import dataclasses
import functools
import os
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
from san_jax.gallery import embedding, feature_index
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
    return tmp_path / "search" / "index.npz"


@pytest.fixture
def embedded(monkeypatch):
    """Names of the files that are decoded from now on; `clear` it to start over."""
    names, decode_into = [], picture_folder.decode_into

    def watched(encoded, into):
        names.append(encoded.__self__.name)
        return decode_into(encoded, into)

    monkeypatch.setattr(picture_folder, "decode_into", watched)
    return names


def update(place, folder, encoder, **options):
    return feature_index.update(place, crops.in_folder(folder), encoder, **options)


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
    before = place.stat().st_mtime_ns
    second, _ = update(place, folder, encoder)
    assert embedded == []
    assert place.stat().st_mtime_ns == before
    assert_same(second, first)
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 5 pictures, 0 of them in the index",
        f"{place}: 5 pictures, 5 of them new or changed",
        f"{folder}: 5 pictures, 5 of them in the index",
    ]


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
    assert_same(index, update(tmp_path / "fresh.npz", folder, encoder)[0])
    assert_same(feature_index.read(place, encoder)[0], index)


def test_deleted_picture_is_dropped_from_the_file_too(encoder, folder, place):
    update(place, folder, encoder)
    (folder / "a.png").unlink()
    update(place, folder, encoder)
    assert feature_index.read(place, encoder)[0].names == NAMES[1:]


def test_moved_folder_keeps_its_index(encoder, folder, place, embedded):
    update(place, folder, encoder)
    embedded.clear()
    update(place, folder.rename(folder.with_name("moved")), encoder)
    assert embedded == []


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
    one, _ = update(tmp_path / "one.npz", folder, encoder, batch_size=2)
    other, _ = update(tmp_path / "other.npz", folder, encoder, batch_size=100, workers=1)
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
    assert feature_index.read(place, encoder)[0].names == NAMES[:2]
    monkeypatch.setattr(picture_folder, "decode_into", watched)
    embedded.clear()
    assert update(place, folder, encoder)[0].names == NAMES
    assert sorted(embedded) == sorted(Path(name).name for name in NAMES[2:])


def flipped(content, places):
    return [content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :] for place in places]


def test_damaged_index_is_never_read_as_another(encoder, folder, place):
    index, _ = update(place, folder, encoder)
    whole = place.read_bytes()
    torn = [whole[:size] for size in np.linspace(0, len(whole) - 1, 20).astype(int)]
    noticed = 0
    for content in torn + flipped(whole, np.linspace(0, len(whole) - 1, 200).astype(int)):
        place.write_bytes(content)
        found, complaint = feature_index.read(place, encoder)
        noticed += bool(complaint)
        if complaint:
            assert (complaint, len(found)) == ("is damaged, or was never an index", 0)
        else:  # bytes that do not matter, such as the archive's date
            assert_same(found, index)
    assert noticed > 150


def test_damaged_index_is_moved_aside_and_built_again(encoder, folder, place, embedded, capsys):
    whole, _ = update(place, folder, encoder)
    torn = place.read_bytes()[:-100]
    place.write_bytes(torn)
    embedded.clear()
    capsys.readouterr()
    assert_same(update(place, folder, encoder)[0], whole)
    assert len(embedded) == 5
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{place} is damaged, or was never an index: it is now {place}.old, and the index is built again"
    assert Path(f"{place}.old").read_bytes() == torn
    assert_same(feature_index.read(place, encoder)[0], whole)


@pytest.mark.parametrize("content", [b"some words", None])
def test_file_that_is_no_index_is_kept(content, encoder, folder, place):
    place.parent.mkdir()
    if content:
        place.write_bytes(content)
    else:
        np.savez(place, values=np.arange(3))
    before = place.read_bytes()
    update(place, folder, encoder)
    assert Path(f"{place}.old").read_bytes() == before


def test_features_of_another_model_are_not_used_and_not_lost(encoder, folder, place, embedded, capsys):
    update(place, folder, encoder)
    before = place.read_bytes()
    other = dataclasses.replace(encoder, weights=jax.tree.map(lambda weight: weight + 0.1, encoder.weights))
    embedded.clear()
    capsys.readouterr()
    index, _ = update(place, folder, other)
    assert len(embedded) == 5
    np.testing.assert_allclose(index.feats[0], feats_by_hand(other, folder / "a.png"), rtol=1e-4, atol=1e-6)
    assert capsys.readouterr().out.startswith(
        f"{place} holds features by another model, {encoder.source}: it is now {place}.old"
    )
    assert Path(f"{place}.old").read_bytes() == before


def test_same_weights_in_another_folder_are_the_same_model(encoder, folder, place, embedded, tmp_path):
    update(place, folder, encoder)
    embedded.clear()
    moved = encoder_of(save_run(tmp_path / "copy", mode="baseline"))
    assert moved.source != encoder.source
    update(place, folder, moved)
    assert embedded == []


def test_unwritable_path_is_reported_before_anything_is_embedded(encoder, folder, tmp_path, embedded):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npz").mkdir()
    for place, error in (
        ("file/index.npz", "the index .*file/index.npz cannot be read"),
        ("folder.npz", "a directory"),
    ):
        with pytest.raises(UserError, match=error):
            update(tmp_path / place, folder, encoder)
    with pytest.raises(UserError, match=r"cannot write /proc/index.npz .*choose another place"):
        update(Path("/proc/index.npz"), folder, encoder)
    assert embedded == []


def test_folder_without_pictures_leaves_the_index_unchanged(encoder, folder, place, tmp_path):
    update(place, folder, encoder)
    before = place.read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        update(place, tmp_path / "empty", encoder)
    assert place.read_bytes() == before


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
    assert all(place.name.startswith("shop_") and place.suffix == ".npz" for place in places)
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


@pytest.mark.slow
def test_killed_update_resumes_where_it_was_on_two_devices(workdir, encoder, place, tmp_path):
    """SIGKILL at three arbitrary moments; pictures that are then in the file are not embedded again."""
    folder = write_pictures(tmp_path / "pictures", [f"{number % 7}/{number}.png" for number in range(600)])
    script = KILLED.format(paths=[str(workdir), str(folder), str(place)])
    environment = os.environ | {"XLA_FLAGS": xla_flags("--xla_force_host_platform_device_count=2")}
    counts = [0]
    while len(counts) <= 3:
        process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        while process.poll() is None and len(feature_index.read(place, encoder)[0]) <= counts[-1] + 8:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, "the update ended before it could be killed"
        known = int(said.decode().splitlines()[0].split()[-6])
        assert known >= counts[-1]
        index, complaint = feature_index.read(place, encoder)
        assert complaint == ""
        counts.append(len(index))
    unbroken, _ = update(tmp_path / "unbroken.npz", folder, encoder)
    assert len(unbroken) == 600 > counts[-1]
    assert_same(update(place, folder, encoder)[0], unbroken)


def test_no_pictures_have_no_features(encoder):
    readable, feats, unreadable = embedding.embed_all(encoder, crops.Crops("none", ()))
    assert (readable, feats.shape, unreadable) == ([], (0, encoder.num_feats), {})
