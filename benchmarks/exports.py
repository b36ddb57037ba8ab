"""Scores the files that `san-jax export` writes for onnxruntime, in float32, float16 and int8, beside the network.

    python -m benchmarks.exports --out=docs/measured

Each file computes the features of query and gallery of a test set, one picture at a time in onnxruntime on a CPU; the
int8 one is calibrated on rendered pictures, as by default. Writes rank-1, mAP, the size of each file and the least
cosine similarity of a picture's features to those of the network. `python -m benchmarks.exports --table` writes the
table of docs/deploy.md from that JSON.
"""

import argparse
import json
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import san_jax
from benchmarks import table
from benchmarks.case import describe_cpu, new_folder
from san_jax.batch import Source
from san_jax.commands import common
from san_jax.commands.export import rendered
from san_jax.data import picture_folder
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.runtimes import checks, exporting, onnx_file
from san_jax.runtimes.interface import FEATS, normalised_nchw
from san_jax.scoring import evaluation
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet

PAGE = Path(__file__).parent.parent / "docs" / "deploy.md"
REPORT = "exports.json"
START = "<!-- scores, written by python -m benchmarks.exports --table -->"


def main() -> None:
    """Scores all files, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--checkpoint", default="rendered-small", help="the network: a run, a file of weights, a name")
    add("--data", default="synthetic_reid/small", help="a test set")
    add("--data_dir", default="data", help="folder of the prepared data sets")
    add("--out", type=new_folder, default="docs/measured", help="folder of the report")
    add("--table", action="store_true", help="only write the table of docs/deploy.md from the report")
    flags = parser.parse_args()
    if not flags.table:
        try:
            report = measure(flags.checkpoint, flags.data, flags.data_dir)
        except UserError as error:
            parser.error(str(error))
        (flags.out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    else:
        PAGE.write_text(table.replaced(PAGE.read_text(), START, table_of(json.loads((flags.out / REPORT).read_text()))))


def measure(checkpoint: str, data: str, data_dir: str) -> dict[str, Any]:
    """The report."""
    model = san_jax.load(checkpoint)
    splits = [common.open_source(data, split, data_dir=data_dir, manual_dir="") for split in ("query", "gallery")]
    test = RetrievalSet(data, *splits)
    pictures = [pictures_of(split, model) for split in splits]
    ours = RetrievalFeats(*(model.features(one) for one in pictures))
    rows = [{"file": "san_jax", **scores_of(ours, test, model)}]
    print(rows[-1], flush=True)
    for precision in exporting.PRECISIONS:
        rows.append({"file": precision, **row_of(model, test, pictures, ours, precision=precision)})
        print(rows[-1], flush=True)
    versions = {name: metadata.version(name) for name in ("jax", "onnx", "onnxruntime")}
    about = {"date": time.strftime("%Y-%m-%d"), "cpu": describe_cpu(), "versions": versions}
    return about | {"checkpoint": checkpoint, "data": data, "measurements": rows}


def pictures_of(source: Source, model: Model) -> np.ndarray:
    """All pictures of a split in the network's size, uint8 [n H W 3]."""
    size = dict(height=model.architecture.height, width=model.architecture.width)
    return np.stack([picture_folder.decode(source[row]["image"], **size) for row in range(len(source))])


def row_of(
    model: Model, test: RetrievalSet, pictures: list[np.ndarray], ours: RetrievalFeats, *, precision: str
) -> dict[str, Any]:
    """Scores of one file, its size, and how near its features are to ours."""
    size = dict(height=model.architecture.height, width=model.architecture.width)
    calibration = rendered(**size) if precision == "int8" else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{precision}.onnx")
        exported = san_jax.export(model, path, precision=precision, calibration=calibration)
        run = onnx_file.runner(path)
        found = [np.concatenate([run(normalised_nchw(one[None]))[FEATS] for one in split]) for split in pictures]
    pairs = zip(found, ours, strict=True)
    nearest = min(float(checks.cosines(*(one.astype(np.float64) for one in pair)).min()) for pair in pairs)
    return {"bytes": exported.size, "least_cosine": nearest, **scores_of(RetrievalFeats(*found), test, model)}


def scores_of(feats: RetrievalFeats, test: RetrievalSet, model: Model) -> dict[str, float]:
    """rank-1 and mAP of features."""
    scores = evaluation.score(feats, test, metric="market1501", mesh=model.mesh)
    return {name: scores[name] for name in ("rank1", "mAP")}


def table_of(report: dict[str, Any]) -> str:
    """A line for each file, and before them what was measured where."""
    cpu, versions = report["cpu"], ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [["file", "MB", "least cosine", "rank-1", "mAP"], ["---"] * 5]
    for row in report["measurements"]:
        size = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else "-"
        cosine = f"{row['least_cosine']:.6f}" if "bytes" in row else "-"
        lines.append([row["file"], size, cosine, f"{100 * row['rank1']:.1f}", f"{100 * row['mAP']:.2f}"])
    about = f"`{report['checkpoint']}` on `{report['data']}`, {report['date']}, {cpu['name']}, {versions}"
    return f"{about} ([JSON](measured/exports.json)):\n\n{table.markdown(lines)}"


if __name__ == "__main__":
    main()
