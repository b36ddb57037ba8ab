"""What the scores of an encoder are to be compared with: chance, and the colours of the pictures."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from san_jax import devices
from san_jax.batch import Source
from san_jax.data import input_pipeline
from san_jax.scoring import evaluation
from san_jax.scoring.chance import chance_scores
from san_jax.scoring.colour_histogram import histograms
from san_jax.scoring.evaluation import TestSet

HEIGHT, WIDTH = 128, 64  # of the pictures whose colours are counted; twice as many pixels a side score the same
BY_COLOURS = evaluation.Search("chi_square")
BATCH_SIZE = 64  # over all devices; rounded up to a multiple of their number


def evaluate(
    test_sets: Sequence[TestSet], *, mesh: Mesh, metric: str, workers: int = 2
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by test set and reference, "chance" and "colour histogram", as `evaluation.evaluate` gives an encoder's.

    Args:
      test_sets: each is scored by itself.
      mesh: over whose devices pictures and gallery are cut.
      metric: one of `evaluation.METRICS`.
      workers: processes that read and decode; 0 = this one.
    """
    evaluation.check_metric(metric)
    return {
        test.name: {
            "chance": score_chance(test, metric=metric),
            "colour histogram": score_colours(test, mesh=mesh, metric=metric, workers=workers),
        }
        for test in test_sets
    }


def score_chance(test: TestSet, *, metric: str) -> dict[str, float]:
    """Expected scores of the gallery in random order."""
    return evaluation.in_numbers(chance_scores(**evaluation.labels(test), single_shot=metric == "cuhk03"))


def score_colours(test: TestSet, *, mesh: Mesh, metric: str, workers: int = 2) -> dict[str, float]:
    """Scores of colour histograms, compared by chi-square."""
    feats = [colours(source, mesh=mesh, workers=workers) for source in (test.query, test.gallery)]
    return evaluation.in_numbers(
        evaluation.score_feats(*feats, test, metric=metric, mesh=mesh, search=BY_COLOURS)
    )


def colours(source: Source, *, mesh: Mesh, workers: int = 2) -> Float32[np.ndarray, "n D"]:
    """Colour histograms of all pictures of a split in their order."""
    batch_size = -(-BATCH_SIZE // mesh.size) * mesh.size
    batches = input_pipeline.scored_batches(
        source, batch_size=batch_size, height=HEIGHT, width=WIDTH, mesh=mesh, workers=workers
    )
    of_batch = jax.jit(histograms, out_shardings=devices.replicated(mesh))
    return np.concatenate([jax.device_get(of_batch(images)) for images in batches])[: len(source)]
