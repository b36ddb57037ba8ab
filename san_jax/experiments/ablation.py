"""Ablation of SAN's parts, as in the paper's Table 1: trains each variant from several seeds; one JSON file per run.

    python -m san_jax.experiments.ablation --workdir=runs/ablation --results=docs/measured/ablation
    python -m san_jax.experiments.ablation_table docs/ablation.md

A variant is a choice of SAN's parts and a start: `baseline_random` starts from random weights, `all_pg` from those of
SAN-PG. One texture generator draws the textures for all variants but those with true textures. A run is scored once, at
its end. A run whose file exists is not trained again, and a killed run resumes from its newest checkpoint. Once the
data are prepared, several commands with the same folders may share the variants and seeds among them.
"""

import datetime
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy.stats import entropy

from san_jax import devices, files
from san_jax.commands import common, config_file
from san_jax.errors import UserError
from san_jax.experiments import chain, comparison
from san_jax.report import event_files
from san_jax.scoring import evaluation
from san_jax.training import config_fields, run_config
from san_jax.weights import stored

PAIRS = 8  # in a batch, for variants with PIT pictures; the paper does not give a number
TRUE_TEXTURES = "true_textures"
PARTS: Mapping[str, Mapping[str, Any]] = {  # the fields of the shared config that each choice of parts changes
    "baseline": {"mode": "baseline"},
    "reconstruction": {"loss.texture_triplets": 0.0},
    "triplets": {},
    "pit": {"loss.texture_triplets": 0.0, "batch.pit_pictures": PAIRS},
    "all": {"batch.pit_pictures": PAIRS},
    TRUE_TEXTURES: {"batch.pit_pictures": PAIRS},
}
SEEDS = 0, 1, 2, 3, 4
PLACES = ("data.data_dir", "data.manual_dir")  # fields that name folders and do not affect the results


def run_ablation(
    config: ConfigDict, workdir: Path, *, seeds: Sequence[int], results: Path, variants: Sequence[str] = ()
) -> None:
    """Trains and scores all the variants from the first seed, then from the next one.

    Args:
      config: a config like that of configs/ablation.py.
      workdir: folder of all runs and their data.
      seeds: seeds of weights, batches and augmentation.
      results: folder of the JSON files with the scores.
      variants: names of the variants to train; by default all, PART_START for each of PARTS and of the config's starts.

    Raises:
      UserError: a part of the config is missing or has a value that is not allowed, there is no such variant, a run
        fails, or a file in `results` belongs to another run.
    """
    if (starts := config.get("starts")) is None:
        raise UserError("the config has no part starts; use one like configs/ablation.py")
    chain.check_parts(config)
    check_starts(config.san, starts)
    known = variants_of(starts)
    if unknown := [variant for variant in variants if variant not in known]:
        raise UserError(f"there is no variant {unknown[0]}; there are {', '.join(known)}")
    variants = variants or known
    total = 2 + len(seeds) * len(variants)
    shared, _, true_textures = chain.prepare(config, workdir, total=total)
    for number, (seed, variant) in enumerate(itertools.product(seeds, variants), start=3):
        place = workdir / variant / str(seed)
        chain.stage(number, total, f"{variant}, seed {seed}", place)
        fields = fields_of(variant, starts) | {"seed": seed}
        if variant.startswith(TRUE_TEXTURES):
            fields["data.train"] = true_textures
        train_and_score(shared, fields, place, variant=variant, results=results)


def check_starts(san: ConfigDict, starts: ConfigDict) -> None:
    """Raises a UserError if a start changes a field of `san`'s config to a value that is not allowed."""
    for start, changes in starts.items():
        config = ConfigDict(san.to_dict())
        config.update_from_flattened_dict(flatten_dict(changes.to_dict(), sep="."))
        config_fields.check(config, where=f"starts.{start}.")


def variants_of(starts: ConfigDict) -> list[str]:
    """The names of all variants: each of PARTS from each start."""
    return [f"{part}_{start}" for start in starts for part in PARTS]


def fields_of(variant: str, starts: ConfigDict) -> dict[str, Any]:
    """The fields of the shared config that a variant changes, dotted name -> value.

    Args:
      variant: its name, PART_START.
      starts: for each start, the part of `san`'s config that it changes.
    """
    part, _, start = variant.rpartition("_")
    return dict(PARTS[part]) | flatten_dict(starts[start].to_dict(), sep=".")


def train_and_score(
    shared: ConfigDict, fields: Mapping[str, Any], workdir: Path, *, variant: str, results: Path
) -> None:
    """Trains one variant from one seed and writes RESULTS/VARIANT_SEED.json, unless this file exists.

    Args:
      shared: the config that all variants share.
      fields: dotted name -> value of each field that differs from it.
      workdir: of the run.
      variant: name of the variant.
      results: folder of the JSON files with the scores.

    Raises:
      UserError: the file exists and belongs to a run with another config.
    """
    config = ConfigDict(shared.to_dict())
    config.update_from_flattened_dict(dict(fields))
    path = results / f"{variant}_{config.seed}.json"
    about = {name: value for name, value in flattened(config).items() if name not in PLACES}
    if path.exists():
        old = config_of(path)
        if changed := [name for name in {**about, **old} if old.get(name) != about.get(name)]:
            names = ", ".join(changed)
            raise UserError(f"{path} is of a run with another {names}; delete it or give another folder by --results")
        return
    whole, started = stored.newest(workdir) is None, time.monotonic()
    common.train(config, workdir)
    seconds = time.monotonic() - started
    scores = score(config, workdir, devices.make_mesh())
    if jax.process_index() == 0:
        report = {
            "variant": variant,
            "seed": config.seed,
            "scores": scores,
            "losses": last_losses(workdir),
            "id_floor": id_floor(config),
            "recon_over_constant": event_files.over_constant(workdir / "events", sys.maxsize),  # null: no decoder
            "seconds": round(seconds) if whole else None,  # of training and reading data; unknown if the run was killed
            "device": jax.devices()[0].device_kind,
            "date": datetime.date.today().isoformat(),
            "jax": jax.__version__,
            "config": about,
        }
        files.write(path, json.dumps(report, indent=2) + "\n")


def config_of(path: Path) -> dict[str, Any]:
    """The config in a run's JSON file, as dotted name -> value.

    Raises:
      UserError: the file cannot be read or holds no config.
    """
    try:
        return flatten_dict(run_config.LATER, sep=".") | dict(files.read_json(path)["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{path} is not a result of the ablation ({error})"
        raise UserError(f"{reason}; delete it and start the ablation again") from error


def flattened(config: ConfigDict) -> dict[str, Any]:
    """The fields of a config, dotted name -> value, with values as they are read back from JSON."""
    return flatten_dict(json.loads(config.to_json()), sep=".")


def score(config: ConfigDict, workdir: Path, mesh: Mesh) -> dict[str, float]:
    """Scores of a run's newest checkpoint on the first test set of its config, as fractions."""
    test = common.open_test_sets(config.data, same_camera=config.scoring.same_camera)[0]
    found = comparison.features(workdir, config, test, mesh)
    scores = evaluation.score_feats(*found, test, metric=config.scoring.metric, mesh=mesh)
    return evaluation.in_numbers(scores)


def id_floor(config: ConfigDict) -> float:
    """The ID loss of the best possible logits, above 0 because of label smoothing: the entropy of its targets."""
    people = len(np.unique(common.open_training_set(config.data).pids))
    spread = config.loss.label_smoothing / people
    targets = np.array([1 - config.loss.label_smoothing + spread] + (people - 1) * [spread])
    return float(entropy(targets))


def last_losses(workdir: Path) -> dict[str, float]:
    """Mean of each loss over the last sixth of a run, from its event files."""
    losses = {}
    for tag, values in event_files.read_scalars(workdir / "events").items():
        kind, _, name = tag.partition("/")
        if kind == "loss":
            last = max(values)
            losses[name] = float(np.mean([value for step, value in values.items() if step > last - max(last / 6, 1)]))
    return losses


if __name__ == "__main__":
    CONFIG = config_file.define("configs/ablation.py", "The config that all variants share.")
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything that the runs write.", required=True)
    RESULTS = flags.DEFINE_string("results", "docs/measured/ablation", "Folder for the scores, one JSON file per run.")
    CHOSEN = flags.DEFINE_multi_integer("seed", list(SEEDS), "Seed of weights and batches")
    WANTED = flags.DEFINE_multi_string("variant", [], "Variant to train, such as baseline_pg. Default: all.")

    def main() -> None:
        """Runs the ablation that the flags describe."""
        wanted = dict(seeds=CHOSEN.value, variants=WANTED.value)
        run_ablation(CONFIG.value, Path(WORKDIR.value), results=Path(RESULTS.value), **wanted)

    common.run_command(main)
