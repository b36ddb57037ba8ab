"""Writes the tables of docs/ablation.md from the JSON files of the ablation's runs.

    python -m san_jax.experiments.ablation_table docs/ablation.md

Marks in the page determine where the tables go: a line `<!-- runs of FOLDER, written by ... -->` precedes the tables of
the files in FOLDER, a path relative to the page, and a line `<!-- up to here -->` follows them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from san_jax import files
from san_jax.commands import common
from san_jax.errors import UserError

START = "<!-- runs of {folder}, written by python -m san_jax.experiments.ablation_table -->"
END = "<!-- up to here -->"
MARKED = re.compile(START.format(folder=r"(?P<folder>\S+)") + "\n.*?" + END, re.DOTALL)
BASELINE = "baseline"
TITLES = {  # variant -> its title in the tables, in the order of the rows
    BASELINE: "baseline",
    "reconstruction": "+ reconstruction",
    "triplets": "+ reconstruction, L_TR",
    "pit": "+ reconstruction, PIT pictures",
    "all": "all: + reconstruction, L_TR, PIT pictures",
    "true_textures": "all, with true textures",
}
SHOWN = {"rank1": "rank-1", "mAP": "mAP"}


def main(page: Path) -> None:
    """Replaces the text between the page's marks by new tables."""
    try:
        text = page.read_text()
    except OSError as error:
        raise UserError(f"{page} cannot be read ({error.strerror}); give a page that has the marks") from error
    files.write(page, with_tables(text, page.parent))


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The contents of the runs' JSON files in a folder, ordered by file name.

    Raises:
      UserError: there are no such files, or one of them is not a result of the ablation.
    """
    reports = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            report = json.loads(path.read_text())
            missing = {"variant", "seed", "scores", "losses", "seconds"} - set(report)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is not a JSON file ({error}); delete it and start the ablation again") from error
        if missing or report["variant"] not in TITLES:
            what = f"has no {', '.join(sorted(missing))}" if missing else f"is of the variant {report['variant']!r}"
            raise UserError(f"{path} {what}: it is not a result of the ablation; move it to another folder")
        reports.append(report)
    if not reports:
        raise UserError(f"{folder} holds no scores; run python -m san_jax.experiments.ablation first")
    return reports


def with_tables(page: str, folder: Path) -> str:
    """The page with new tables between its marks, in place of the text that was there.

    Args:
      page: text of the page.
      folder: the folder of the page, to which the folders in the marks are relative.

    Raises:
      UserError: the page has no marks, or as in `read_reports`.
    """

    def tables(marks: re.Match[str]) -> str:
        reports = read_reports(folder / marks["folder"])
        start = START.format(folder=marks["folder"])
        return "\n\n".join([start, summary(reports), every_run(reports), END])

    filled, count = MARKED.subn(tables, page)
    if not count:
        start = START.format(folder="FOLDER")
        raise UserError(f"the page has no lines {start!r} and {END!r}; add them where the tables should go")
    return filled


def by_variant(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """The runs of each variant that has any, variant -> seed -> run, in the order of the rows."""
    found = {variant: {} for variant in TITLES}
    for report in reports:
        found[report["variant"]][report["seed"]] = report
    return {variant: dict(sorted(runs.items())) for variant, runs in found.items() if runs}


def summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table of the mean and standard deviation over seeds of each score, and of its difference to the baseline's.

    Differences are between runs from the same seed.
    """
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
    """A table of rank-1 and mAP of every run."""
    runs = by_variant(reports)
    seeds = sorted({report["seed"] for report in reports})
    rows = [["rank-1 / mAP in %", *(f"seed {seed}" for seed in seeds)]]
    for variant, own in runs.items():
        scores = [own[seed]["scores"] if seed in own else None for seed in seeds]
        cells = [" / ".join(f"{100 * found[score]:.1f}" for score in SHOWN) if found else "-" for found in scores]
        rows.append([TITLES[variant], *cells])
    return markdown(rows)


def mean_and_deviation(values: Sequence[float], *, signed: bool = False) -> str:
    """The mean as text, followed by ± and the sample standard deviation if there are several values."""
    mean = f"{np.mean(values):{'+' if signed else ''}.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


if __name__ == "__main__":
    common.run_command(main, files=("PAGE",))
