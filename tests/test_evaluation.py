import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_source import ArraySource
from flax import nnx
from small_networks import SHAPE

from san_jax import devices
from san_jax.data import augmentation, input_pipeline
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.networks.architecture import arrays_of
from san_jax.scoring import evaluation, feature_extraction, query_expansion, ranking, reranking, verification
from san_jax.scoring.evaluation import Search, TestSet

GALLERY = ArraySource(np.repeat(np.arange(5), 4), textures=False)
QUERY = ArraySource(np.arange(5), textures=False)


@functools.cache
def model(**fields):
    encoder, stats = arrays_of(SHAPE.new_encoder(nnx.Rngs(params=jax.random.key(0, impl="rbg"))))
    weights = dict(encoder=encoder, encoder_stats=stats)
    return Model(SHAPE, "baseline", weights, devices.make_mesh(), **fields)


@functools.cache
def features(batch_size=8, flip=False, **fields):
    return feature_extraction.features(model(**fields), GALLERY, batch_size=batch_size, workers=0, flip=flip)


def test_features_come_in_order_whatever_the_batch():
    found = features()
    assert found.shape == (20, SHAPE.fc_dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(features(batch_size=7), found, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices have their own memory")
def test_features_are_not_copied_by_the_cpu():
    found = features()
    assert jax.device_put(found).unsafe_buffer_pointer() == found.ctypes.data


def test_features_are_those_of_the_encoder_by_running_statistics():
    graph, *_ = nnx.split(nnx.eval_shape(lambda: SHAPE.new_encoder(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)
    encoder = nnx.merge(graph, *model().weights.values())
    encoder.eval()
    picture = input_pipeline.decode(GALLERY[3]["image"], height=SHAPE.height, width=SHAPE.width)
    found = encoder(augmentation.normalise(jnp.asarray(picture[None]))).feats[0]
    np.testing.assert_allclose(found, features()[3], atol=1e-4)


def test_bfloat16_features_are_float32_and_near():
    found = features(compute_dtype="bfloat16")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, features(), atol=0.05 * np.abs(features()).max())


def test_flipped_features_are_the_mean_over_picture_and_mirror_image():
    size = dict(height=SHAPE.height, width=SHAPE.width)
    pictures = np.stack([input_pipeline.decode(GALLERY[row]["image"], **size) for row in range(4)])
    there, back = (model().features(x) for x in (pictures, np.flip(pictures, 2)))
    np.testing.assert_allclose(model().features(pictures, flip=True), (there + back) / 2, atol=1e-5)
    assert np.abs(there - back).max() > 1e-3
    np.testing.assert_allclose(features(flip=True)[:4], (there + back) / 2, atol=1e-4)


def test_every_test_set_is_scored_by_itself():
    test_sets = [TestSet("one", QUERY, GALLERY), TestSet("two", GALLERY, GALLERY)]
    found = evaluation.evaluate(model(), test_sets, metric="market1501", workers=0)
    assert list(found) == ["one", "two"]
    for scores in found.values():
        assert list(scores) == ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]
        assert all(0 <= value <= 1 for value in scores.values())
        assert scores["rank20"] == 1, "twenty pictures in all"
    assert found["one"] != found["two"]


def test_single_gallery_shot_keeps_five_people_and_draws_the_same_again():
    test_sets = [TestSet("one", QUERY, GALLERY)]
    score = functools.partial(evaluation.evaluate, model(), test_sets, metric="cuhk03", workers=0)
    first = score()["one"]
    assert first["rank5"] == 1
    assert first == score()["one"]
    assert 0 < first["mAP_std"] < 0.3


def test_unknown_metric_names_flag_and_field():
    with pytest.raises(UserError, match=r"metric is 'veri' \(--metric.*; there are market1501, cuhk03"):
        evaluation.check_metric("veri")


def test_table_has_a_row_a_set_in_percent():
    table = evaluation.as_table({"a/b": {"rank1": 0.5, "mAP": 0.123456}, "c": {"rank1": 1.0, "mAP": 0.0}})
    assert table.splitlines() == ["      rank1     mAP", "a/b   50.00   12.35", "c    100.00    0.00"]


def test_table_shows_deviations_beside_their_means():
    table = evaluation.as_table({"a": {"rank1": 0.5, "mAP": 0.25, "rank1_std": 0.01, "mAP_std": 0.002}})
    assert table.splitlines() == ["         rank1          mAP", "a 50.00 ± 1.00 25.00 ± 0.20"]


def test_variants_of_a_set_have_a_mean_and_other_sets_have_none():
    scores = {"a/b:0": {"mAP": 0.2, "mAP_std": 0.01}, "a/b:1": {"mAP": 0.4, "mAP_std": 0.01}, "c/d": {"mAP": 0.9}}
    found = evaluation.means_of_variants(scores)
    assert list(found) == ["a/b, mean of 2"]
    assert found["a/b, mean of 2"] == pytest.approx({"mAP": 0.3, "mAP_std": 0.1})


def test_expansion_re_ranking_and_tpr_are_what_their_modules_give():
    test = TestSet("one", QUERY, GALLERY)
    feats, labels = evaluation.features(model(), test, workers=0), evaluation.labels(test)
    score = functools.partial(evaluation.score, feats, test, metric="market1501", mesh=model().mesh)
    expanded = query_expansion.expand(*feats, k=5)
    ranks = ranking.rank(expanded, feats.gallery, **labels)
    assert score(search=Search(expand=True))["mAP"] == pytest.approx(ranking.scores(ranks).mAP, abs=1e-6)
    ranks = reranking.rank(*feats, **labels)
    assert score(search=Search(rerank=True))["mAP"] == pytest.approx(ranking.scores(ranks).mAP, abs=1e-6)
    found, accepted = evaluation.verify(feats, test, mesh=model().mesh), verification.tpr_at_fpr(*feats, **labels)
    assert list(found.scores) == ["TPR@1e-2", "TPR@1e-3", "TPR@1e-4"]
    assert list(found.scores.values()) == pytest.approx([each.tpr for each in accepted])
    assert list(found.thresholds) == ["fpr_1e-2", "fpr_1e-3", "fpr_1e-4"]
    assert list(found.thresholds.values()) == pytest.approx([each.threshold for each in accepted])
