"""Scores to compare an encoder's with: those of chance and of colour histograms."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from san_jax import devices
from san_jax.batch import Source
from san_jax.data import input_pipeline
from san_jax.scoring import evaluation, ranking
from san_jax.scoring.chance import chance_scores
from san_jax.scoring.colour_histogram import histograms
from san_jax.scoring.evaluation import RetrievalSet

HEIGHT, WIDTH = 128, 64  # of the pictures, in pixels; twice the height and width gives the same scores
COLOUR_SEARCH = evaluation.Search("chi_square")
BATCH_SIZE = 64  # over all devices; rounded up to a multiple of their number


def evaluate(
    test_sets: Sequence[RetrievalSet], *, mesh: Mesh, metric: str, workers: int | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by test set and reference, in the form in which `evaluation.evaluate` returns those of an encoder.

    Args:
      test_sets: each is scored by itself.
      mesh: the devices that share the pictures and the gallery.
      metric: one of `evaluation.METRICS`.
      workers: threads that decode pictures; None = one for each core, 0 = no threads.
    """
    evaluation.check_metric(metric)
    for test in test_sets:
        evaluation.check_matches(test)
    found = {test.name: scores(test, mesh=mesh, metric=metric, workers=workers) for test in test_sets}
    return {data: {name: evaluation.in_numbers(one) for name, one in of_set.items()} for data, of_set in found.items()}


def scores(test: RetrievalSet, *, mesh: Mesh, metric: str, workers: int | None = None) -> dict[str, ranking.Scores]:
    """Scores of "chance", the expectation for a gallery in random order, and of "colour histogram".

    Arguments are those of `evaluate`.
    """
    feats = [colours(source, mesh=mesh, workers=workers) for source in (test.query, test.gallery)]
    return {
        "chance": chance_scores(**evaluation.labels(test), single_shot=metric == "cuhk03"),
        "colour histogram": evaluation.score_feats(*feats, test, metric=metric, mesh=mesh, search=COLOUR_SEARCH),
    }


def colours(source: Source, *, mesh: Mesh, workers: int | None = None) -> Float32[np.ndarray, "n D"]:
    """Colour histograms of all pictures of a split, in their order."""
    batch_size = devices.rounded_up(mesh, BATCH_SIZE)
    batches = input_pipeline.scored_batches(
        source, batch_size=batch_size, height=HEIGHT, width=WIDTH, mesh=mesh, workers=workers
    )
    of_batch = jax.jit(histograms, out_shardings=devices.replicated(mesh))
    return np.concatenate([jax.device_get(of_batch(images)) for images in batches])[: len(source)]
