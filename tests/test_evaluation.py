import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_source import ArraySource
from flax import nnx
from small_networks import SHAPE

from san_jax import devices
from san_jax.data import augmentation, decoded
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.networks.architecture import arrays_of
from san_jax.scoring import evaluation, feature_extraction, query_expansion, ranking, reranking, verification
from san_jax.scoring.evaluation import RetrievalSet, Search

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


def test_features_come_in_order_whatever_the_batch_size():
    found = features()
    assert found.shape == (20, SHAPE.fc_dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(features(batch_size=7), found, atol=1e-5)


def test_features_are_not_copied_on_the_cpu():
    found = features()
    assert jax.device_put(found, jax.devices("cpu")[0]).unsafe_buffer_pointer() == found.ctypes.data


def test_features_are_those_of_the_encoder_with_running_statistics():
    graph, *_ = nnx.split(nnx.eval_shape(lambda: SHAPE.new_encoder(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)
    encoder = nnx.merge(graph, *model().weights.values())
    encoder.eval()
    picture = decoded.decode(GALLERY[3]["image"], height=SHAPE.height, width=SHAPE.width)
    found = encoder(augmentation.normalise(jnp.asarray(picture[None]))).feats[0]
    np.testing.assert_allclose(found, features()[3], atol=1e-4)


def test_features_computed_in_bfloat16_are_float32_and_close():
    found = features(compute_dtype="bfloat16")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, features(), atol=0.05 * np.abs(features()).max())


def test_flipped_features_are_the_mean_over_picture_and_mirror_image():
    size = dict(height=SHAPE.height, width=SHAPE.width)
    pictures = np.stack([decoded.decode(GALLERY[row]["image"], **size) for row in range(4)])
    there, back = (model().features(x) for x in (pictures, np.flip(pictures, 2)))
    np.testing.assert_allclose(model().features(pictures, flip=True), (there + back) / 2, atol=1e-5)
    assert np.abs(there - back).max() > 1e-3
    np.testing.assert_allclose(features(flip=True)[:4], (there + back) / 2, atol=1e-4)


def test_every_test_set_is_scored_by_itself():
    test_sets = [RetrievalSet("one", QUERY, GALLERY), RetrievalSet("two", GALLERY, GALLERY)]
    found = evaluation.evaluate(model(), test_sets, metric="market1501", workers=0)
    assert list(found) == ["one", "two"]
    for scores in found.values():
        assert list(scores) == ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]
        assert all(0 <= value <= 1 for value in scores.values())
        assert scores["rank20"] == 1, "twenty pictures in all"
    assert found["one"] != found["two"]


def test_single_gallery_shot_ranks_five_identities_and_is_reproducible():
    test_sets = [RetrievalSet("one", QUERY, GALLERY)]
    score = functools.partial(evaluation.evaluate, model(), test_sets, metric="cuhk03", workers=0)
    first = score()["one"]
    assert first["rank5"] == 1
    assert first == score()["one"]
    assert 0 < first["mAP_std"] < 0.3


def test_error_for_an_unknown_metric_names_flag_and_field():
    with pytest.raises(UserError, match=r"metric is 'veri' \(--metric.*; there are market1501, cuhk03"):
        evaluation.check_metric("veri")


def test_table_has_one_row_per_set_in_percent():
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


def test_re_ranking_by_another_distance_is_refused():
    with pytest.raises(UserError, match="re-ranking requires the Euclidean distance, not cosine"):
        Search(distance="cosine", rerank=True)


def test_expansion_re_ranking_and_tpr_agree_with_their_modules():
    test = RetrievalSet("one", QUERY, GALLERY)
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


def labelled(pids, camids, names):
    """A source of which only the labels and names matter."""
    source = ArraySource(pids)
    source.camids, source.names = np.array(camids, np.int32), list(names)
    return source


def one_camera(same_camera):
    """Queries a, b, c of pids 0, 0 and 1, and a gallery that also holds a and c; all under camera 0."""
    query = labelled([0, 0, 1], [0, 0, 0], "abc")
    return RetrievalSet("test/one", query, labelled([0, 0, 1, 1, 2], [0] * 5, "adcef"), same_camera)


def test_with_the_same_camera_kept_only_the_query_itself_is_removed():
    """A query would find itself first, at distance 0. By hand: d is second for a, a first for b, e first for c."""
    feats = [np.array([[x, 0]], np.float32) for x in (0.0, 0.3, 5.0)], [0.0, 2.0, 5.0, 6.0, 1.0]
    query_feats, gallery_feats = np.concatenate(feats[0]), np.array([[x, 0] for x in feats[1]], np.float32)
    ranks = ranking.rank(query_feats, gallery_feats, **evaluation.labels(one_camera("keep")))
    # a: pid 2 at 1 comes before d at 2. b: a at 0.3, pid 2 at 0.7, d at 1.7. c: e at 1.
    np.testing.assert_array_equal(ranks, [[2, 0], [1, 3], [1, 0]])
    scores = evaluation.score_feats(
        query_feats, gallery_feats, one_camera("keep"), metric="market1501", mesh=devices.make_mesh()
    )
    assert scores.cmc[0] == pytest.approx(2 / 3)
    assert scores.mAP == pytest.approx((1 / 2 + (1 + 2 / 3) / 2 + 1) / 3)


def test_same_name_under_another_pid_is_another_picture():
    test = RetrievalSet("test/names", labelled([0], [0], "a"), labelled([0, 1, 0], [0, 0, 0], "aab"), "keep")
    ranks = ranking.rank(np.zeros((1, 2), np.float32), np.zeros((3, 2), np.float32), **evaluation.labels(test))
    np.testing.assert_array_equal(ranks, [[2]])


def test_keeping_the_same_camera_gives_the_scores_of_queries_and_gallery_under_different_cameras():
    """If no picture is in both query and gallery, keeping equals query camids that the gallery does not have."""
    feats = evaluation.features(model(), RetrievalSet("one", QUERY, GALLERY), workers=0)
    names = [[f"{split}{row}" for row in range(count)] for split, count in (("query", 5), ("gallery", 20))]

    def scores(query_camids, gallery_camids, same_camera):
        query, gallery = labelled(QUERY.pids, query_camids, names[0]), labelled(GALLERY.pids, gallery_camids, names[1])
        test = RetrievalSet("one", query, gallery, same_camera)
        return evaluation.in_numbers(
            evaluation.score_feats(*feats, test, metric="market1501", mesh=devices.make_mesh())
        )

    kept = scores(QUERY.camids, GALLERY.camids, "keep")
    assert kept == scores(np.arange(5), [9] * 20, "remove")
    assert kept != scores(QUERY.camids, GALLERY.camids, "remove")


def test_error_for_a_set_of_one_camera_says_how_to_score_it():
    with pytest.raises(UserError, match=r"test/one cannot be scored: it has only one camera.*\.same_camera to keep"):
        evaluation.check_matches(one_camera("remove"))
    evaluation.check_matches(one_camera("keep"))
    with pytest.raises(UserError, match=r"test/one cannot be scored: it has only one camera"):
        evaluation.evaluate(model(), [one_camera("remove")], metric="market1501", workers=0)


def test_error_for_a_set_without_any_match_gives_the_reason():
    query, gallery = labelled([0, 1], [0, 1], "ab"), labelled([0, 1], [0, 1], "cd")
    with pytest.raises(UserError, match=r"no query has its person in the gallery by another .*same_camera to keep"):
        evaluation.check_matches(RetrievalSet("test/two", query, gallery))
    with pytest.raises(UserError, match=r"no query has its person .* do not count; check pids and camids$"):
        evaluation.check_matches(RetrievalSet("test/two", query, labelled([2, 3], [0, 1], "cd")))
    with pytest.raises(UserError, match="no query has another picture of its person in the gallery"):
        evaluation.check_matches(RetrievalSet("test/two", query, labelled([0, 1], [0, 1], "ab"), "keep"))


def test_queries_without_a_match_are_counted_and_named_under_the_table():
    test = RetrievalSet("a/b:1", labelled([0, 1, 2, 3], [0] * 4, "abcd"), labelled([0, 1, 1, 5], [1, 0, 1, 1], "efgh"))
    assert evaluation.queries_without_match(test) == 2
    assert evaluation.remarks([test]) == ["a/b:1: 2 of 4 queries have no match in the gallery and are left out"]
    assert evaluation.remarks([RetrievalSet("one", QUERY, GALLERY)]) == []
    other = RetrievalSet("a/b:2", test.query, labelled([0], [1], "e"))
    scores = {"a/b:1": {"mAP": 1.0}, "a/b:2": {"mAP": 0.5}}
    counted = evaluation.with_counts(scores | evaluation.means_of_variants(scores), [test, other])
    assert {name: numbers["queries_without_match"] for name, numbers in counted.items()} == {
        "a/b:1": 2,
        "a/b:2": 3,
        "a/b, mean of 2": 5,
    }
    assert counted["a/b:1"]["mAP"] == 1.0
