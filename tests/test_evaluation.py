import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_source import ArraySource
from flax import nnx
from test_train_step import SHAPE

from san_jax import devices
from san_jax.data import augmentation, input_pipeline
from san_jax.errors import UserError
from san_jax.scoring import evaluation, query_expansion, ranking, reranking, verification
from san_jax.scoring.evaluation import Search, TestSet
from san_jax.scoring.feature_extraction import Extractor
from san_jax.training.train_step import arrays_of

GALLERY = ArraySource(np.repeat(np.arange(5), 4), textures=False)
QUERY = ArraySource(np.arange(5), textures=False)


@functools.cache
def encoder():
    return arrays_of(SHAPE.new_encoder(nnx.Rngs(params=jax.random.key(0, impl="rbg"))))


def extractor(batch_size=8, **options):
    return Extractor(SHAPE, devices.make_mesh(), batch_size=batch_size, workers=0, **options)


@functools.cache
def features(**options):
    return extractor(**options)(*encoder(), GALLERY)


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
    model = nnx.merge(graph, *encoder())
    model.eval()
    picture = input_pipeline.decode(GALLERY[3]["image"], height=SHAPE.height, width=SHAPE.width)
    found = model(augmentation.normalise(jnp.asarray(picture[None]))).feats[0]
    np.testing.assert_allclose(found, features()[3], atol=1e-4)


def test_bfloat16_features_are_float32_and_near():
    found = features(compute_dtype="bfloat16")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, features(), atol=0.05 * np.abs(features()).max())


def test_mirrored_features_are_the_mean_over_picture_and_mirror_image():
    size = dict(height=SHAPE.height, width=SHAPE.width)
    pictures = [input_pipeline.decode(GALLERY[row]["image"], **size) for row in range(4)]
    there, back = (extractor().features_of_batch(*encoder(), jnp.asarray(x)) for x in (pictures, np.flip(pictures, 2)))
    both = extractor(mirror=True).features_of_batch(*encoder(), jnp.asarray(pictures))
    np.testing.assert_allclose(both, (there + back) / 2, atol=1e-5)
    assert np.abs(there - back).max() > 1e-3


def test_every_test_set_is_scored_by_itself():
    test_sets = [TestSet("one", QUERY, GALLERY), TestSet("two", GALLERY, GALLERY)]
    found = evaluation.evaluate(*encoder(), test_sets, extractor=extractor(), metric="market1501")
    assert list(found) == ["one", "two"]
    for scores in found.values():
        assert list(scores) == ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]
        assert all(0 <= value <= 1 for value in scores.values())
        assert scores["rank20"] == 1, "twenty pictures in all"
    assert found["one"] != found["two"]


def test_single_gallery_shot_keeps_five_people_and_draws_the_same_again():
    test_sets = [TestSet("one", QUERY, GALLERY)]
    score = functools.partial(evaluation.evaluate, *encoder(), test_sets, extractor=extractor(), metric="cuhk03")
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
    test, run = TestSet("one", QUERY, GALLERY), extractor()
    feats = [run(*encoder(), source) for source in (QUERY, GALLERY)]
    labels = evaluation.labels(test)
    score = functools.partial(evaluation.score, *encoder(), test, extractor=run, metric="market1501")
    expanded = query_expansion.expand(*feats, k=5)
    ranks = ranking.rank(expanded, feats[1], **labels)
    assert score(search=Search(expand=True))["mAP"] == pytest.approx(ranking.scores(ranks).mAP, abs=1e-6)
    ranks = reranking.rank(*feats, **labels)
    assert score(search=Search(rerank=True))["mAP"] == pytest.approx(ranking.scores(ranks).mAP, abs=1e-6)
    found = score(tpr=True)
    assert list(found)[-3:] == ["TPR@1e-2", "TPR@1e-3", "TPR@1e-4"]
    assert found["TPR@1e-2"] == pytest.approx(verification.tpr_at_fpr(*feats, **labels)[0].tpr)
