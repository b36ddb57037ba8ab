import io

import numpy as np
import pytest
from array_source import ArraySource
from PIL import Image

from san_jax import devices
from san_jax.data import input_pipeline
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import UserError

SOURCE = ArraySource(np.repeat(np.arange(6), 4))
ROWS = np.random.default_rng(0).integers(0, 24, (10, 8)).astype(np.int32)


def batches(start=0, source=SOURCE, rows=ROWS, with_textures=True, workers=0):
    return input_pipeline.training_batches(
        source,
        rows,
        start=start,
        people=8,
        height=32,
        width=16,
        with_textures=with_textures,
        mesh=devices.make_mesh(),
        workers=workers,
    )


def test_batch_holds_the_pictures_of_its_rows_with_a_margin_for_the_crop():
    batch = next(batches())
    assert batch.image.shape == (8, 36, 18, 3)
    assert batch.texture.shape == (8, 32, 32, 3)
    np.testing.assert_array_equal(batch.pid, SOURCE.pids[ROWS[0]])
    for image, row in zip(batch.image, ROWS[0], strict=True):
        stored = Image.open(io.BytesIO(SOURCE[row]["image"]))
        np.testing.assert_array_equal(image, stored.resize((18, 36), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("pids", [[2, 7, 10, 11, 12, 90], [1, 2, 3, 4, 5, 6], [0, 5, 6, 7, 8, 2**31 - 1]])
def test_labels_are_numbered_from_0_whatever_the_pids(pids):
    source = ArraySource(np.repeat(np.arange(6), 4))
    source.pids = np.repeat(pids, 4).astype(np.int32)
    usual = next(batches())
    np.testing.assert_array_equal(next(batches(source=source, with_textures=False)).pid, usual.pid)


def test_resumed_run_reads_the_batches_of_an_uninterrupted_one():
    whole = list(batches())
    assert len(whole) == len(ROWS)
    for resumed, unbroken in zip(batches(start=7), whole[7:], strict=True):
        np.testing.assert_array_equal(resumed.image, unbroken.image)
        np.testing.assert_array_equal(resumed.texture, unbroken.texture)
        np.testing.assert_array_equal(resumed.pid, unbroken.pid)


def test_pairs_after_the_people_have_no_pid():
    pairs = ArraySource(np.arange(24), name="test/pairs", seed=1)
    joined = JoinedSource.of([SOURCE, pairs])
    rows = np.concatenate([ROWS, 24 + ROWS[:, :3]], axis=1)
    batch = next(batches(source=joined, rows=rows))
    assert batch.image.shape == (11, 36, 18, 3)
    np.testing.assert_array_equal(batch.pid, SOURCE.pids[ROWS[0]])
    for row, texture in zip(ROWS[0, :3], batch.texture[8:], strict=True):
        np.testing.assert_array_equal(texture, input_pipeline.decode(pairs[row]["texture"], height=32, width=32))


def test_textures_are_read_only_if_requested():
    source = ArraySource(SOURCE.pids, textures=False)
    assert next(batches(source=source, with_textures=False)).texture is None


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
    parts = input_pipeline.scored_pairs(SOURCE, batch_size=10, height=32, width=16, mesh=mesh, workers=0)
    images, textures = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert (images.shape, textures.shape) == ((30, 32, 16, 3), (30, 32, 32, 3))
    for row in (0, 13, 23):
        np.testing.assert_array_equal(images[row], input_pipeline.decode(SOURCE[row]["image"], height=32, width=16))
        np.testing.assert_array_equal(textures[row], input_pipeline.decode(SOURCE[row]["texture"], height=32, width=32))


class OneBroken(ArraySource):
    def __getitem__(self, row):
        record = super().__getitem__(row)
        return {**record, "image": record["image"][:100]} if row == ROWS[3, 2] else record


def test_truncated_picture_is_named():
    named = SOURCE.names[ROWS[3, 2]]
    with pytest.raises(UserError, match=f"test/people: the image of {named} cannot be decoded .* prepare it again"):
        list(batches(source=OneBroken(SOURCE.pids)))


@pytest.mark.slow
def test_workers_read_what_the_training_process_reads(monkeypatch):
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain's workers read absl's flags
    for in_workers, here in zip(batches(workers=2), batches(), strict=True):
        np.testing.assert_array_equal(in_workers.image, here.image)
        np.testing.assert_array_equal(in_workers.texture, here.texture)
