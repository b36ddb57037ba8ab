import numpy as np
import pytest
from exported_networks import TINY, model_of

from san_jax.errors import UserError
from san_jax.runtimes import checks
from san_jax.runtimes.interface import Interface

FEATS = np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
BASELINE = Interface(TINY, "float_nchw", feats=True, textures=False)


def checked(run, precision="float32"):
    options = dict(precision=precision, what="out.onnx", advice="report it")
    return checks.checked(run, BASELINE, {"feats": FEATS}, **options)


@pytest.mark.parametrize(("away", "passes"), [(0.9e-4, True), (1.2e-4, False), (np.nan, False)])
def test_one_picture_whose_features_are_too_far_is_enough_to_fail(away, passes):
    found = FEATS.copy()
    found[7, 3] += away * np.linalg.norm(FEATS[7])
    verdict = checks.judged(found, FEATS, precision="float32")
    assert verdict.passes is passes
    assert "of their L2 norm" in verdict.text


def test_features_of_zeros_are_equal_to_zeros_and_to_nothing_else():
    zeros = np.zeros((2, 8), np.float32)
    assert checks.judged(zeros, zeros, precision="float32").passes
    assert checks.judged(zeros, zeros, precision="int8").passes
    assert not checks.judged(zeros + np.float32(1e-6), zeros, precision="float32").passes
    assert not checks.judged(zeros + np.float32(1e-6), zeros, precision="int8").passes


@pytest.mark.parametrize(("levels", "texels", "passes"), [(1, 4, True), (1, 40, False), (2, 1, False)])
def test_pixels_may_be_rounded_to_the_next_level_in_few_texels(levels, texels, passes):
    ours = PIXELS // 2
    found = ours.copy()
    found.reshape(-1)[:texels] += np.uint8(levels)
    assert checks.judged(found, ours, precision="float32").passes is passes


@pytest.mark.parametrize(("precision", "noise", "passes"), [
    ("float16", 0.01, True), ("float16", 0.3, False), ("int8", 0.1, True), ("int8", 2.0, False),
])  # fmt: skip
def test_low_precision_is_judged_by_the_angle(precision, noise, passes):
    found = FEATS + noise * np.random.default_rng(1).normal(size=FEATS.shape).astype(np.float32)
    verdict = checks.judged(found, FEATS, precision=precision)
    assert verdict.passes is passes
    assert "cosine similarity" in verdict.text


def test_outputs_of_another_shape_or_dtype_and_features_that_are_not_finite_fail():
    for found in (FEATS[:, :4], FEATS[:9], FEATS.astype(np.float64)):
        assert not checks.judged(found, FEATS, precision="float32").passes
    assert not checks.judged(FEATS * np.nan, FEATS * np.nan, precision="float32").passes


def test_file_is_run_with_one_picture_and_with_the_others():
    sizes = []

    def run(images):
        sizes.append(len(images))
        return {"feats": FEATS[:1] if len(images) == 1 else FEATS[1:]}

    assert checked(run) == "feats differ from san_jax's by 0.0e+00 of their L2 norm or less (allowed: 1e-04)"
    assert sizes == [1, 9]


def test_file_that_does_not_run_or_lacks_an_output_is_one_line():
    def fails(images):
        raise RuntimeError("two\nlines")

    with pytest.raises(UserError, match=r"out\.onnx is not written: .* does not run \(two lines\); report it"):
        checked(fails)
    with pytest.raises(UserError, match=r"has no output feats; report it"):
        checked(lambda images: {"other": images})


def test_expected_outputs_are_those_of_the_model_in_float32():
    model = model_of(TINY, "san")
    shown = checks.pictures(height=32, width=16)
    found = checks.expected(model, Interface(TINY, "float_nchw", feats=True, textures=True))
    np.testing.assert_array_equal(found["feats"], model.features(shown))
    pixels = np.round(127.5 * (np.clip(np.moveaxis(found["textures"], 1, -1), -1, 1) + 1))
    np.testing.assert_allclose(pixels, model.textures(shown), atol=1)


def test_pictures_are_the_same_in_every_call_and_none_is_like_another():
    shown = checks.pictures(height=32, width=16)
    np.testing.assert_array_equal(shown, checks.pictures(height=32, width=16))
    assert shown.shape == (10, 32, 16, 3)
    assert min(np.abs(a.astype(int) - b).mean() for i, a in enumerate(shown) for b in shown[:i]) > 20
