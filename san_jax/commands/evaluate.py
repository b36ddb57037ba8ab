"""Scores a network: rank-1, 5, 10, 20, mAP and mINP of its encoder alone, as a table and in WORKDIR/scores.json.

A texture generator (mode san_pg) is scored by L1, PSNR and SSIM of held-out pairs.

    python eval.py --workdir=runs/san                                  # the newest checkpoint
    python eval.py --workdir=runs/san --best --metric=cuhk03           # the best one, single-gallery-shot
    python eval.py --workdir=runs/san --data=cuhk03/detected           # on another test set
    python eval.py --workdir=runs/san --data=cuhk03/labeled_classic:all --metric=cuhk03     # mean over its 20 sets
    python eval.py --workdir=runs/san --flip --rerank --tpr            # mirror images, k-reciprocal re-ranking, TPR
    python eval.py --workdir=runs/san --same_camera=keep               # sets of one camera: all but the query itself
    python eval.py --workdir=runs/san --report                         # and WORKDIR/report.html, a page that shows it
    python eval.py --checkpoint=san.safetensors --data=cuhk03/labeled  # weights from anywhere, without a run
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from san_jax import files
from san_jax import model as models
from san_jax.batch import Source
from san_jax.commands import common
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.report import report
from san_jax.scoring import evaluation, texture_scores
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet, Search
from san_jax.training import config_fields, run_config

# What a run's config would say, for weights without a run.
WITHOUT_RUN = {
    "compute_dtype": "float32",
    "data": {"train": "", "test": "", "manual_dir": "", "data_dir": "data", "workers": 2},
    "scoring": {"metric": "market1501", "same_camera": "remove", "batch_size": 100},
}

OF_RUN = ("seed", *flatten_dict(WITHOUT_RUN, sep="."))  # what is read of a run's config


def score_sets(
    model: Model, sets: Sequence[str] | str, *, data_dir: str | os.PathLike, manual_dir: str | os.PathLike, metric: str
) -> dict[str, dict[str, float]]:
    """Scores by test set; arguments and errors as of `san_jax.evaluate`."""
    names = ",".join(common.names(sets if isinstance(sets, str) else ",".join(sets), field="sets"))
    data = ConfigDict(dict(test=names, data_dir=os.fspath(data_dir), manual_dir=os.fspath(manual_dir)))
    # No worker processes: they would import a script that calls this, and run it again where it has no main guard.
    return Scorer(metric=metric, workers=0).score(model, common.open_scored(data, mode=model.mode)).scores


@dataclasses.dataclass(frozen=True)
class Scorer:
    """How a network is scored.

    Attributes:
      metric: one of `evaluation.METRICS`.
      search: what is made of the features.
      flip: whether features are means over a picture and its mirror image.
      tpr: whether to give the TPR of all pairs.
      batch_size: pictures at once, over all devices.
      workers: processes that read and decode; 0 = this one.
      keeps_feats: whether the features are wanted too.
    """

    metric: str = "market1501"
    search: Search = evaluation.PLAIN
    flip: bool = False
    tpr: bool = False
    batch_size: int = 100
    workers: int = 2
    keeps_feats: bool = False

    def score(self, model: Model, sets: Sequence[RetrievalSet] | Sequence[Source]) -> "Scored":
        """Scores on one set or more, each by itself."""
        options = dict(batch_size=self.batch_size, workers=self.workers)
        if model.mode == "san_pg":
            return Scored(texture_scores.evaluate(model, sets, **options)[0], {}, {})
        evaluation.check_metric(self.metric)
        found = Scored({}, {}, {})
        for test in sets:
            evaluation.check_matches(test)
        for test in sets:
            feats = evaluation.features(model, test, flip=self.flip, **options)
            how = dict(metric=self.metric, mesh=model.mesh, search=self.search)
            found.scores[test.name] = evaluation.score(feats, test, **how)
            if self.tpr:
                verified = evaluation.verify(feats, test, mesh=model.mesh, distance=self.search.distance)
                found.scores[test.name] |= verified.scores
                found.thresholds[test.name] = verified.thresholds
            if self.keeps_feats:
                found.feats[test.name] = feats
        return found


class Scored(NamedTuple):
    """What is known of a network, by test set: its scores, thresholds by FPR, and the features that were scored."""

    scores: dict[str, dict[str, float]]
    thresholds: dict[str, dict[str, float]]
    feats: dict[str, RetrievalFeats]


def main() -> None:
    """The command; its flags are defined here, so that who imports this module does not get them."""
    text, flag = flags.DEFINE_string, flags.DEFINE_bool
    given = {
        "workdir": text("workdir", None, "Folder of the run."),
        "checkpoint": text("checkpoint", None, "Score this run's newest, checkpoint or file of weights instead."),
        "best": flag("best", False, "The best checkpoint by mAP, of a generator by L1, instead of the newest."),
        "metric": flags.DEFINE_enum("metric", None, evaluation.METRICS, "Default: the config's scoring.metric."),
        "same_camera": flags.DEFINE_enum(
            "same_camera",
            None,
            evaluation.SAME_CAMERA,
            "Gallery pictures of a query's person by its own camera: remove them, or keep all but the very same "
            "picture. Default: the config's scoring.same_camera.",
        ),
        "data": text("data", None, "Test sets, separated by commas. Default: the config's."),
        "manual_dir": text("manual_dir", None, "Default: the config's data.manual_dir."),
        "data_dir": text("data_dir", None, "Default: the config's data.data_dir."),
        "height": flags.DEFINE_integer("height", None, "Of the pictures, where a file of weights does not say it."),
        "width": flags.DEFINE_integer("width", None, "Of the pictures, where a file of weights does not say it."),
        "flip": flag("flip", False, "Features are means over a picture and its mirror image."),
        "aqe": flag("aqe", False, "Average query expansion: ask again with a query's five nearest pictures."),
        "rerank": flag("rerank", False, "Re-rank by k-reciprocal neighbours (k1 20, k2 6, lambda 0.3)."),
        "tpr": flag("tpr", False, "Also the TPR at FPR 1e-2, 1e-3 and 1e-4 over all pairs, and their thresholds."),
        "report": flag("report", False, "Also write a page of scores, curves and pictures, WORKDIR/report.html."),
        "report_file": text("report_file", None, "Write that page here."),
        "output": text("output", None, "JSON file for the scores. Default: WORKDIR/scores.json."),
    }
    common.run_command(lambda: evaluate({name: holder.value for name, holder in given.items()}), module=__name__)


def evaluate(given: Mapping[str, Any]) -> None:
    """Scores what the flags say, prints the table, writes scores and page."""
    workdir, config = run_of(given)
    options = {name: given[name] for name in ("height", "width")}
    model = models.load(given["checkpoint"] or workdir, best=given["best"], **options)
    model = dataclasses.replace(model, compute_dtype=config.compute_dtype)
    places = places_of(given, workdir, model)
    scorer = scorer_of(given, config, model, pages=places.report is not None)
    sets = common.open_scored(config.data, mode=model.mode, same_camera=config.scoring.same_camera)
    scored = scorer.score(model, sets)
    shown = scored.scores | evaluation.means_of_variants(scored.scores)
    if jax.process_index() == 0:
        generates = model.mode == "san_pg"
        kept = " with the same camera kept" if config.scoring.same_camera == "keep" else ""
        units = texture_scores.UNITS if generates else f"{scorer.metric} metric{kept}, in percent"
        lines = [(texture_scores if generates else evaluation).as_table(shown)]
        if not generates:
            lines += evaluation.remarks(sets)
            shown = evaluation.with_counts(shown, sets)
        print("\n".join([f"{model.source}, {units}", *lines]))
        if places.scores is not None:
            main_set = list(shown)[0 if len(shown) == len(sets) else -1]
            about = {"metric": "textures" if generates else scorer.metric, "data": main_set, "step": model.step}
            about |= {"checkpoint": model.source}
            about |= {} if generates else {"same_camera": config.scoring.same_camera}
            about |= {name: True for name in ("flip", "aqe", "rerank", "tpr") if given[name]}
            if sets[0].name in scored.thresholds:
                about["thresholds"] = scored.thresholds[sets[0].name]
            text = json.dumps({**shown[main_set], **about, "sets": shown}, indent=2)
            files.write(places.scores, text + "\n")
    if places.report is not None:
        page = report.page(config, model, workdir=workdir, sets=sets, scores=scored.scores, feats=scored.feats)
        if jax.process_index() == 0:
            files.write(places.report, page)
            print(f"{places.report} shows it")


def run_of(given: Mapping[str, Any]) -> tuple[Path | None, ConfigDict]:
    """The workdir, None without one, and its config, or the default one; both with what the flags change.

    Raises:
      UserError: neither a run nor weights are named, or weights alone and nothing to score them on.
    """
    workdir = Path(given["workdir"]) if given["workdir"] else None
    if workdir is None and not given["checkpoint"]:
        raise UserError("give --workdir, the folder of a run, or --checkpoint with --data")
    if workdir is None and not given["data"]:
        raise UserError("--checkpoint without --workdir needs --data, the names of test sets, as in cuhk03/labeled")
    config = ConfigDict(WITHOUT_RUN) if workdir is None else run_config.read(workdir)
    if workdir is not None:
        config_fields.check_some(config, OF_RUN, where=str(workdir / run_config.NAME))
    for field, name in (("test", "data"), ("manual_dir", "manual_dir"), ("data_dir", "data_dir")):
        config.data[field] = config.data[field] if given[name] is None else given[name]
    config.scoring.metric = given["metric"] or config.scoring.metric
    config.scoring.same_camera = given["same_camera"] or config.scoring.same_camera
    return workdir, config


@dataclasses.dataclass(frozen=True)
class Places:
    """Where scores and page go; None: nowhere."""

    scores: Path | None
    report: Path | None


def places_of(given: Mapping[str, Any], workdir: Path | None, model: Model) -> Places:
    """Where the flags say; a workdir's own files are of its own checkpoints alone.

    Raises:
      UserError: a page is wanted, and nobody says where; or the name of its file says that it is something else.
    """
    # Other things may lie in a workdir too: another run, or a file of weights.
    folder = Path(model.source).resolve().parent
    own = workdir is not None and folder in [workdir.resolve() / name for name in ("checkpoints", "best")]
    scores = Path(given["output"]) if given["output"] else workdir / "scores.json" if own else None
    if given["report_file"]:
        page = Path(given["report_file"])
        if page.suffix.lower() not in (".html", ".htm", ""):
            raise UserError(f"--report_file is {page}, but the page is HTML; choose a name that ends in .html")
        return Places(scores, page)
    if given["report"] and not own:
        raise UserError(f"--report writes into the workdir of the run it shows; for {model.source} give --report_file")
    return Places(scores, workdir / "report.html" if given["report"] else None)


def scorer_of(given: Mapping[str, Any], config: ConfigDict, model: Model, *, pages: bool) -> Scorer:
    """How the flags and the config say it.

    Raises:
      UserError: flags that do not go together, or not with this network.
    """
    named = [name for name in ("metric", "same_camera", "flip", "aqe", "rerank", "tpr") if given[name]]
    if named and model.mode == "san_pg":
        raise UserError(f"--{named[0]} is of people; {model.source} is a texture generator, scored by L1, PSNR, SSIM")
    search = Search(expand=given["aqe"], rerank=given["rerank"])
    if pages and search != evaluation.PLAIN:
        raise UserError("--report shows what plain features find; leave out --aqe and --rerank, or --report")
    return Scorer(
        metric=config.scoring.metric,
        search=search,
        flip=given["flip"],
        tpr=given["tpr"],
        batch_size=config.scoring.batch_size,
        workers=config.data.workers,
        keeps_feats=pages,
    )


if __name__ == "__main__":
    main()
