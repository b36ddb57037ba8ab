"""The BoxMOT side of `tracking.py`: runs trackers over the boxes of one sequence and scores the ids that they give.

    PATH/bin/python -m benchmarks.boxmot_trackers JOB.json FOUND.json

Needs torch, boxmot[onnx] and motmetrics, and nothing of san_jax. JOB.json holds

    frames     a list of {"picture": path, "boxes": [[left, top, right, bottom], ...], "people": [id, ...]}
    trackers   {name: {setting: value}}; settings replace those of BoxMOT's own configs/trackers/NAME.yaml
    networks   {name: path of an ONNX file; null for the tracker's motion alone}

FOUND.json receives `scores` (by tracker and network), `distances` (between the features of boxes, by network) and
`versions`; beside it, FOUND.npz receives the features of all boxes by the name of the network, float32 [n, D].
"""

import importlib.metadata
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import motmetrics
import numpy as np
from boxmot.reid.core import ReID
from boxmot.trackers.config import load_tracker_defaults
from boxmot.trackers.registry import get_tracker_class

SCORES = ("idf1", "idp", "idr", "mota", "num_switches", "num_fragmentations", "num_misses", "num_objects")
SWITCH = "use_embeddings"  # a tracker without this setting cannot do without a network
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def main() -> None:
    """Runs the job that the command line names."""
    job_file, found_file = map(Path, sys.argv[1:])
    job = json.loads(job_file.read_text())
    networks = {name: path and ReID(weights=path, device="cpu").model for name, path in job["networks"].items()}
    feats = {name: features(network, job["frames"]) for name, network in networks.items() if network}
    trackers = job["trackers"].items()
    scores = {tracker: of_tracker(tracker, wanted, networks, job["frames"]) for tracker, wanted in trackers}
    np.savez(found_file.with_suffix(".npz"), **{name: np.concatenate(parts) for name, parts in feats.items()})
    found = {
        "scores": scores,
        "distances": {name: distances(parts, job["frames"]) for name, parts in feats.items()},
        "versions": versions(),
    }
    found_file.write_text(json.dumps(found, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Versions of what the scores depend on."""
    return {name: importlib.metadata.version(name) for name in ("boxmot", "motmetrics", "onnxruntime", "torch")}


def of_tracker(tracker: str, wanted: dict[str, Any], networks: dict[str, Any], frames: list[dict]) -> dict[str, dict]:
    """Scores of one tracker with each network, and without one if it has a switch for that."""
    settings, found = load_tracker_defaults(tracker) | wanted, {}
    for name, network in networks.items():
        if network is None and SWITCH not in settings:
            continue
        appearance = {SWITCH: network is not None} if SWITCH in settings else {}
        made = get_tracker_class(tracker)(**settings | appearance, reid_model=network)
        found[name] = scored(tracked(made, frames), frames)
    return found


def tracked(tracker: Any, frames: list[dict]) -> list[list[tuple[int, int]]]:
    """Runs a tracker; for each frame, pairs of the number of a box in it and the id that it got."""
    found = []
    for frame in frames:
        boxes = np.array(frame["boxes"], np.float32).reshape(-1, 4)
        # Score 1, class 0: the boxes are true.
        detections = np.column_stack([boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.float32)])
        # A row is left, top, right, bottom, id, score, class, number of the detection.
        rows = np.asarray(tracker.update(detections, cv2.imread(frame["picture"]))).reshape(-1, 8)
        found.append([(int(row[7]), int(row[4])) for row in rows if row[7] >= 0])
    return found


def scored(found: list[list[tuple[int, int]]], frames: list[dict]) -> dict[str, float]:
    """IDF1, MOTA and the others of SCORES; an id belongs to the person whose box it was given to."""
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for pairs, frame in zip(found, frames, strict=True):
        boxes = [box for box, _ in pairs]
        apart = np.where(np.arange(len(frame["people"]))[:, None] == np.array(boxes, int), 0.0, np.nan)
        accumulator.update(frame["people"], [track for _, track in pairs], apart)
    summary = motmetrics.metrics.create().compute(accumulator, metrics=list(SCORES))
    return {name: float(summary[name].iloc[0]) for name in SCORES}


def features(network: Any, frames: list[dict]) -> list[np.ndarray]:
    """The features of the boxes of each frame, as BoxMOT cuts and scales them; length 1, float32 [n, D]."""
    return [
        np.asarray(network.get_features(np.array(frame["boxes"], np.float32), cv2.imread(frame["picture"])), np.float32)
        for frame in frames
        if frame["boxes"]
    ]


def distances(parts: list[np.ndarray], frames: list[dict]) -> dict[str, list[float]]:
    """QUANTILES of the cosine distances from each box to those of the next frame that has any: of the same person, and
    of the nearest of the others.
    """
    same, other = [], []
    people = [np.array(frame["people"]) for frame in frames if frame["boxes"]]
    for (before, whom), (after, whose) in itertools.pairwise(zip(parts, people, strict=True)):
        apart = 1 - before @ after.T
        equal = whom[:, None] == whose
        same += apart[equal].tolist()
        nearest = np.where(equal, np.inf, apart).min(axis=1)
        other += nearest[np.isfinite(nearest)].tolist()
    return {
        "quantiles": list(QUANTILES),
        "same": np.quantile(same, QUANTILES).tolist(),
        "nearest_other": np.quantile(other, QUANTILES).tolist(),
    }


if __name__ == "__main__":
    main()
