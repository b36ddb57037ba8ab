"""Finds the people of a rendered crowd in another camera's frames, by single boxes and by tracks.

    python -m benchmarks.crowds --out=runs/crowds

Renders crowds of the same people under two cameras for several seeds, and compares margins around the boxes: the share
of boxes (or tracks) of one camera whose nearest box (or track) of the other shows the same person, beside chance and
colour histograms. Writes crowds.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

import san_jax
from benchmarks.case import describe_cpu, new_folder
from san_jax.data import crops
from san_jax.data.crops import Crops, Wanted
from san_jax.gallery import embedding, tracks
from san_jax.scoring import nearest
from san_jax.scoring.colour_histogram import histograms

CAMERAS = (1, 2)
COLOURS = "colour histograms, margin 0"


def main() -> None:
    """Renders what is missing, computes all shares, writes crowds.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=new_folder, default="runs/crowds")
    parser.add_argument("--checkpoint", default="rendered-small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--frames", type=int, default=20)
    flags = parser.parse_args()
    model, found, counts = san_jax.load(flags.checkpoint), {}, {}
    for seed in range(flags.seeds):
        folders = [render(flags.out, seed, camera, people=flags.people, frames=flags.frames) for camera in CAMERAS]
        for margin in (0.0, 0.05, 0.1, 0.2):
            both = [crops.in_boxes(folder, folder / "gt.txt", wanted=Wanted(margin=margin)) for folder in folders]
            feats = [embedding.embed_all(model, one)[1] for one in both]
            add(found, f"margin {margin}", both, feats)
            counts[f"seed {seed}"] = [len(one) for one in both]
            if not margin:
                add(found, COLOURS, both, [of_colours(one) for one in both], distance="chi_square")
    report = {
        "date": time.strftime("%Y-%m-%d"), "cpu": describe_cpu(), "checkpoint": flags.checkpoint,
        "people": flags.people, "frames": flags.frames, "boxes": counts, "chance": 1 / flags.people,
        "rank1": found,
    }  # fmt: skip
    (flags.out / "crowds.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, shares in found.items():
        means = ", ".join(
            f"{kind} {np.mean(values):.3f} +- {np.std(values, ddof=1):.3f}" for kind, values in shares.items()
        )
        print(f"{name}: {means}")


def render(out: Path, seed: int, camera: int, *, people: int, frames: int) -> Path:
    """The folder of a crowd, rendered if it is missing."""
    folder = out / f"seed{seed}_camera{camera}"
    if not (folder / "gt.txt").exists():
        options = {"crowd": folder, "seed": seed, "camera": camera, "people": people, "frames": frames, "variety": 0.3}
        words = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([sys.executable, "-m", "san_jax", "sheet", *words], check=True)
    return folder


def add(found: dict, name: str, both: list[Crops], feats: list[np.ndarray], *, distance: str = "euclidean") -> None:
    """Adds the shares of one seed."""
    shares = found.setdefault(name, {"boxes": [], "tracks": []})
    for kind, average in (("boxes", tracks.of_pictures), ("tracks", tracks.by_track)):
        names = [[crop.name for crop in one.crops] for one in both]
        query, gallery = (average(one.crops, *rest) for one, *rest in zip(both, names, feats, strict=True))
        rows = np.asarray(nearest.nearest(query.feats, gallery.feats, k=1, distance=distance).rows)[:, 0]
        right = [crop.track == gallery.crops[row].track for crop, row in zip(query.crops, rows, strict=True)]
        shares[kind].append(float(np.mean(right)))


def of_colours(one: Crops) -> np.ndarray:
    """Colour histograms, to be compared by their chi-square distance."""
    pictures = np.zeros((len(one), 128, 64, 3), np.uint8)
    for read, into in zip(one.readers(), pictures, strict=True):
        read(into)
    return np.asarray(jax.jit(histograms)(pictures))


if __name__ == "__main__":
    main()
