"""Trains SAN without each of its parts, from several seeds, as the paper's Table 1; a JSON file per run.

    python -m san_jax.experiments.ablation --workdir=runs/ablation --results=docs/measured/ablation
    python -m san_jax.experiments.ablation_table docs/ablation.md

One texture generator draws the textures of all variants but the last, which is told the true ones. A run is scored
once, at its end. What has its file is not trained again, and a killed run goes on where it was.
"""

import datetime
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from san_jax import commands, devices, event_files, files
from san_jax.errors import UserError
from san_jax.experiments import chain, comparison
from san_jax.scoring import evaluation
from san_jax.training import checkpoints

PAIRS = 8  # in a batch, where there are any; the paper does not say how many
TRUE_TEXTURES = "true_textures"
VARIANTS: Mapping[str, Mapping[str, Any]] = {  # fields of the shared config that a variant changes
    "baseline": {"mode": "baseline"},
    "reconstruction": {"loss.texture_triplets": 0.0},
    "triplets": {},
    "pit": {"loss.texture_triplets": 0.0, "batch.pit_pictures": PAIRS},
    "all": {"batch.pit_pictures": PAIRS},
    TRUE_TEXTURES: {"batch.pit_pictures": PAIRS},
}
PLACES = ("data.data_dir", "data.manual_dir")  # fields that say where things lie, not what they are


def run_ablation(
    config: ConfigDict, workdir: Path, *, seeds: Sequence[int], results: Path, variants: Sequence[str] = tuple(VARIANTS)
) -> None:
    """Some variants from the first seed, then from the next one.

    Args:
      config: as of configs/ablation.py.
      workdir: of all runs and their data.
      seeds: of weights, batches and augmentation.
      results: folder of the scores.
      variants: names of those wanted.
    """
    total = 2 + len(seeds) * len(variants)
    shared, true_textures = chain.prepare(config, workdir, total=total)
    for number, (seed, variant) in enumerate(itertools.product(seeds, variants), start=3):
        place = workdir / variant / str(seed)
        chain.stage(number, total, f"{variant}, seed {seed}", place)
        fields = {**VARIANTS[variant], "seed": seed}
        if variant == TRUE_TEXTURES:
            fields["data.train"] = true_textures
        train_and_score(shared, fields, place, variant=variant, results=results)


def train_and_score(
    shared: ConfigDict, fields: Mapping[str, Any], workdir: Path, *, variant: str, results: Path
) -> None:
    """Trains one variant from one seed and writes RESULTS/VARIANT_SEED.json, unless it is there.

    Args:
      shared: the config of all variants.
      fields: what differs, by dotted name.
      workdir: of the run.
      variant: its name.
      results: folder of the scores.

    Raises:
      UserError: the scores that are there are those of another config.
    """
    config = ConfigDict(shared.to_dict())
    config.update_from_flattened_dict(dict(fields))
    path = results / f"{variant}_{config.seed}.json"
    about = {name: value for name, value in flattened(config).items() if name not in PLACES}
    if path.exists():
        old = config_of(path)
        if changed := [name for name in {**about, **old} if old.get(name) != about.get(name)]:
            raise UserError(f"{path} is of a run with another {', '.join(changed)}; delete it or give other --results")
        return
    whole, started = checkpoints.newest(workdir) is None, time.monotonic()
    commands.train(config, workdir)
    seconds = time.monotonic() - started
    scores = score(config, workdir, devices.make_mesh())
    if jax.process_index() == 0:
        report = {
            "variant": variant,
            "seed": config.seed,
            "scores": scores,
            "losses": last_losses(workdir),
            "seconds": round(seconds) if whole else None,  # of training and data; unknown where a run was killed
            "device": jax.devices()[0].device_kind,
            "date": datetime.date.today().isoformat(),
            "jax": jax.__version__,
            "config": about,
        }
        files.write(path, json.dumps(report, indent=2) + "\n")


def config_of(path: Path) -> dict[str, Any]:
    """What a run's file says of its config.

    Raises:
      UserError: it says nothing.
    """
    try:
        return dict(json.loads(path.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no file of a run ({error}); delete it and start the ablation again") from error


def flattened(config: ConfigDict) -> dict[str, Any]:
    """Fields by dotted name, as JSON holds them."""
    return flatten_dict(json.loads(config.to_json()), sep=".")


def score(config: ConfigDict, workdir: Path, mesh: Mesh) -> dict[str, float]:
    """Scores of a run's newest checkpoint on its first test set, as fractions."""
    test = commands.open_test_sets(config.data)[0]
    found = comparison.features(workdir, config, test, mesh)
    scores = evaluation.score_feats(*found, test, metric=config.scoring.metric, mesh=mesh)
    return evaluation.in_numbers(scores)


def last_losses(workdir: Path) -> dict[str, float]:
    """Means of the losses over the last sixth of a run, as its event files have them."""
    losses = {}
    for tag, values in event_files.read_scalars(workdir / "events").items():
        kind, _, name = tag.partition("/")
        if kind == "loss":
            last = max(values)
            losses[name] = float(np.mean([value for step, value in values.items() if step > last - last / 6]))
    return losses


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", "configs/ablation.py", "What all variants share.")
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of everything that the runs leave behind.", required=True)
    RESULTS = flags.DEFINE_string("results", "docs/measured/ablation", "Folder of the runs' scores.")
    SEEDS = flags.DEFINE_multi_integer("seed", [0, 1, 2], "Of weights and batches; may come several times.")
    WANTED = flags.DEFINE_multi_enum("variant", list(VARIANTS), list(VARIANTS), "To train; may come several times.")

    def main() -> None:
        """The ablation of the command line."""
        wanted = dict(seeds=SEEDS.value, variants=WANTED.value)
        run_ablation(CONFIG.value, Path(WORKDIR.value), results=Path(RESULTS.value), **wanted)

    commands.run(main)
