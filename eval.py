"""Scores a run: rank-1, 5, 10, 20, mAP and mINP of its encoder alone, as a table and in WORKDIR/scores.json.

    python eval.py --workdir=runs/san                                  # the newest checkpoint
    python eval.py --workdir=runs/san --best --metric=cuhk03           # the best one, single-gallery-shot
    python eval.py --workdir=runs/san --data=cuhk03/detected           # on another test set
"""

import json
from pathlib import Path

import jax
from absl import flags

from san_jax import commands, devices, files
from san_jax.scoring import evaluation
from san_jax.scoring.feature_extraction import Extractor
from san_jax.training import checkpoints, run_config

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Score this checkpoint, or the newest of this run, instead.")
BEST = flags.DEFINE_bool("best", False, "Score the best checkpoint by mAP instead of the newest.")
METRIC = flags.DEFINE_enum("metric", None, evaluation.METRICS, "Default: the config's scoring.metric.")
DATA = flags.DEFINE_string("data", None, "Test sets, separated by commas. Default: the config's.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Default: the config's data.manual_dir.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Default: the config's data.data_dir.")


def main() -> None:
    """Scores one checkpoint on one or several test sets."""
    workdir = Path(WORKDIR.value)
    config = run_config.read(workdir)
    for field, flag in (("test", DATA), ("manual_dir", MANUAL_DIR), ("data_dir", DATA_DIR)):
        config.data[field] = config.data[field] if flag.value is None else flag.value
    checkpoint = checkpoints.find(Path(CHECKPOINT.value or workdir), best=BEST.value)
    metric, mesh = METRIC.value or config.scoring.metric, devices.make_mesh()
    test_sets = commands.open_test_sets(config.data)
    encoder, stats, step = checkpoints.restore_encoder(checkpoint, devices.replicated(mesh))
    extractor = Extractor(
        checkpoints.read_architecture(checkpoint),
        mesh,
        batch_size=config.scoring.batch_size,
        compute_dtype=config.compute_dtype,
        workers=config.data.workers,
    )
    scores = evaluation.evaluate(encoder, stats, test_sets, extractor=extractor, metric=metric)
    if jax.process_index() == 0:
        print(f"{checkpoint}, {metric} metric, in percent\n{evaluation.as_table(scores)}")
        first = test_sets[0].name
        report = {**scores[first], "metric": metric, "data": first, "step": step, "sets": scores}
        files.write(workdir / "scores.json", json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    commands.run(main)
