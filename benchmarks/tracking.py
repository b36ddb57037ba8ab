"""What an exported network contributes to the trackers of BoxMOT, in rendered crowds.

    python -m benchmarks.tracking --boxmot_python=PATH/bin/python --out=runs/tracking

PATH is an environment of its own: `python3 -m venv PATH`, then `PATH/bin/pip install "boxmot[onnx]" motmetrics`.
Renders crowds and gives their true boxes to the trackers as detections, so that only the association is measured: with
the network exported to ONNX, with the same network from random weights, and without a network. The boxes of people of
whom enough is visible are all of the truth: a tracker that gives each of them the right id has 100 %. A second call
goes on. Writes tracking.json; prints the tables of docs/deploy.md.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from scipy import stats

import san_jax
from benchmarks import crowds
from benchmarks.case import describe_cpu, new_folder
from benchmarks.table import markdown
from san_jax import files
from san_jax.data import crops
from san_jax.data.crops import Crops, Wanted
from san_jax.errors import UserError
from san_jax.gallery import embedding
from san_jax.model import ENCODER, Model
from san_jax.networks import architecture

ROOT = Path(__file__).parent.parent
SIDE = "benchmarks.boxmot_trackers"
NEEDED = ("torch", "boxmot", "onnxruntime", "motmetrics")  # by the other side
FIRST_SEED, CAMERAS = 20, 6  # no set that the networks in the package were trained on has these seeds
NONE, RANDOM, TRAINED = "none", "random weights", "trained"
SHOWN = ("idf1", "mota", "num_switches")  # in the table
COUNTS = ("num_switches",)  # not shares
# Trackers of BoxMOT that use a network, with its own settings.
TRACKERS = {"botsort": {}, "deepocsort": {}, "strongsort": {}}


class Setting(NamedTuple):
    """A crowd, and how often trackers see it.

    Attributes:
      people: number of people.
      every: trackers get every n-th frame; five a second are rendered.
    """

    people: int
    every: int


# Six and sixteen people were chosen by trackers without a network in 60 frames of seed 90: 33 to 67 % IDF1.
SETTINGS = {
    "3 people, 5 frames/s": Setting(people=3, every=1),
    "6 people, 5 frames/s": Setting(people=6, every=1),
    "16 people, 5 frames/s": Setting(people=16, every=1),
    "6 people, 2.5 frames/s": Setting(people=6, every=2),
}
WANTED = Wanted(min_visible=0.3)  # people of whom less is visible are not detected


def main() -> None:
    """Renders, exports and tracks what is missing; a UserError is one line."""
    try:
        measure(parse_flags())
    except UserError as error:
        sys.exit(f"error: {error}")


def measure(flags: argparse.Namespace) -> None:
    """Renders, exports and tracks what is missing, writes tracking.json."""
    model = san_jax.load(flags.checkpoint)
    networks = export(flags.out, model)
    seeds = range(FIRST_SEED, FIRST_SEED + flags.seeds)
    found, alike = {name: [] for name in SETTINGS}, []
    for seed in seeds:
        for name, setting in SETTINGS.items():
            place = flags.out / f"people{setting.people}"
            folder = crowds.render(place, seed, camera_of(seed), people=setting.people, frames=flags.frames)
            people = crops.in_boxes(folder, folder / "gt.txt", wanted=WANTED)
            job = {"frames": frames_of(people, folder, every=setting.every), "trackers": TRACKERS, "networks": networks}
            path = place / f"seed{seed}_every{setting.every}.json"
            found[name].append(run(flags.boxmot_python, path, job))
            if setting.every == 1:
                alike.append(likeness(model, people, path.with_suffix(".npz")))
            print(f"seed {seed}, {name}: {found[name][-1]['scores']}", flush=True)
    [versions] = {tuple(one["versions"].items()) for of_setting in found.values() for one in of_setting}
    report = {
        "date": time.strftime("%Y-%m-%d"), "cpu": describe_cpu(), "versions": {"jax": jax.__version__} | dict(versions),
        "checkpoint": flags.checkpoint, "frames": flags.frames, "seeds": list(seeds),
        "cameras": [*map(camera_of, seeds)], "trackers": TRACKERS, "min_visible": WANTED.min_visible,
        "settings": {name: setting._asdict() for name, setting in SETTINGS.items()},
        "boxes": {name: [one["boxes"] for one in of_setting] for name, of_setting in found.items()},
        "likeness": alike, **collected(found),
    }  # fmt: skip
    (flags.out / "tracking.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table(report), gains(report), sep="\n\n")


def parse_flags(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line, or `words`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=new_folder, default="runs/tracking")
    parser.add_argument("--boxmot_python", type=side, required=True, help="interpreter of an environment with BoxMOT")
    parser.add_argument("--checkpoint", default="rendered-small")
    parser.add_argument("--seeds", type=int, default=6, help="crowds in a setting; at least 2")
    parser.add_argument("--frames", type=int, default=100, help="rendered of each crowd, five a second")
    return parser.parse_args(words)


def side(python: str) -> str:
    """The interpreter of an environment with all of NEEDED, for argparse; or an error that says what it lacks."""
    look = f"import importlib.util as u; print(*[name for name in {NEEDED} if u.find_spec(name) is None])"
    way_out = "give the interpreter of an environment with boxmot[onnx] and motmetrics"
    try:
        done = subprocess.run([python, "-c", look], capture_output=True, text=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{python} cannot be started ({error.strerror}); {way_out}") from error
    if done.returncode or done.stdout.strip():
        missing = ", ".join(done.stdout.split())
        why = f"has no {missing}" if missing else "is no Python that can be asked"
        raise argparse.ArgumentTypeError(f"{python} {why}; {way_out}")
    return python


def camera_of(seed: int) -> int:
    """Which of a world's cameras sees the crowd, from 1."""
    return 1 + seed % CAMERAS


def frames_of(people: Crops, folder: Path, *, every: int) -> list[dict[str, Any]]:
    """Every n-th frame of a crowd with the boxes in it and their ids, as the other side reads them.

    Args:
      people: the boxes, as `crops.in_boxes` returns them: whole pixels inside the frame.
      folder: all frames, those without boxes included.
      every: n.
    """
    rows = {path: {"picture": str(path.absolute()), "boxes": [], "people": []} for path in sorted(folder.glob("*.jpg"))}
    for crop in people.crops:
        rows[crop.frame.path]["boxes"].append(list(crop.box))
        rows[crop.frame.path]["people"].append(int(crop.track))
    return list(rows.values())[::every]


def export(out: Path, model: Model) -> dict[str, str | None]:
    """The ONNX files of the network and of its random counterpart by name, exported if they are missing; and none."""
    paths = {NONE: None}
    for name, one in ((RANDOM, with_random_weights(model)), (TRAINED, model)):
        path = out / f"network_{one.digest(*ENCODER)[:12]}.onnx"
        if not path.exists():
            san_jax.export(one, path)
        paths[name] = str(path)
    return paths


def with_random_weights(model: Model) -> Model:
    """The same encoder before its training."""
    weights = architecture.arrays_of(model.architecture.new_encoder(nnx.Rngs(0)))
    return dataclasses.replace(model, mode="baseline", weights=dict(zip(ENCODER, weights, strict=True)))


def run(python: str, path: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """What the other side finds for a job, and the number of boxes; read from `path` if it was the same job.

    Raises:
      UserError: the other side failed; the message ends with its last line.
    """
    kept = files.read_json(path) if path.exists() else {}
    if kept.get("job") == job:
        return kept
    job_file = path.with_name(f"{path.stem}_job.json")
    job_file.write_text(json.dumps(job))
    path.unlink(missing_ok=True)
    words = [python, "-m", SIDE, job_file.absolute(), path.absolute()]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise UserError(f"{python} -m {SIDE} {job_file} failed: {said[0]}")
    found = json.loads(path.read_text())
    found |= {"boxes": sum(len(frame["boxes"]) for frame in job["frames"]), "job": job}
    files.write(path, json.dumps(found))
    return found


def likeness(model: Model, people: Crops, path: Path) -> dict[str, float]:
    """Cosines between the features of the same boxes here and in BoxMOT, which scales pictures without antialiasing.

    Args:
      model: the network that was exported.
      people: boxes in every frame of a crowd.
      path: of what the other side found for them.
    """
    _, ours, _ = embedding.embed_all(model, people)
    theirs = np.load(path)[TRAINED]
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1)
    return {"mean": float(cosines.mean()), "least": float(cosines.min()), "boxes": len(cosines)}


def collected(found: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Scores and distances as lists over the crowds; means, intervals, and gains over the others crowd by crowd.

    Args:
      found: what `run` returned for each crowd, by the setting.
    """
    scores, summary, distances = {}, {}, {}
    for name, of_setting in found.items():
        distances[name] = {network: [one["distances"][network] for one in of_setting] for network in (RANDOM, TRAINED)}
        scores[name], summary[name] = {}, {}
        for tracker, networks in of_setting[0]["scores"].items():
            by_network = {
                network: {score: [one["scores"][tracker][network][score] for one in of_setting] for score in of_network}
                for network, of_network in networks.items()
            }
            scores[name][tracker] = by_network
            summary[name][tracker] = {network: summarised(one) for network, one in by_network.items()}
            summary[name][tracker]["gain"] = {
                f"over {network}": summarised(differences(by_network[TRAINED], one))
                for network, one in by_network.items()
                if network != TRAINED
            }
    return {"scores": scores, "summary": summary, "distances": distances}


def differences(ours: Mapping[str, Sequence[float]], others: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """One list less the other, crowd by crowd, for each score."""
    return {score: np.subtract(values, others[score]).tolist() for score, values in ours.items()}


def summarised(scores: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Mean, half of Student's 95 % interval of the mean, least and largest value of each score in SHOWN."""
    found = {}
    for name in SHOWN:
        values = np.array(scores[name])
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        found[name] = {"mean": values.mean(), "half": half, "least": values.min(), "largest": values.max()}
    return {name: {key: float(value) for key, value in one.items()} for name, one in found.items()}


def table(report: Mapping[str, Any]) -> str:
    """The table of docs/deploy.md: means and their intervals, and the range of IDF1; shares in %."""
    lines = [["boxes", "tracker", "network", "IDF1", "from, to", "MOTA", "ID switches"], ["---"] * 7]
    for setting, trackers in report["summary"].items():
        for tracker, networks in trackers.items():
            for network in (name for name in (NONE, RANDOM, TRAINED) if name in networks):
                one = networks[network]
                span = f"{100 * one['idf1']['least']:.1f}, {100 * one['idf1']['largest']:.1f}"
                shown = {NONE: "none", TRAINED: f"`{report['checkpoint']}`"}.get(network, network)
                idf1, mota, switches = (cell(one, score) for score in SHOWN)
                lines.append([setting, tracker, shown, idf1, span, mota, switches])
    return markdown(lines)


def gains(report: Mapping[str, Any]) -> str:
    """The second table: the network's gain over the others, mean and interval of the differences crowd by crowd."""
    lines = [["boxes", "tracker", "over", "IDF1", "MOTA", "ID switches"], ["---"] * 6]
    for setting, trackers in report["summary"].items():
        for tracker, networks in trackers.items():
            for over, one in networks["gain"].items():
                differs = (cell(one, score, "+") for score in SHOWN)
                lines.append([setting, tracker, over.removeprefix("over "), *differs])
    return markdown(lines)


def cell(one: Mapping[str, Mapping[str, float]], score: str, sign: str = "") -> str:
    """Mean and half of the interval."""
    unit = 1 if score in COUNTS else 100
    return f"{unit * one[score]['mean']:{sign}.1f} ± {unit * one[score]['half']:.1f}"


if __name__ == "__main__":
    main()
