import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_source import ArraySource, encoded
from flax import nnx
from scipy import ndimage
from small_networks import SHAPE

from san_jax import devices
from san_jax.data import augmentation, decoded
from san_jax.model import Model
from san_jax.networks.architecture import arrays_of
from san_jax.scoring import texture_scores
from san_jax.training import losses

PAIRS = ArraySource(np.arange(11), name="test/pairs")
RNG = np.random.default_rng(0)
TRUE = ndimage.gaussian_filter(RNG.random((3, 40, 32, 3)), (0, 2, 2, 0)).astype(np.float32)
SEEN = np.clip(TRUE + RNG.normal(0, [[[[0.01]]], [[[0.1]]], [[[0.3]]]], TRUE.shape), 0, 1).astype(np.float32)


@functools.cache
def weights():
    """Fresh weights, except for changed running statistics and a decoder scaled up so that its textures vary."""
    encoder, encoder_stats = arrays_of(SHAPE.new_encoder(nnx.Rngs(params=jax.random.key(0, impl="rbg"))))
    decoder, decoder_stats = arrays_of(SHAPE.new_decoder(nnx.Rngs(params=jax.random.key(1, impl="rbg"))))
    decoder_stats = jax.tree.map(lambda leaf: leaf + 0.1, decoder_stats)
    decoder = jax.tree.map(lambda leaf: 70 * leaf if leaf.ndim == 4 else leaf, decoder)
    return dict(encoder=encoder, encoder_stats=encoder_stats, decoder=decoder, decoder_stats=decoder_stats)


@functools.cache
def model():
    return Model(SHAPE, "san_pg", weights(), devices.make_mesh())


def evaluate(sources):
    return texture_scores.evaluate(model(), sources, batch_size=4, workers=0)


@functools.cache
def scored_pairs():
    return texture_scores.score_pairs(model(), PAIRS, shown=[0, 5, 8, 10], batch_size=4, workers=0)


def ssim_in_float64(seen, true):
    """SSIM of one channel of one picture by the formulas of its paper, with scipy's Gaussian filter."""

    def smooth(maps):
        return ndimage.gaussian_filter(maps.astype(np.float64), 1.5, radius=5)[5:-5, 5:-5]

    ux, uy = smooth(seen), smooth(true)
    vx, vy, vxy = smooth(seen * seen) - ux * ux, smooth(true * true) - uy * uy, smooth(seen * true) - ux * uy
    numerator = (2 * ux * uy + 0.01**2) * (2 * vxy + 0.03**2)
    return np.mean(numerator / ((ux**2 + uy**2 + 0.01**2) * (vx + vy + 0.03**2)))


def test_ssim_is_that_of_the_paper():
    seen, true = SEEN.astype(np.float64), TRUE.astype(np.float64)
    channels = zip(np.moveaxis(seen, 3, 1).reshape(9, 40, 32), np.moveaxis(true, 3, 1).reshape(9, 40, 32), strict=True)
    expected = np.reshape([ssim_in_float64(*pair) for pair in channels], (3, 3)).mean(axis=1)
    found = jax.jit(texture_scores.ssim)(SEEN, TRUE)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert expected[0] > 0.9 > 0.5 > expected[2], "the noise is neither too weak nor too strong to tell anything"


def test_ssim_of_equal_pictures_is_one_and_of_opposite_ones_negative():
    found = texture_scores.ssim(jnp.stack([TRUE[0], 1 - TRUE[0]]), jnp.stack([TRUE[0], TRUE[0]]))
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[1] < 0


def test_psnr_is_in_decibels_and_at_most_100():
    flat = jnp.full((3, 8, 8, 3), 0.5)
    found = texture_scores.psnr(flat, flat + jnp.array([0.1, 0.01, 0])[:, None, None, None])
    np.testing.assert_allclose(found, [20, 40, 100], atol=1e-4)


def reference_textures(rows):
    """Textures of the given rows in [-1, 1], by models in eval mode."""
    models = []
    for new, field in ((SHAPE.new_encoder, "encoder"), (SHAPE.new_decoder, "decoder")):
        graph, *_ = nnx.split(nnx.eval_shape(lambda new=new: new(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)
        models.append(nnx.merge(graph, weights()[field], weights()[f"{field}_stats"]))
        models[-1].eval()
    encoder, decoder = models
    images = np.stack([decoded.decode(PAIRS[row]["image"], height=32, width=16) for row in rows])
    draw = jax.jit(lambda images: decoder(encoder(augmentation.normalise(images)).stages))
    return draw(images).texture


def test_pairs_are_scored_in_order_with_running_statistics_and_without_padding():
    scores, drawn = scored_pairs()
    assert scores.shape == (11, 3)
    assert drawn.shape == (4, 32, 32, 3)
    rows = [5, 10]
    textures = reference_textures(rows)
    expected = np.round(np.clip((np.asarray(textures) + 1) / 2, 0, 1) * 255)
    assert np.ptp(expected) > 20, "there is something to see"
    assert np.abs(drawn[[1, 3]] - expected).max() <= 1
    for row, texture in zip(rows, textures, strict=True):
        true = decoded.decode(PAIRS[row]["texture"], height=32, width=32)
        l1 = losses.reconstruction(texture[None], augmentation.scale_texture(jnp.asarray(true[None])))
        assert scores[row, 0] == pytest.approx(float(l1), rel=1e-4)


def test_only_the_shown_textures_are_kept(monkeypatch):
    """Those of ten thousand pairs would take 2 GB."""
    batches, original = [], Model.over

    def watched(self, function, inputs):
        for scores, drawn in original(self, function, inputs):
            batches.append(weakref.ref(drawn))
            yield scores, drawn

    monkeypatch.setattr(Model, "over", watched)
    _, drawn = texture_scores.score_pairs(model(), PAIRS, shown=[0, 10], batch_size=4, workers=0)
    assert (len(batches), len(drawn)) == (3, 2)
    gc.collect()
    assert [batch() is None for batch in batches] == [True] * 3


def test_every_set_is_scored_separately_and_pairs_of_the_first_are_shown():
    others = ArraySource(np.arange(3), name="test/others", seed=1)
    found, sheet = evaluate([PAIRS, others])
    assert list(found) == ["test/pairs", "test/others"]
    means = scored_pairs()[0].mean(axis=0)
    assert found["test/pairs"] == pytest.approx(dict(zip(("L1", "PSNR", "SSIM"), means, strict=True)), rel=1e-4)
    _, alone = evaluate([PAIRS])
    np.testing.assert_array_equal(sheet, alone)
    _, of_others = evaluate([others])
    assert of_others.shape[1] < sheet.shape[1], "three columns, not eight"


class HalfVisible(ArraySource):
    """Pairs whose pictures show the left half of the texture."""

    def __getitem__(self, row):
        return super().__getitem__(row) | {"visible": encoded(np.repeat([[255, 0]], 2, axis=0).astype(np.uint8))}


def test_visible_texels_have_an_error_of_their_own_where_they_are_known():
    pairs = HalfVisible(PAIRS.pids, name="test/pairs")
    scores, _ = texture_scores.score_pairs(model(), pairs, batch_size=4, workers=0)
    np.testing.assert_allclose(scores[:, :3], scored_pairs()[0], rtol=1e-3)
    true = np.stack([decoded.decode(PAIRS[row]["texture"], height=32, width=32) for row in (5, 10)])
    errors = np.abs(reference_textures([5, 10]) - augmentation.scale_texture(jnp.asarray(true)))
    np.testing.assert_allclose(scores[[5, 10], 3], errors[:, :, :16].mean(axis=(1, 2, 3)), rtol=1e-3)
    assert np.abs(scores[:, 3] - scores[:, 0]).max() > 0.01
    assert list(evaluate([pairs])[0]["test/pairs"]) == ["L1", "PSNR", "SSIM", "L1_visible"]


def test_sheet_shows_the_true_texture_below_the_generated_one():
    drawn = np.zeros((1, 32, 32, 3), np.uint8)
    drawn[:] = (1, 2, 3)
    sheet = texture_scores.sheet(PAIRS, [4], {"drawn": drawn}, height=32, width=16)
    true = decoded.decode(PAIRS[4]["texture"], height=32, width=32)[0, 0]
    (drawn_rows, drawn_columns), (true_rows, true_columns) = (
        np.nonzero((sheet == colour).all(axis=2)) for colour in ((1, 2, 3), true)
    )
    assert len(drawn_rows) == len(true_rows) == 32 * 32
    assert drawn_rows.max() < true_rows.min()
    np.testing.assert_array_equal(np.unique(drawn_columns), np.unique(true_columns))


def test_table_has_one_row_per_set():
    table = texture_scores.as_table({"pit/small": {"L1": 0.12345, "PSNR": 20.126, "SSIM": 0.5}})
    assert table.splitlines() == ["               L1    PSNR    SSIM", "pit/small  0.1235   20.13  0.5000"]


def test_set_whose_visible_texels_are_unknown_has_a_dash_in_the_table():
    known = {"L1": 0.5, "PSNR": 20.0, "SSIM": 0.5, "L1_visible": 0.25}
    table = texture_scores.as_table({"a": known, "b": {"L1": 0.5, "PSNR": 20.0, "SSIM": 0.5}})
    assert [line.split() for line in table.splitlines()] == [
        ["L1", "PSNR", "SSIM", "L1_visible"],
        ["a", "0.5000", "20.00", "0.5000", "0.2500"],
        ["b", "0.5000", "20.00", "0.5000", "-"],
    ]
