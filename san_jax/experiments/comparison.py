"""Compares a baseline and a SAN run with each other, with chance and with colour histograms; last stage of a chain.

    python -m san_jax.experiments.comparison runs/demo

reads the runs FOLDER/baseline and FOLDER/san, prints their scores and writes them to FOLDER/scores.json.
FOLDER/ranked.png shows the pictures that both runs rank first for some queries.
"""

import json
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from san_jax import devices, files
from san_jax.commands import common
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.model import of_checkpoint
from san_jax.report import ranked_pictures
from san_jax.scoring import evaluation, references
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet
from san_jax.training import run_config
from san_jax.weights import stored

RUNS = ("baseline", "san")
SHOWN_QUERIES = 5  # chosen at random; the same for both runs
SHOWN_PICTURES = 8  # gallery pictures for each query


def main(folder: Path) -> None:
    """Compares the runs in a folder: prints a table, writes the scores and the contact sheet.

    Raises:
      UserError: a run is missing, or the runs read different data.
    """
    configs = {name: run_config.read(folder / name) for name in RUNS}
    config = configs["san"]
    if configs["baseline"].data.to_dict() != config.data.to_dict():
        raise UserError(f"the runs {folder}/baseline and {folder}/san read different data; train both on the same")
    mesh = devices.make_mesh()
    test = common.open_test_sets(config.data, same_camera=config.scoring.same_camera)[0]
    found = {name: features(folder / name, configs[name], test, mesh) for name in RUNS}
    metric = config.scoring.metric
    scores = references.evaluate([test], mesh=mesh, metric=metric, workers=config.data.workers)[test.name]
    for name in RUNS:
        found_scores = evaluation.score_feats(*found[name], test, mesh=mesh, metric=metric)
        scores[name] = evaluation.in_numbers(found_scores)
    if jax.process_index() == 0:
        print(f"{test.name}, {metric} metric, in percent\n{evaluation.as_table(scores)}")
        print("".join(f"{line}\n" for line in evaluation.remarks([test])), end="")
        about = {"data": test.name, "metric": metric}
        if unmatched := evaluation.queries_without_match(test):
            about["queries_without_match"] = unmatched
        files.write(folder / "scores.json", json.dumps(about | scores, indent=2) + "\n")
        contact_sheet.save(folder / "ranked.png", ranked(test, found))
        shown = min(SHOWN_QUERIES, len(test.query))
        print(f"{folder / 'ranked.png'}: the nearest pictures by both for {shown} queries, correct green, wrong red")


def features(workdir: Path, config: ConfigDict, test: RetrievalSet, mesh: Mesh) -> RetrievalFeats:
    """Features of query and gallery pictures by the newest checkpoint of a run."""
    model = of_checkpoint(stored.find(workdir), mesh, compute_dtype=config.compute_dtype)
    return evaluation.features(model, test, batch_size=config.scoring.batch_size, workers=config.data.workers)


def ranked(test: RetrievalSet, found: dict[str, RetrievalFeats]) -> np.ndarray:
    """A contact sheet with two rows for each query: the nearest gallery pictures by one run, and by the other.

    Args:
      test: the test set.
      found: name of each run -> its features.
    """
    queries = np.random.default_rng(0).choice(len(test.query), min(SHOWN_QUERIES, len(test.query)), replace=False)
    size = dict(first=min(SHOWN_PICTURES, len(test.gallery)), height=256, width=128)
    by_run = [ranked_pictures.sheet_rows(test, queries, *feats, **size) for feats in found.values()]
    both = [row for pair in zip(*by_run, strict=True) for row in pair]
    return contact_sheet.compose(
        both,
        title=f"{test.name}: nearest gallery pictures, correct in green, wrong in red",
        row_titles=list(found) * len(queries),
        column_titles=["query", *(f"{rank}" for rank in range(1, max(map(len, both))))],
        cell_height=160,
    )


if __name__ == "__main__":
    common.run_command(main, files=("FOLDER",))
