"""Scores a run: rank-1, 5, 10, 20, mAP and mINP of its encoder alone, as a table and in WORKDIR/scores.json.

A texture generator (mode san_pg) is scored by L1, PSNR and SSIM of held-out pairs.

    python eval.py --workdir=runs/san                                  # the newest checkpoint
    python eval.py --workdir=runs/san --best --metric=cuhk03           # the best one, single-gallery-shot
    python eval.py --workdir=runs/san --data=cuhk03/detected           # on another test set
    python eval.py --workdir=runs/san --data=cuhk03/labeled_classic:all --metric=cuhk03     # mean over its 20 sets
    python eval.py --workdir=runs/san --flip --rerank --tpr            # mirror images, k-reciprocal re-ranking, TPR
    python eval.py --workdir=runs/san --report                         # and WORKDIR/report.html, a page that shows it
"""

import json
from pathlib import Path

import jax
from absl import flags

from san_jax import commands, devices, files
from san_jax.errors import UserError
from san_jax.scoring import evaluation, report
from san_jax.training import checkpoints, run, run_config
from san_jax.training.train_step import Networks

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Score this checkpoint, or the newest of this run, instead.")
BEST = flags.DEFINE_bool("best", False, "Score the best checkpoint by mAP, a generator's by L1, instead of the newest.")
METRIC = flags.DEFINE_enum("metric", None, evaluation.METRICS, "Default: the config's scoring.metric.")
DATA = flags.DEFINE_string("data", None, "Test sets, separated by commas. Default: the config's.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Default: the config's data.manual_dir.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Default: the config's data.data_dir.")
FLIP = flags.DEFINE_bool("flip", False, "Features are means over a picture and its mirror image.")
AQE = flags.DEFINE_bool("aqe", False, "Average query expansion: ask again with a query's five nearest pictures.")
RERANK = flags.DEFINE_bool("rerank", False, "Re-rank by k-reciprocal neighbours (k1 20, k2 6, lambda 0.3).")
TPR = flags.DEFINE_bool("tpr", False, "Also the TPR at FPR 1e-2, 1e-3 and 1e-4 over all pairs of pictures.")
REPORT = flags.DEFINE_flag(
    flags.Flag(
        flags.ArgumentParser(),
        flags.ArgumentSerializer(),
        "report",
        "false",
        "Write one page of scores, curves and pictures: --report for WORKDIR/report.html, or --report=FILE.",
        boolean=True,  # stands alone, too; its value is then "true"
    )
)


def main() -> None:
    """Scores one checkpoint on one or several test sets."""
    workdir = Path(WORKDIR.value)
    config = run_config.read(workdir)
    for field, flag in (("test", DATA), ("manual_dir", MANUAL_DIR), ("data_dir", DATA_DIR)):
        config.data[field] = config.data[field] if flag.value is None else flag.value
    config.scoring.metric = METRIC.value or config.scoring.metric
    checkpoint, mesh = checkpoints.find(Path(CHECKPOINT.value or workdir), best=BEST.value), devices.make_mesh()
    networks = Networks(config.mode, checkpoints.read_architecture(checkpoint), config.compute_dtype)
    search = evaluation.Search(expand=AQE.value, rerank=RERANK.value)
    given = [flag.name for flag in (METRIC, FLIP, AQE, RERANK, TPR) if flag.value]
    if given and not networks.learns_people:
        raise UserError(f"--{given[0]} is of people; {workdir} is a texture generator, scored by L1, PSNR and SSIM")
    if REPORT.value != "false" and search != evaluation.PLAIN:
        raise UserError("--report shows what plain features find; leave out --aqe and --rerank, or --report")
    test_sets = commands.open_scored_sets(config)
    place = {"true": workdir / "report.html", "false": None}.get(REPORT.value, Path(REPORT.value))
    draws = networks.draws and (place is not None or not networks.learns_people)
    weights, step = checkpoints.restore_networks(checkpoint, devices.replicated(mesh), draws=draws)
    options = dict(mesh=mesh, search=search, mirror=FLIP.value, tpr=TPR.value)
    scoring = run.make_scoring(config, networks, test_sets=test_sets, **options)
    scores = scoring.score(weights).scores
    if jax.process_index() == 0:
        sets = scores | evaluation.means_of_variants(scores)
        print(f"{checkpoint}, {scoring.units}\n{scoring.as_table(sets)}")
        main_set = test_sets[0].name if len(sets) == len(scores) else list(sets)[-1]
        summary = {**sets[main_set], "metric": scoring.metric, "data": main_set, "step": step, "sets": sets}
        summary |= {name: True for name in given if name != "metric"}
        files.write(workdir / "scores.json", json.dumps(summary, indent=2) + "\n")
    if place is not None:
        page = report.page(
            config,
            weights,
            architecture=networks.architecture,
            workdir=workdir,
            checkpoint=checkpoint,
            step=step,
            sets=test_sets,
            scores=scores,
            mesh=mesh,
            mirror=FLIP.value,
        )
        if jax.process_index() == 0:
            files.write(place, page)
            print(f"{place} shows it")


if __name__ == "__main__":
    commands.run(main)
