"""Scores a model: rank-1, 5, 10, 20, mAP and mINP of its encoder, as a table and in WORKDIR/scores.json.

A texture generator (mode san_pg) is scored by L1, PSNR and SSIM on held-out pairs.

    python eval.py --workdir=runs/san                                  # the newest checkpoint
    python eval.py --workdir=runs/san --best --metric=cuhk03           # the best one, single-gallery-shot
    python eval.py --workdir=runs/san --data=cuhk03/detected           # on another test set
    python eval.py --workdir=runs/san --data=cuhk03/labeled_classic:all --metric=cuhk03     # mean over its 20 sets
    python eval.py --workdir=runs/san --flip --rerank --tpr            # mirror images, k-reciprocal re-ranking, TPR
    python eval.py --workdir=runs/san --same_camera=keep               # sets of one camera: all but the query itself
    python eval.py --workdir=runs/san --report                         # also a page with charts, WORKDIR/report.html
    python eval.py --checkpoint=san.safetensors --data=cuhk03/labeled  # weights without a run
    python eval.py --checkpoint=rendered-small --data=people.csv       # a list or folder of pictures of your own
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from san_jax import files, remote
from san_jax import model as models
from san_jax.batch import Source
from san_jax.commands import common
from san_jax.errors import UserError
from san_jax.model import Model
from san_jax.report import event_files, report
from san_jax.scoring import evaluation, texture_scores
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet, Search
from san_jax.training import config_fields, run_config
from san_jax.weights import stored

# Config values for weights without a run.
WITHOUT_RUN = {
    "compute_dtype": "float32",
    "onednn": False,
    "data": {"train": "", "test": "", "manual_dir": "", "data_dir": "data", "pattern": "", "workers": None},
    "scoring": {"metric": "market1501", "same_camera": "remove", "batch_size": 100},
}

OF_RUN = ("seed", *flatten_dict(WITHOUT_RUN, sep="."))  # what is read of a run's config


def score_sets(
    model: Model, sets: Sequence[str] | str, places: Mapping[str, str], *, metric: str, same_camera: str
) -> dict[str, dict[str, float]]:
    """Scores by test set; errors and arguments as for `san_jax.evaluate`, `places` being where the sets are."""
    names = ",".join(common.names(sets if isinstance(sets, str) else ",".join(sets), field="sets"))
    evaluation.check_same_camera(same_camera)
    opened = common.open_scored(ConfigDict(dict(test=names, **places)), mode=model.mode, same_camera=same_camera)
    return Scorer(metric=metric).score(model, opened).scores


@dataclasses.dataclass(frozen=True)
class Scorer:
    """How a model is scored.

    Attributes:
      metric: one of `evaluation.METRICS`.
      search: distance, query expansion and re-ranking.
      flip: whether features are means over a picture and its mirror image.
      tpr: whether to compute the TPR at fixed FPRs over all pairs, too.
      batch_size: pictures per forward pass, over all devices.
      workers: threads that decode; None = one for each core, 0 = no threads.
      keeps_feats: whether to return the features, too; every process then holds all of them.
    """

    metric: str = "market1501"
    search: Search = evaluation.PLAIN
    flip: bool = False
    tpr: bool = False
    batch_size: int = 100
    workers: int | None = None
    keeps_feats: bool = False

    def score(self, model: Model, sets: Sequence[RetrievalSet] | Sequence[Source]) -> "Scored":
        """Scores the model on each of the sets."""
        options = dict(batch_size=self.batch_size, workers=self.workers)
        if model.mode == "san_pg":
            return Scored(texture_scores.evaluate(model, sets, **options)[0], {}, {})
        evaluation.check_metric(self.metric)
        found = Scored({}, {}, {})
        for test in sets:
            evaluation.check_matches(test)
        for test in sets:
            extract = evaluation.features if self.keeps_feats else evaluation.split_features
            feats = extract(model, test, flip=self.flip, **options)
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
    """Results by test set: scores, thresholds by FPR, and features if they are kept."""

    scores: dict[str, dict[str, float]]
    thresholds: dict[str, dict[str, float]]
    feats: dict[str, RetrievalFeats]


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    text, flag = flags.DEFINE_string, flags.DEFINE_bool
    given = {
        "workdir": text("workdir", None, "Folder of the run."),
        "checkpoint": text("checkpoint", None, "Score this run, checkpoint, file of weights, or rendered-small."),
        "best": flag("best", False, "Score the best checkpoint (by mAP; by L1 for san_pg), not the newest."),
        "metric": flags.DEFINE_enum(
            "metric",
            None,
            evaluation.METRICS,
            "Protocol; cuhk03 is single-gallery-shot. Default: the config's scoring.metric.",
        ),
        "same_camera": flags.DEFINE_enum(
            "same_camera",
            None,
            evaluation.SAME_CAMERA,
            "Gallery pictures with the query's pid and camid: remove them, or keep all but the query itself. Default: "
            "the config's scoring.same_camera.",
        ),
        "data": text("data", None, "Test sets, separated by commas. Default: those of the config."),
        "manual_dir": text("manual_dir", None, "Folder of the releases. Default: the config's data.manual_dir."),
        "data_dir": text("data_dir", None, "Folder of the prepared data sets. Default: the config's data.data_dir."),
        "pattern": text("pattern", None, "Of the names of a folder's pictures. Default: the config's data.pattern."),
        "height": flags.DEFINE_integer("height", None, "Input height in pixels, if a file of weights does not say."),
        "width": flags.DEFINE_integer("width", None, "Input width in pixels, if a file of weights does not say."),
        "flip": flag("flip", False, "Average the features of each picture and its mirror image."),
        "aqe": flag("aqe", False, "Average query expansion with each query's five nearest gallery pictures."),
        "rerank": flag("rerank", False, "k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)."),
        "tpr": flag("tpr", False, "Also give the TPR at FPR 1e-2, 1e-3 and 1e-4 over all pairs."),
        "report": flag("report", False, "Also write a page with scores, charts and pictures, WORKDIR/report.html."),
        "report_file": text("report_file", None, "Write this page to another file."),
        "output": text("output", None, "JSON file for the scores. Default: WORKDIR/scores.json."),
    }
    addresses = ("workdir", "checkpoint", "data_dir")
    common.run_command(
        lambda: evaluate({name: holder.value for name, holder in given.items()}), module=__name__, remote=addresses
    )


def evaluate(given: Mapping[str, Any]) -> None:
    """Scores as the flags say, prints the table, and writes the scores and the page."""
    if not given["workdir"]:
        return _evaluate(given)
    with remote.opened(given["workdir"], functools.partial(stored.wanted, best=given["best"])) as workdir:
        _evaluate({**given, "workdir": workdir})


def _evaluate(given: Mapping[str, Any]) -> None:
    workdir, config = run_of(given)
    options = {name: given[name] for name in ("height", "width")}
    model = models.load(given["checkpoint"] or workdir, best=given["best"], **options)
    model = dataclasses.replace(model, compute_dtype=config.compute_dtype, onednn=config.onednn)
    places = places_of(given, workdir, model)
    for place in places:
        if place is not None:
            files.check_place(place)  # before anything is computed
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
            if workdir is not None and is_own(workdir, model):
                share = event_files.over_constant(workdir / "events", model.step)
                about |= {} if share is None else {"recon_over_constant": share}
            text = json.dumps({**shown[main_set], **about, "sets": shown}, indent=2)
            files.write(places.scores, text + "\n")
            remote.publish(places.scores)
    if places.report is not None:
        page = report.page(config, model, workdir=workdir, sets=sets, scores=scored.scores, feats=scored.feats)
        if jax.process_index() == 0:
            files.write(places.report, page)
            remote.publish(places.report)
            print(f"report: {remote.named(places.report)}")


def run_of(given: Mapping[str, Any]) -> tuple[Path | None, ConfigDict]:
    """The workdir or None, and its config or WITHOUT_RUN, with the fields that flags change.

    Raises:
      UserError: neither --workdir nor --checkpoint is given, or --checkpoint alone without --data.
    """
    workdir = Path(given["workdir"]) if given["workdir"] else None
    if workdir is None and not given["checkpoint"]:
        raise UserError("give --workdir, the folder of a run, or --checkpoint with --data")
    if workdir is None and not given["data"]:
        raise UserError("--checkpoint without --workdir needs --data, names of test sets such as cuhk03/labeled")
    config = ConfigDict(WITHOUT_RUN) if workdir is None else run_config.read(workdir)
    if workdir is not None:
        config_fields.check_some(config, OF_RUN, where=str(workdir / run_config.NAME))
    for field in ("test", "manual_dir", "data_dir", "pattern"):
        value = given["data" if field == "test" else field]
        config.data[field] = config.data[field] if value is None else value
    config.scoring.metric = given["metric"] or config.scoring.metric
    config.scoring.same_camera = given["same_camera"] or config.scoring.same_camera
    return workdir, config


class Places(NamedTuple):
    """Files for scores and report; None: not written."""

    scores: Path | None
    report: Path | None


def places_of(given: Mapping[str, Any], workdir: Path | None, model: Model) -> Places:
    """The files that the flags name; by default, files in the workdir if the model is one of its own checkpoints.

    Raises:
      UserError: a report is asked for without a place to write it, or its file's suffix is not that of HTML.
    """
    own = workdir is not None and is_own(workdir, model)
    scores = Path(given["output"]) if given["output"] else workdir / "scores.json" if own else None
    if given["report_file"]:
        page = Path(given["report_file"])
        if page.suffix.lower() not in (".html", ".htm", ""):
            raise UserError(f"--report_file is {page}, but the page is HTML; choose a name that ends in .html")
        return Places(scores, page)
    if given["report"] and not own:
        raise UserError(f"--report writes into the workdir of the scored run; for {model.source} give --report_file")
    return Places(scores, workdir / "report.html" if given["report"] else None)


def is_own(workdir: Path, model: Model) -> bool:
    """Whether a model is a checkpoint of the run in this workdir; another run may lie there too, or a file."""
    if files.is_remote(model.source):
        folder = remote.text_of(model.source).rpartition("/")[0]
        return folder in [f"{remote.named(workdir)}/{name}" for name in ("checkpoints", "best")]
    folder = Path(model.source).resolve().parent
    return folder in [workdir.resolve() / name for name in ("checkpoints", "best")]


def scorer_of(given: Mapping[str, Any], config: ConfigDict, model: Model, *, pages: bool) -> Scorer:
    """The scorer that the flags and the config describe.

    Raises:
      UserError: flags exclude each other, or do not apply to this model.
    """
    named = [name for name in ("metric", "same_camera", "flip", "aqe", "rerank", "tpr") if given[name]]
    if named and model.mode == "san_pg":
        raise UserError(f"--{named[0]} is for re-ID; {model.source} is a texture generator, scored by L1, PSNR, SSIM")
    search = Search(expand=given["aqe"], rerank=given["rerank"])
    if pages and search != evaluation.PLAIN:
        raise UserError("--report shows the ranking by plain features; leave out --aqe and --rerank, or --report")
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
