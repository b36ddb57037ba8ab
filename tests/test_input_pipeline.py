import functools
import io

import jax
import numpy as np
import pytest
from array_source import ArraySource
from PIL import Image

from san_jax import devices
from san_jax.data import decoded, input_pipeline
from san_jax.data.decoded_store import DecodedStore
from san_jax.data.input_pipeline import TrainingData
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import UserError

SOURCE = ArraySource(np.repeat(np.arange(6), 4))
ROWS = np.random.default_rng(0).integers(0, 24, (10, 8)).astype(np.int32)
OTHER_WAYS = ("device", "host")


def data_of(source=SOURCE, rows=ROWS, with_textures=True):
    return TrainingData(source, rows, people=8, height=32, width=16, with_textures=with_textures)


def batches(start=0, way="stream", workers=0, **data):
    """The batches that the train step sees."""
    feed = input_pipeline.open_feed(data_of(**data), mesh=devices.make_mesh(), cache=way, workers=workers)
    assert feed.way == way
    for step, fed in enumerate(feed.batches(start), start):
        yield jax.jit(input_pipeline.batch_of)(fed, np.int32(step))


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field, array in vars(other).items():
            np.testing.assert_array_equal(getattr(one, field), array)


def test_batch_holds_the_pictures_of_its_rows_with_a_margin_for_the_crop():
    batch = next(batches())
    assert batch.image.shape == (8, 36, 18, 3)
    assert batch.texture.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(batch.pid, SOURCE.pids[ROWS[0]])
    for image, row in zip(batch.image, ROWS[0], strict=True):
        stored = Image.open(io.BytesIO(SOURCE[row]["image"]))
        np.testing.assert_array_equal(image, stored.resize((18, 36), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_every_way_gives_the_same_batches(way):
    for with_textures in (True, False):
        whole = list(batches(with_textures=with_textures))
        assert len(whole) == len(ROWS)
        assert_same(list(batches(way=way, workers=2, with_textures=with_textures)), whole)


@pytest.mark.parametrize("way", input_pipeline.WAYS)
def test_resumed_run_reads_the_batches_of_an_uninterrupted_one(way):
    assert_same(list(batches(start=7, way=way)), list(batches(way=way))[7:])


def test_threads_read_what_the_calling_thread_reads():
    assert_same(list(batches(workers=3)), list(batches(workers=0)))


@pytest.mark.parametrize("pids", [[2, 7, 10, 11, 12, 90], [1, 2, 3, 4, 5, 6], [0, 5, 6, 7, 8, 2**31 - 1]])
@pytest.mark.parametrize("way", input_pipeline.WAYS)
def test_labels_are_numbered_from_0_whatever_the_pids(pids, way):
    source = ArraySource(np.repeat(np.arange(6), 4))
    source.pids = np.repeat(pids, 4).astype(np.int32)
    usual = next(batches())
    np.testing.assert_array_equal(next(batches(source=source, way=way, with_textures=False)).pid, usual.pid)


@pytest.mark.parametrize("way", input_pipeline.WAYS)
def test_pairs_after_the_people_have_no_pid(way):
    pairs = ArraySource(np.arange(24), name="test/pairs", seed=1)
    joined = JoinedSource.of([SOURCE, pairs])
    rows = np.concatenate([ROWS, 24 + ROWS[:, :3]], axis=1)
    batch = next(batches(source=joined, rows=rows, way=way))
    assert batch.image.shape == (11, 36, 18, 3)
    np.testing.assert_array_equal(batch.pid, SOURCE.pids[ROWS[0]])
    for row, texture in zip(ROWS[0, :3], batch.texture[8:], strict=True):
        np.testing.assert_array_equal(texture, decoded.decode(pairs[row]["texture"], height=32, width=32))


def test_textures_are_read_only_if_requested():
    source = ArraySource(SOURCE.pids, textures=False)
    assert next(batches(source=source, with_textures=False)).texture is None


def test_resident_batch_is_gathered_without_a_copy_of_the_set():
    """What the jitted step is given is the same for all steps, and no transfer is needed to gather a batch."""
    feed = input_pipeline.open_feed(data_of(), mesh=devices.make_mesh(), cache="device", workers=0)
    first, *others = feed.batches(0)
    assert all(fed is first for fed in others)
    pick, step = jax.jit(input_pipeline.batch_of), jax.device_put(np.int32(3))
    with jax.transfer_guard("disallow"):
        batch = pick(first, step)
    assert batch.image.sharding.is_equivalent_to(devices.by_rows(devices.make_mesh()), 4)


@pytest.mark.parametrize(
    ("on_device", "on_host", "way"),
    [(10**9, 10**9, "device"), (10**5, 10**9, "host"), (10**5, 10**5, "stream")],
)
def test_auto_takes_the_first_way_for_which_there_is_room(on_device, on_host, way, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda mesh: on_device)
    monkeypatch.setattr(input_pipeline.memory, "available", lambda: on_host)
    choose = functools.partial(input_pipeline.choose_way, data_of(), mesh=devices.make_mesh(), store=None)
    assert choose(cache="auto") == way
    assert choose(cache="stream") == "stream"
    if way != "device":
        with pytest.raises(UserError, match=r"data.cache is device, but .* test/people need 0.0 GB .* set .* to auto"):
            choose(cache="device")


def test_set_larger_than_memory_is_gathered_from_a_file_if_it_may_be_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "free_memory", lambda mesh: 0)
    monkeypatch.setattr(input_pipeline.memory, "available", lambda: 0)
    source = ArraySource(SOURCE.pids)
    store = DecodedStore(tmp_path / "decoded", max_bytes=10**6)
    options = dict(mesh=devices.make_mesh(), cache="auto", store=store)
    assert input_pipeline.choose_way(data_of(source), **options) == "stream"
    source.digest = "of these pictures"
    feed = input_pipeline.open_feed(data_of(source), workers=0, **options)
    assert feed.way == "host"
    assert_same(list(feed.batches(0)), list(batches()))


def test_arrays_are_pictures_too():
    class InMemory(ArraySource):
        def __getitem__(self, row):
            record = super().__getitem__(row)
            fields = {name: np.asarray(Image.open(io.BytesIO(record[name]))) for name in ("image", "texture")}
            return {**record, **fields}

    assert_same(list(batches(source=InMemory(SOURCE.pids))), list(batches()))


def test_pictures_for_scoring_come_in_order_in_batches_of_one_shape():
    mesh = devices.make_mesh()
    parts = list(input_pipeline.scored_batches(SOURCE, batch_size=10, height=32, width=16, mesh=mesh, workers=0))
    assert [part.shape for part in parts] == [(10, 32, 16, 3)] * 3
    images = np.concatenate(parts)
    for row in (0, 9, 10, 23):
        stored = Image.open(io.BytesIO(SOURCE[row]["image"]))
        np.testing.assert_array_equal(images[row], stored.resize((16, 32), Image.Resampling.BILINEAR))


def test_pairs_for_scoring_come_with_their_textures():
    mesh = devices.make_mesh()
    parts = input_pipeline.scored_pairs(SOURCE, batch_size=10, height=32, width=16, mesh=mesh, workers=2)
    images, textures = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert (images.shape, textures.shape) == ((30, 32, 16, 3), (30, 32, 32, 3))
    for row in (0, 13, 23):
        np.testing.assert_array_equal(images[row], decoded.decode(SOURCE[row]["image"], height=32, width=16))
        np.testing.assert_array_equal(textures[row], decoded.decode(SOURCE[row]["texture"], height=32, width=32))


class OneBroken(ArraySource):
    def __getitem__(self, row):
        record = super().__getitem__(row)
        return {**record, "image": record["image"][:100]} if row == ROWS[3, 2] else record


@pytest.mark.parametrize("way", input_pipeline.WAYS)
@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_picture_is_named(way, workers):
    named = SOURCE.names[ROWS[3, 2]]
    with pytest.raises(UserError, match=f"test/people: the image of {named} cannot be decoded .* prepare it again"):
        list(batches(source=OneBroken(SOURCE.pids), way=way, workers=workers))


@pytest.mark.parametrize("num_rows", [1, 61, 64, 100])
def test_batches_by_shares_take_each_device_through_its_own_part(num_rows):
    share = -(-num_rows // 8)
    rows = input_pipeline.rows_by_shares(num_rows, batch_size=24, num_devices=8)
    assert set(rows.ravel()) == set(range(num_rows))
    for device, of_device in enumerate(rows.reshape(-1, 8, 3).swapaxes(0, 1)):
        expected = np.minimum(np.arange(device * share, (device + 1) * share), num_rows - 1)
        np.testing.assert_array_equal(of_device.ravel()[:share], expected)
        assert (of_device.ravel()[share:] == expected[-1]).all()
    one_device = input_pipeline.rows_by_shares(num_rows, batch_size=24, num_devices=1)
    np.testing.assert_array_equal(one_device.ravel()[:num_rows], np.arange(num_rows))
