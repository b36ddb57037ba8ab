"""Writes the tables of docs/reliability.md from the reports in benchmarks/results/faults.

    python -m benchmarks.faults.page
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from san_jax.experiments.ablation_table import markdown

ROOT = Path(__file__).parents[2]
PAGE, RESULTS = ROOT / "docs" / "reliability.md", ROOT / "benchmarks" / "results" / "faults"
MARKED = re.compile(r"<!-- (\w+), written by python -m benchmarks.faults.page -->\n.*?<!-- up to here -->", re.DOTALL)
GOOD = "right", "refused", "read as other content"  # as in `inputs`, whose imports this page does without

Report = Mapping[str, Any]


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(with_tables(PAGE.read_text(), RESULTS))


def with_tables(page: str, results: Path) -> str:
    """The page with the text between its marks replaced by the tables of the parts that these name."""

    def table(marks: re.Match[str]) -> str:
        part = marks[1]
        report = json.loads((results / f"{part}.json").read_text())
        about = f"{report['cpu']['name']}, {report['cpu']['cores']} cores, {report['date']}"
        about += f", seed {report['seed']}." if "seed" in report else "."
        start = marks[0].partition("\n")[0]
        return "\n\n".join([start, about, markdown(TABLES[part](report)), "<!-- up to here -->"])

    return MARKED.sub(table, page)


def of_kills(report: Report) -> list[list[str]]:
    """Kills and what became of them."""
    rows = [["command", "unbroken, s", "kills", "ended after them", "ended with the bits of an unbroken one"]]
    for name, one in report["jobs"].items():
        cells = one["unbroken_seconds"], one["kills"], one["ended"], one["ended"] - len(one["faults"])
        rows.append([name, *map(str, cells)])
    kills, ended = (sum(one[field] for one in report["jobs"].values()) for field in ("kills", "ended"))
    faults = sum(len(one["faults"]) for one in report["jobs"].values())
    return [*rows, ["all", "", str(kills), str(ended), str(ended - faults)]]


def of_disturbances(report: Report) -> list[list[str]]:
    """Disturbances and what became of them."""
    rows = [["what", "command", "times", "failed with one line, then went on", "ended like an unbroken one"]]
    for kind, jobs in report["kinds"].items():
        for name, one in jobs.items():
            cells = one["disturbed"], one["failed"], one["disturbed"] - len(one["faults"])
            rows.append([kind, name, *map(str, cells)])
    return rows


def of_inputs(report: Report) -> list[list[str]]:
    """Broken inputs and how they were answered."""
    ways = "in one process", "by command"
    rows = [["input", *(f"{way}: {outcome}" for way in ways for outcome in (*GOOD, "faults"))]]
    sums = [0] * 2 * (len(GOOD) + 1)
    for kind in report[ways[0]]["kinds"]:
        counts = []
        for way in ways:
            found = report.get(way, {}).get("kinds", {}).get(kind, {})
            good = [found.get(outcome, 0) for outcome in GOOD]
            counts += [*good, sum(found.values()) - sum(good)]
        sums = [one + other for one, other in zip(sums, counts, strict=True)]
        rows.append([kind, *map(str, counts)])
    return [*rows, ["all", *map(str, sums)]]


def of_endpoints(report: Report) -> list[list[str]]:
    """Damaged requests and how they were answered."""
    outcomes = "answered", "refused", "closed without an answer"
    rows, sums = [["request", *outcomes, "faults"]], [0] * (len(outcomes) + 1)
    for name, found in report["endpoints"].items():
        good = [found.get(outcome, 0) for outcome in outcomes]
        counts = [*good, sum(found.values()) - sum(good)]
        sums = [one + other for one, other in zip(sums, counts, strict=True)]
        rows.append([name, *map(str, counts)])
    return [*rows, ["all", *map(str, sums)]]


def of_fuzz(report: Report) -> list[list[str]]:
    """Parsers that were fuzzed."""
    rows = [["parser", "inputs", "faults"]]
    return [*rows, *([name, f"{one['inputs']:,}", str(len(one["faults"]))] for name, one in report["parsers"].items())]


def of_soak(report: Report) -> list[list[str]]:
    """Windows of a long training."""
    titles = {
        "last_step": "steps", "memory_mb": "resident memory, MB", "files": "open files", "threads": "threads",
        "disk_mb": "workdir, MB", "steps_per_second": "steps/s",
    }  # fmt: skip
    rows = [["minutes", *titles.values()]]
    for number, window in enumerate(report["windows"], start=1):
        rows.append([f"{20 * number}", *(str(window[name]) for name in titles)])
    return rows


TABLES: Mapping[str, Callable[[Report], list[list[str]]]] = {
    "kills": of_kills,
    "disturbances": of_disturbances,
    "inputs": of_inputs,
    "endpoints": of_endpoints,
    "fuzz": of_fuzz,
    "soak": of_soak,
}


if __name__ == "__main__":
    main()
