import numpy as np
import pytest
from array_source import ArraySource, encoded

from san_jax import devices
from san_jax.data import decoded
from san_jax.errors import UserError
from san_jax.scoring import references
from san_jax.scoring.colour_histogram import histograms
from san_jax.scoring.evaluation import RetrievalSet


class ClothedSource(ArraySource):
    """Pictures of eight bands in the colours of the pid, at half the brightness by camera 1."""

    def __getitem__(self, row):
        record = super().__getitem__(row)
        bands = np.random.default_rng([self._seed, self.pids[row]]).integers(40, 216, (8, 1, 3))
        noise = np.random.default_rng([self._seed, 1, row]).normal(0, 10, (48, 20, 3))
        picture = np.clip(np.repeat(bands, 6, axis=0) + noise, 0, 255) / (1 + self.camids[row])
        return record | {"image": encoded(picture.astype(np.uint8))}


GALLERY = ClothedSource(np.repeat(np.arange(30), 4), textures=False)
QUERY = ClothedSource(np.arange(30), textures=False)


def evaluate(*test_sets, metric="market1501"):
    return references.evaluate(test_sets, mesh=devices.make_mesh(), metric=metric, workers=0)


def test_colours_are_in_order_and_are_those_of_the_resized_pictures():
    found = references.colours(GALLERY, mesh=devices.make_mesh(), workers=0)
    picture = decoded.decode(GALLERY[70]["image"], height=references.HEIGHT, width=references.WIDTH)
    np.testing.assert_array_equal(found[70], histograms(picture[None])[0])
    assert found.shape == (120, 288)


@pytest.mark.parametrize(
    ("metric", "chance"),
    [
        ("market1501", {"rank1": 2 / 118, "rank10": 1 - 108 * 107 / (118 * 117)}),
        ("cuhk03", {"rank1": 1 / 30, "rank10": 1 / 3}),
    ],
)
def test_histograms_match_clothes_and_chance_follows_from_the_labels(metric, chance):
    scores = evaluate(RetrievalSet("one", QUERY, GALLERY), metric=metric)["one"]
    assert list(scores) == ["chance", "colour histogram"]
    assert list(scores["chance"]) == ["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]
    assert {name: scores["chance"][name] for name in chance} == pytest.approx(chance)
    assert scores["colour histogram"]["rank1"] > 0.9
    assert scores["colour histogram"]["mAP"] > 0.9


def test_every_test_set_is_scored_separately():
    few = ClothedSource(np.repeat(np.arange(30), 2), textures=False)
    found = evaluate(RetrievalSet("one", QUERY, GALLERY), RetrievalSet("two", QUERY, few))
    assert list(found) == ["one", "two"]
    assert found["one"]["chance"] != found["two"]["chance"]


def test_unknown_metric_is_named():
    with pytest.raises(UserError, match=r"metric is 'veri'"):
        evaluate(RetrievalSet("one", QUERY, GALLERY), metric="veri")
