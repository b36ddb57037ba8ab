"""How a run's networks are scored: by retrieval with the encoder's features, or by the decoder's textures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from san_jax.batch import Source
from san_jax.model import Model, Weights
from san_jax.scoring import evaluation, texture_scores
from san_jax.training import checkpoints
from san_jax.training.checkpoints import BestBy
from san_jax.training.run_config import Config
from san_jax.training.train_step import Networks


class Result(NamedTuple):
    """Scores by test set and name, and a contact sheet, uint8 [H W 3], if textures are scored."""

    scores: dict[str, dict[str, float]]
    sheet: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Validation:
    """How a run's networks are scored.

    Attributes:
      score: weights (fields of a TrainState) -> scores.
      metric: name of the metric.
      units: units of the table, for display.
      as_table: formats the scores for display.
      best_by: which score decides which of two states is better.
    """

    score: Callable[[Weights], Result]
    metric: str
    units: str
    as_table: Callable[[Mapping[str, Mapping[str, float]]], str]
    best_by: BestBy


def make_validation(
    config: Config,
    networks: Networks,
    *,
    test_sets: Sequence[evaluation.RetrievalSet] | Sequence[Source],
    mesh: Mesh,
) -> Validation:
    """Retrieval scores of the encoder, or texture scores of encoder and decoder, depending on the mode."""
    options = dict(batch_size=config.scoring.batch_size, workers=config.data.workers)

    def model(weights: Weights) -> Model:
        return Model(networks.architecture, networks.mode, weights, mesh, config.compute_dtype, config.onednn)

    if networks.learns_people:
        metric = config.scoring.metric
        remarks = evaluation.remarks(test_sets)
        kept = " with the same camera kept" if config.scoring.same_camera == "keep" else ""

        def score(weights: Weights) -> Result:
            return Result(evaluation.evaluate(model(weights), test_sets, metric=metric, **options))

        def as_table(scores: Mapping[str, Mapping[str, float]]) -> str:
            return "\n".join([evaluation.as_table(scores), *remarks])

        return Validation(score, metric, f"{metric} metric{kept}, in percent", as_table, checkpoints.BY_MAP)

    def score_textures(weights: Weights) -> Result:
        return Result(*texture_scores.evaluate(model(weights), test_sets, **options))

    by_l1 = BestBy("L1", higher_is_better=False)
    return Validation(score_textures, "textures", texture_scores.UNITS, texture_scores.as_table, by_l1)
