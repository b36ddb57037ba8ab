"""Trains a few steps on all devices and processes, and prints the losses; started by `test_devices.py`."""

import functools
import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags
from array_source import ArraySource
from jax.experimental import multihost_utils
from runs import config_of

from san_jax import devices
from san_jax.data import input_pipeline
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.process import joining
from san_jax.scoring import evaluation, feature_extraction, nearest, texture_scores
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet, Search
from san_jax.training import run


def batches_by(built, way):
    """A digest of all bytes of the first three batches and of one after a resumption."""
    feed = functools.partial(built.open_feed, cache=way)()
    pick = jax.jit(input_pipeline.batch_of)
    found = []
    for start, count in ((0, 3), (5, 1)):
        for step, fed in zip(range(start, start + count), feed.batches(start), strict=False):
            batch = pick(fed, np.int32(step))
            parts = [np.asarray(part) for part in multihost_utils.process_allgather(vars(batch), tiled=True).values()]
            found.append(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
    return found


def split_and_whole(model, test):
    """Features and scores of a gallery whose features are split, and of one that every process holds whole."""
    whole = evaluation.features(model, test, batch_size=8, workers=0)
    split = feature_extraction.split_features(model, test.gallery, batch_size=8, workers=0)
    gathered = np.asarray(multihost_utils.process_allgather(split.array, tiled=True))
    assert not gathered[len(split) :].any()
    held = sum(len(shard.data) for shard in split.array.addressable_shards)
    found = {"difference": float(np.abs(gathered[: len(split)] - whole.gallery).max()), "held": held, "scores": []}
    # The same bits, so that ties are the same.
    for feats in (RetrievalFeats(whole.query, gathered[: len(split)]), RetrievalFeats(whole.query, split)):
        options, refined = dict(metric="market1501", mesh=model.mesh), Search(expand=True, rerank=True)
        scores = evaluation.score(feats, test, **options) | evaluation.verify(feats, test, mesh=model.mesh).scores
        found["scores"].append([scores, evaluation.score(feats, test, search=refined, **options)])
    return found


def main():
    flags.FLAGS(sys.argv[:1])
    joining.join_cluster()
    people = ArraySource(np.repeat(np.arange(12), 5))
    pairs, mesh = ArraySource(np.arange(30), name="test/pairs", seed=2), devices.make_mesh()
    fields = {"schedule.warmup_epochs": 0, "reid.learning_rate": 1e-3, "batch.pit_pictures": 8, "scoring.batch_size": 8}
    config = config_of(**fields)
    test_sets = [RetrievalSet("test/people", ArraySource(np.arange(6), seed=1), people)]
    built = run.build(config, Path("nowhere"), source=people, pairs=pairs, test_sets=test_sets, mesh=mesh)
    # Scores of the fresh weights: in later ones, Adam has scaled gradients that are only rounding errors to full steps.
    state, losses = built.make_state(), []
    scores, _ = built.validation.score(vars(state))
    model = Model(built.networks.architecture, "san", vars(state), mesh)
    query_feats, _ = evaluation.features(model, test_sets[0], batch_size=8, workers=0)
    split = split_and_whole(model, test_sets[0])
    drawn, _ = texture_scores.evaluate(model, [pairs], workers=0)
    for step, fed in zip(range(4), built.open_feed().batches(0), strict=False):
        state, terms = built.step_of(step)(state, fed)
        losses.append({name: float(value) for name, value in terms["loss"].items()})
    batches = {way: batches_by(built, way) for way in input_pipeline.WAYS}
    feats = np.ones((9, 4), np.float32)
    feats[3, 2] = np.nan
    try:
        nearest.nearest(feats[4:], feats, k=2, mesh=mesh)
    except UserError as error:
        refused = str(error)
    if jax.process_index() == 0:
        layout = [jax.device_count(), jax.local_device_count(), jax.process_count()]
        found = {"losses": losses, "feats": query_feats.tolist(), "scores": scores, "drawn": drawn, "refused": refused}
        print(json.dumps({"layout": layout, "batches": batches, "split": split} | found))


if __name__ == "__main__":
    main()
