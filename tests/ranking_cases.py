"""Golden features, labels and scores of rankings."""

import pathlib

import numpy as np

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "ranking.npz")


def golden_case(case):
    feats = GOLDEN[f"{case}/query"], GOLDEN[f"{case}/gallery"]
    labels = {
        "query_pids": GOLDEN[f"{case}/query_ids"],
        "gallery_pids": GOLDEN[f"{case}/gallery_ids"],
        "query_camids": GOLDEN[f"{case}/query_cams"],
        "gallery_camids": GOLDEN[f"{case}/gallery_cams"],
    }
    return feats, labels


def listed(ranks):
    return [[int(rank) for rank in row if rank] for row in np.asarray(ranks)]
