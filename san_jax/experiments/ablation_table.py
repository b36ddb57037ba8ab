"""Writes the tables of docs/ablation.md from the JSON files of the ablation's runs.

    python -m san_jax.experiments.ablation_table docs/ablation.md

Marks in the page determine where the tables go: a line `<!-- runs of FOLDER, written by ... -->` precedes the tables of
the files in FOLDER, a path relative to the page, and a line `<!-- up to here -->` follows them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from san_jax import files
from san_jax.commands import common
from san_jax.errors import UserError

START = "<!-- runs of {folder}, written by python -m san_jax.experiments.ablation_table -->"
END = "<!-- up to here -->"
MARKED = re.compile(START.format(folder=r"(?P<folder>\S+)") + "\n.*?" + END, re.DOTALL)
BASELINE = "baseline"
PARTS = {  # the parts of a variant's name -> its title in the tables, in the order of the rows
    BASELINE: "baseline",
    "reconstruction": "+ reconstruction",
    "triplets": "+ reconstruction, L_TR",
    "pit": "+ reconstruction, PIT pictures",
    "all": "all: + reconstruction, L_TR, PIT pictures",
    "true_textures": "all, with true textures",
}
STARTS = {  # the start in a variant's name -> its title, in the order of the rows
    "random": "random",
    "pg": "SAN-PG",
    "reid": "re-ID",
    "pictures": "pictures",
    "textures": "textures",
}
CONTENTS = {"variant", "seed", "scores", "losses", "id_floor", "recon_over_constant", "seconds"}  # used of a file
LEVEL = 0.95  # of the intervals
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
            report = files.read_json(path)
            missing = CONTENTS - set(report)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is not a JSON file ({error}); delete it and start the ablation again") from error
        if missing or not is_variant(str(report["variant"])):
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
        return "\n\n".join([start, *filter(None, (summary(reports), starts(reports), every_run(reports))), END])

    filled, count = MARKED.subn(tables, page)
    if not count:
        start = START.format(folder="FOLDER")
        raise UserError(f"the page has no lines {start!r} and {END!r}; add them where the tables should go")
    return filled


def is_variant(name: str) -> bool:
    """Whether tables have a row for a name: parts, an underscore, and a start."""
    part, _, start = name.rpartition("_")
    return part in PARTS and start in STARTS


Runs = dict[int, Mapping[str, Any]]  # seed -> the contents of its file


def by_variant(reports: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Runs]:
    """The runs of each variant that has any, (start, part) -> seed -> run, in the order of the rows."""
    found = {(start, part): {} for start in STARTS for part in PARTS}
    for report in reports:
        part, _, start = report["variant"].rpartition("_")
        found[start, part][report["seed"]] = report
    return {variant: dict(sorted(runs.items())) for variant, runs in found.items() if runs}


def summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table of the mean and standard deviation over seeds of each score, and of its gain over the baseline's.

    Gains are over the baseline from the same start and the same seed.
    """
    runs = by_variant(reports)
    gains = [f"{title} - baseline's" for title in SHOWN.values()]
    learnt = "ID loss - floor", "drawn / constant"
    rows = [["start", "parts", "seeds", *SHOWN.values(), *gains, *learnt, "minutes a run"]]
    for (start, part), own in runs.items():
        cells = [mean_and_deviation([percent(run, score) for run in own.values()]) for score in SHOWN]
        baseline = {} if part == BASELINE else runs.get((start, BASELINE), {})
        cells += [gain(own, baseline, score) for score in SHOWN]
        cells.append(mean_and_deviation([run["losses"]["id"] - run["id_floor"] for run in own.values()], digits=2))
        shares = [run["recon_over_constant"] for run in own.values() if run["recon_over_constant"] is not None]
        cells.append(mean_and_deviation(shares, digits=2) if shares else "")
        seconds = [run["seconds"] for run in own.values() if run["seconds"]]
        cells.append(f"{np.median(seconds) / 60:.1f}" if seconds else "-")
        rows.append([STARTS[start], PARTS[part], str(len(own)), *cells])
    return markdown(rows)


def starts(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table of what each choice of parts gains by its last start over each other one; "" if none has two."""
    runs = by_variant(reports)
    rows = [["parts", "starts", *SHOWN.values()]]
    for part, title in PARTS.items():
        found = [start for start in STARTS if (start, part) in runs]
        for other in found[:-1]:
            gains = [gain(runs[found[-1], part], runs[other, part], score) for score in SHOWN]
            rows.append([title, f"{STARTS[found[-1]]} - {STARTS[other]}", *gains])
    return markdown(rows) if len(rows) > 1 else ""


def every_run(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table of rank-1 and mAP of every run."""
    runs = by_variant(reports)
    seeds = sorted({report["seed"] for report in reports})
    rows = [["start", "rank-1 / mAP in %", *(f"seed {seed}" for seed in seeds)]]
    for (start, part), own in runs.items():
        found = [[f"{percent(own[seed], score):.1f}" for score in SHOWN] if seed in own else "-" for seed in seeds]
        rows.append([STARTS[start], PARTS[part], *map(" / ".join, found)])
    return markdown(rows)


def percent(run: Mapping[str, Any], score: str) -> float:
    """A score of a run in percent."""
    return 100 * run["scores"][score]


def gain(own: Runs, other: Runs, score: str) -> str:
    """The mean difference between two variants' runs from the same seeds, in points, with its interval; "" if none."""
    paired = [percent(own[seed], score) - percent(other[seed], score) for seed in sorted(own.keys() & other.keys())]
    return mean_and_interval(paired) if paired else ""


def mean_and_deviation(values: Sequence[float], *, digits: int = 1) -> str:
    """The mean as text, followed by ± and the sample standard deviation if there are several values."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


def mean_and_interval(values: Sequence[float]) -> str:
    """The mean as text, followed by its interval by Student's t if there are several values: "+1.0 [-0.5, +2.5]"."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:+.1f}"
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


if __name__ == "__main__":
    common.run_command(main, files=("PAGE",))
