"""Writes the tables of docs/ablation.md out of the scores of the ablation's runs.

    python -m san_jax.experiments.ablation_table docs/ablation.md

The page says where they go, and whose they are: a line `<!-- runs of FOLDER, written by ... -->` begins the tables of
the files in FOLDER, beside the page.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from san_jax import commands, files
from san_jax.errors import UserError

START = "<!-- runs of {folder}, written by python -m san_jax.experiments.ablation_table -->"
END = "<!-- up to here -->"
MARKED = re.compile(START.format(folder=r"(?P<folder>\S+)") + "\n.*?" + END, re.DOTALL)
BASELINE = "baseline"
TITLES = {  # by variant, in the order of the rows
    BASELINE: "baseline",
    "reconstruction": "+ reconstruction",
    "triplets": "+ reconstruction, L_TR",
    "pit": "+ reconstruction, PIT pictures",
    "all": "all: + reconstruction, L_TR, PIT pictures",
    "true_textures": "all, with true textures",
}
SHOWN = {"rank1": "rank-1", "mAP": "mAP"}


def main(page: Path) -> None:
    """Writes what stands between the page's marks anew."""
    try:
        text = page.read_text()
    except OSError as error:
        raise UserError(f"{page} cannot be read ({error.strerror}); give a page that has the marks") from error
    files.write(page, with_tables(text, page.parent))


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """What the runs' files say, by file name.

    Raises:
      UserError: there are none, or one is not of a run.
    """
    reports = []
    for path in sorted(folder.glob("*.json")):
        try:
            report = json.loads(path.read_text())
            missing = {"variant", "seed", "scores", "losses", "seconds"} - set(report)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is no JSON file ({error}); delete it and start the ablation again") from error
        if missing or report["variant"] not in TITLES:
            what = f"has no {', '.join(sorted(missing))}" if missing else f"is of the variant {report['variant']!r}"
            raise UserError(f"{path} {what}: not of a run of the ablation; put it somewhere else")
        reports.append(report)
    if not reports:
        raise UserError(f"{folder} holds no scores; run python -m san_jax.experiments.ablation first")
    return reports


def with_tables(page: str, folder: Path) -> str:
    """The page with tables between each pair of its marks, whatever stood there.

    Args:
      page: the text.
      folder: the folders that the marks name are in it.

    Raises:
      UserError: the page has no marks; or as of `read_reports`.
    """

    def tables(marks: re.Match[str]) -> str:
        reports = read_reports(folder / marks["folder"])
        start = START.format(folder=marks["folder"])
        return "\n\n".join([start, summary(reports), every_run(reports), END])

    filled, count = MARKED.subn(tables, page)
    if not count:
        start = START.format(folder="FOLDER")
        raise UserError(f"the page has no lines {start!r} and {END!r}, between which the tables go; write them into it")
    return filled


def by_variant(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Seed -> report of every variant that has any, in the order of the rows."""
    found = {variant: {} for variant in TITLES}
    for report in reports:
        found[report["variant"]][report["seed"]] = report
    return {variant: dict(sorted(runs.items())) for variant, runs in found.items() if runs}


def summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """Means and standard deviations over seeds, and of the differences to the baseline from the same seed."""
    runs = by_variant(reports)
    differences = [f"{title} - baseline's" for title in SHOWN.values()]
    rows = [["in %", "seeds", *SHOWN.values(), *differences, "ID loss at the end", "minutes a run"]]
    for variant, own in runs.items():
        common = sorted(own.keys() & runs.get(BASELINE, {}).keys())
        cells = [mean_and_deviation([100 * report["scores"][score] for report in own.values()]) for score in SHOWN]
        for score in SHOWN:
            paired = [100 * (own[seed]["scores"][score] - runs[BASELINE][seed]["scores"][score]) for seed in common]
            cells.append(mean_and_deviation(paired, signed=True) if variant != BASELINE and paired else "")
        seconds = [report["seconds"] for report in own.values() if report["seconds"]]
        minutes = f"{np.median(seconds) / 60:.1f}" if seconds else "-"
        learnt = mean_and_deviation([report["losses"]["id"] for report in own.values()])
        rows.append([TITLES[variant], str(len(own)), *cells, learnt, minutes])
    return markdown(rows)


def every_run(reports: Sequence[Mapping[str, Any]]) -> str:
    """Rank-1 / mAP of every run."""
    runs = by_variant(reports)
    seeds = sorted({report["seed"] for report in reports})
    rows = [["rank-1 / mAP in %", *(f"seed {seed}" for seed in seeds)]]
    for variant, own in runs.items():
        scores = [own[seed]["scores"] if seed in own else None for seed in seeds]
        cells = [" / ".join(f"{100 * found[score]:.1f}" for score in SHOWN) if found else "-" for found in scores]
        rows.append([TITLES[variant], *cells])
    return markdown(rows)


def mean_and_deviation(values: Sequence[float], *, signed: bool = False) -> str:
    """The mean, and behind ± the sample standard deviation where there are several values."""
    mean = f"{np.mean(values):{'+' if signed else ''}.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its first row the head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


if __name__ == "__main__":
    commands.run(main, files=("PAGE",))
