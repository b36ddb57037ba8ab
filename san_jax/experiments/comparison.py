"""Compares the runs of a folder, baseline and SAN, with each other, with chance and with colours; ends a chain.

    python -m san_jax.experiments.comparison runs/demo

reads FOLDER/baseline and FOLDER/san; prints the scores, and writes them to FOLDER/scores.json and what both runs find
for some queries to FOLDER/ranked.png.
"""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from san_jax import commands, contact_sheet, devices, files
from san_jax.errors import UserError
from san_jax.scoring import evaluation, ranked_pictures, references
from san_jax.scoring.evaluation import TestSet
from san_jax.scoring.feature_extraction import Extractor
from san_jax.training import checkpoints, run_config

RUNS = ("baseline", "san")
SHOWN_QUERIES = 5  # drawn at random, the same for both runs
SHOWN_PICTURES = 8  # of the gallery


class Found(NamedTuple):
    """Features of a test set by one run."""

    query: np.ndarray
    gallery: np.ndarray


def main(folder: Path) -> None:
    """Scores, table and picture."""
    configs = {name: run_config.read(folder / name) for name in RUNS}
    config = configs["san"]
    if configs["baseline"].data.to_dict() != config.data.to_dict():
        raise UserError(f"the runs {folder}/baseline and {folder}/san read different data; train both on the same")
    mesh = devices.make_mesh()
    test = commands.open_test_sets(config.data)[0]
    found = {name: features(folder / name, configs[name], test, mesh) for name in RUNS}
    metric = config.scoring.metric
    scores = references.evaluate([test], mesh=mesh, metric=metric, workers=config.data.workers)[test.name]
    for name in RUNS:
        found_scores = evaluation.score_feats(*found[name], test, mesh=mesh, metric=metric)
        scores[name] = evaluation.in_numbers(found_scores)
    if jax.process_index() == 0:
        print(f"{test.name}, {metric} metric, in percent\n{evaluation.as_table(scores)}")
        about = {"data": test.name, "metric": metric}
        files.write(folder / "scores.json", json.dumps(about | scores, indent=2) + "\n")
        contact_sheet.save(folder / "ranked.png", ranked(test, found))
        shown = min(SHOWN_QUERIES, len(test.query))
        print(f"what both find for {shown} queries, right in green and wrong in red: {folder / 'ranked.png'}")


def features(workdir: Path, config, test: TestSet, mesh) -> Found:
    """Features of query and gallery by the newest checkpoint of a run."""
    checkpoint = checkpoints.find(workdir)
    encoder, stats, _ = checkpoints.restore_encoder(checkpoint, devices.replicated(mesh))
    extractor = Extractor(
        checkpoints.read_architecture(checkpoint),
        mesh,
        batch_size=config.scoring.batch_size,
        compute_dtype=config.compute_dtype,
        workers=config.data.workers,
    )
    return Found(*(extractor(encoder, stats, source) for source in (test.query, test.gallery)))


def ranked(test: TestSet, found: dict[str, Found]) -> np.ndarray:
    """The sheet: for each query the first pictures by one run, and below by the other."""
    queries = np.random.default_rng(0).choice(len(test.query), min(SHOWN_QUERIES, len(test.query)), replace=False)
    size = dict(first=min(SHOWN_PICTURES, len(test.gallery)), height=256, width=128)
    by_run = [ranked_pictures.rows(test, queries, *feats, **size) for feats in found.values()]
    both = [row for pair in zip(*by_run, strict=True) for row in pair]
    return contact_sheet.draw(
        both,
        title=f"{test.name}: who is it? Right in green, wrong in red",
        row_titles=list(found) * len(queries),
        column_titles=["query", *(f"{rank}" for rank in range(1, max(map(len, both))))],
        cell_height=160,
    )


if __name__ == "__main__":
    commands.run(main, files=("FOLDER",))
