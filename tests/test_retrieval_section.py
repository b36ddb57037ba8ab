import numpy as np
import pytest
from page_reader import Page
from report_pages import page_of, people_set, scores_of, table_rows
from small_networks import SHAPE

from san_jax import devices
from san_jax.drawing.html_page import Markup
from san_jax.report import retrieval_section
from san_jax.scoring import evaluation, ranking
from san_jax.scoring.evaluation import RetrievalFeats


def test_scores_are_those_of_scores_json_above_the_references(san_page):
    rows = table_rows(san_page[0])
    assert list(rows) == ["this run", "colour histogram", "chance"]
    assert rows["this run"] == [f"{100 * value:.2f}" for value in san_page[1]["test/people"].values()]
    assert rows["chance"][0] == f"{100 * 2 / 46:.2f}"


@pytest.mark.parametrize("metric", evaluation.METRICS)
def test_curve_goes_through_the_scores(tmp_path, metric):
    scores = scores_of(people_set(), metric)["test/people"]
    text = page_of(tmp_path, people_set(), mode="baseline", metric=metric)
    ranks = [words for words in Page(text).texts if words.startswith("rank ")]
    assert len(ranks) == 50
    for rank in evaluation.SHOWN_RANKS:
        assert f"this run: {100 * scores[f'rank{rank}']:.4g}\n" in ranks[rank - 1]
    assert retrieval_section.METRICS[metric] in "".join(Page(text).texts)


@pytest.mark.parametrize("metric", evaluation.METRICS)
def test_features_are_ranked_once_for_all_numbers(monkeypatch, metric):
    test, mesh, ranked = people_set(), devices.make_mesh(), []
    rng = np.random.default_rng(0)
    feats = RetrievalFeats(
        *(rng.normal(size=(len(split), 8)).astype(np.float32) for split in (test.query, test.gallery))
    )
    expected = evaluation.score_feats(*feats, test, metric=metric, mesh=mesh)
    rank = ranking.rank
    monkeypatch.setattr(ranking, "rank", lambda query, *args, **kw: ranked.append(query) or rank(query, *args, **kw))
    shown = []
    monkeypatch.setattr(retrieval_section, "cmc_chart", lambda compared: shown.append(compared) or Markup(""))
    retrieval_section.elements(
        test, feats, evaluation.in_numbers(expected), architecture=SHAPE, mesh=mesh, metric=metric, workers=0
    )
    assert sum(query is feats.query for query in ranked) == 1
    np.testing.assert_array_equal(shown[0]["this run"].cmc, expected.cmc)
    assert (shown[0]["this run"].mAP, shown[0]["this run"].mINP) == (expected.mAP, expected.mINP)
