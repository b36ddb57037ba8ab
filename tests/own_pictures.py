"""Lists and folders of small pictures of one's own."""

import csv

import numpy as np
from PIL import Image

SPLITS = {"train": range(3), "query": range(3, 5), "gallery": range(3, 6)}


def noise(*seed, height=12, width=6):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return path


def write(path, *rows):
    """Writes dicts as a list."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as file:
        written = csv.DictWriter(file, columns)
        written.writeheader()
        written.writerows(rows)
    return path


def write_people(folder):
    """A list with splits, people.csv; two cameras of every person, the query by the first."""
    rows = []
    for split, pids in SPLITS.items():
        for pid in pids:
            for camid in (0, 1) if split == "train" else (0,) if split == "query" else (1,):
                name = f"{split}/{pid}_{camid}.png"
                save(folder / "shop" / name, noise(pid, camid))
                rows.append({"path": f"shop/{name}", "pid": pid, "camid": camid, "split": split})
    return write(folder / "people.csv", *rows)
