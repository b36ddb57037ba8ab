"""Writes the tables of docs/performance.md from the reports in benchmarks/results and its folders.

    python -m benchmarks.table
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "results"

PROCESSES = "<!-- processes, written by python -m benchmarks.table -->"
SEARCHING = "<!-- searching, written by python -m benchmarks.table -->"
RUNTIMES = "<!-- runtimes, written by python -m benchmarks.table -->"
LOOP = "<!-- loop, written by python -m benchmarks.table -->"
SCORING = "<!-- scoring, written by python -m benchmarks.table -->"
SIDES = {  # of benchmarks/scoring.py, in the order of the rows
    "product": "XLA's product of query and gallery alone",
    "rank": "distances, ranks, scores",
    "argsort": "the same by NumPy: matrix, argsort, loop",
    "fastreid": "the same by fast-reid's Cython",
    "single_shot": "single-gallery-shot, ten draws",
    "fastreid_single_shot": "the same by fast-reid's Cython",
    "tpr": "TPR at FPR 1e-2, 1e-3, 1e-4",
    "nearest": "ten nearest of every query",
    "faiss_flat": "the same by faiss's flat index",
    "rerank": "re-ranking, ranks, scores",
    "fastreid_rerank": "the same by fast-reid with faiss",
}
WAYS = ("device", "host", "stream")  # of benchmarks/loop.py, in the order of the columns
START, END = "<!-- written by python -m benchmarks.table -->", "<!-- up to here -->"

COLUMNS = (
    "what",
    "dtype",
    "batch",
    "san_jax, s",
    "pictures/s",
    "TFLOP/s",
    "compile, s",
    "peak, GB",
    "PyTorch as shipped, s",
    "PyTorch at its best, s",
    "with",
    "peak, GB",
    "san_jax / PyTorch at its best",
)


def main() -> None:
    """Rewrites the page."""
    page = with_tables(PAGE.read_text(), read_reports(RESULTS))
    page = with_scoring(page, read_reports(RESULTS / "scoring"))
    page = with_processes(page, read_reports(RESULTS / "processes"))
    page = with_searching(page, read_reports(RESULTS / "searching"))
    page = with_runtimes(page, read_reports(RESULTS / "runtimes"))
    PAGE.write_text(with_loop(page, read_reports(RESULTS / "loop")))


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """The reports of a folder by file name: by device, then date."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def replaced(page: str, start: str, *texts: str) -> str:
    """The page with the text between a mark and the next END replaced by others."""
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(END)
    return "\n\n".join([before + start, *texts, END + after])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of a table, that of dashes included."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(page: str, reports: Sequence[dict[str, Any]]) -> str:
    """The page with the text between its marks replaced by the tables of these reports.

    Reports with the same circumstances share a table; if several hold the same case, the last one counts.
    """
    tables = {}
    for report in reports:
        cases = {}
        for row in report["measurements"]:
            cases.setdefault((row["task"], row["dtype"], row["batch"]), []).append(row)
        tables.setdefault((report["device"], circumstances(report)), {}).update(cases)
    texts = [
        f"### {device}\n\n{notes}.\n\n{table_of(list(cases.values()))}" for (device, notes), cases in tables.items()
    ]
    return replaced(page, START, *texts)


def with_scoring(page: str, reports: Sequence[dict[str, Any]]) -> str:
    """The page with the text between its marks replaced by the tables of benchmarks/scoring.py's reports.

    Reports of one device, day and version share a table; if several hold the same measurement, the last one counts.
    """
    tables = {}
    for report in reports:
        title = (report["device"], f"{report['date'][:10]}; jax {report['jax']}; dim {report['dim']}")
        tables.setdefault(title, []).extend(report["measurements"])
    texts = [f"### {device}\n\n{notes}.\n\n{scoring_table(rows)}" for (device, notes), rows in tables.items()]
    return replaced(page, SCORING, *texts)


def with_loop(page: str, reports: Sequence[dict[str, Any]]) -> str:
    """The page with the text between its marks replaced by a table of benchmarks/loop.py's reports, one line each."""
    columns = ["device", "date", "jax", "task", "dtype", "pictures", "threads", "step alone, ms"]
    lines = [[*columns, *(f"{way}, ms (ratio)" for way in WAYS)], ["---"] * (len(columns) + len(WAYS))]
    for report in reports:
        seconds = report["seconds"]
        size = f"{report['batch']} of {report['height']} x {report['width']}"
        about = [report["device"], report["date"], report["jax"], report["task"], report["dtype"], size]
        times = [f"{1000 * seconds[way]:.1f} ({seconds[way] / seconds['alone']:.2f})" for way in WAYS]
        lines.append([*about, str(report["threads"]), f"{1000 * seconds['alone']:.1f}", *times])
    return replaced(page, LOOP, markdown(lines))


def with_runtimes(page: str, reports: Sequence[dict[str, Any]]) -> str:
    """The page with the text between its marks replaced by a table of each of benchmarks/runtimes.py's reports."""
    columns = ["network", "runtime", "with", "dtype", "s", "pictures/s", "peak, GB", "san_jax in float32 / this"]
    texts = []
    for report in reports:
        versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        lines = [columns, ["---"] * len(columns)]
        for row in report["measurements"]:
            runtime = "san_jax" if row["framework"] == "jax" else row["framework"]
            about = [row["network"], runtime, ", ".join(row["options"]) or "-", row["dtype"]]
            numbers = [number(row, "seconds"), number(row, "pictures_per_second"), number(row, "peak_bytes", unit=1e9)]
            lines.append([*about, *numbers, number(row, "ratio")])
        pictures = report["measurements"][0]["batch"]
        texts += [f"{report['device']}, {report['date'][:10]}; {versions}; {pictures} pictures:", markdown(lines)]
    return replaced(page, RUNTIMES, *texts or ["Not measured yet."])


def with_processes(page: str, reports: Sequence[dict[str, Any]]) -> str:
    """The page with the text between its marks replaced by a table of benchmarks/processes.py's reports."""
    columns = ["device", "date", "jax", "what", "gallery", "dim", "queries", "gallery's features", "processes"]
    columns += ["of these features each holds, GB", "peak of each process, GB"]
    lines = [columns, ["---"] * len(columns)]
    for report in reports:
        for row in report["measurements"]:
            about = [report["device"], report["date"][:10], report["jax"], SIDES[row["side"]], f"{row['gallery']:,}"]
            about += [str(report["dim"]), f"{row['queries']:,}", row["holds"], str(row["processes"])]
            numbers = [row["bytes_of_features"], row["bytes_above_start"]]
            lines.append([*about, *(", ".join(f"{one / 1e9:.2f}" for one in sorted(set(found))) for found in numbers)])
    return replaced(page, PROCESSES, markdown(lines))


def with_searching(page: str, reports: Sequence[dict[str, Any]]) -> str:
    """The page with the text between its marks replaced by a table of benchmarks/searching.py's reports."""
    columns = ["device", "date", "gallery", "dtype", "queries at once", "san_jax, s", "faiss, s", "san_jax / faiss"]
    columns += ["memory besides mapped files, GB: san_jax", "faiss"]
    lines = [columns, ["---"] * len(columns)]
    for report in reports:
        sides = [report["processes"][side] for side in ("san_jax", "faiss")]
        memory = [f"{max(part['anonymous_bytes'] for part in parts) / 1e9:.2f}" for parts in sides]
        for size, ratio in report["san_jax_over_faiss"].items():
            seconds = [number(report["seconds"][side], size) for side in ("san_jax", "faiss")]
            about = [report["device"], report["date"][:10], f"{report['rows']:,}", report["dtype"], size]
            lines.append([*about, *seconds, f"{ratio:.2f}", *memory])
    return replaced(page, SEARCHING, markdown(lines))


def scoring_table(rows: Sequence[dict[str, Any]]) -> str:
    """Seconds, and gigabytes in addition to the features; a row for each side, a column for each test set."""
    by_size = sorted(rows, key=lambda row: row["query"] * row["gallery"])
    sizes = {row["size"]: f"{row['size']}: {row['query']:,} x {row['gallery']:,}" for row in by_size}
    found = {(row["side"], row["size"]): row for row in rows}
    lines = [["s / GB", *sizes.values()], ["---"] * (1 + len(sizes))]
    for side in [side for side in SIDES if any(row["side"] == side for row in rows)]:
        cells = [found.get((side, size), {}) for size in sizes]
        texts = [" / ".join([number(row, "seconds"), number(row, "bytes_above_features", unit=1e9)]) for row in cells]
        lines.append([SIDES[side], *(text if text != "- / -" else "-" for text in texts)])
    return markdown(lines)


def circumstances(report: dict[str, Any]) -> str:
    """Day, versions, sizes, and whatever else the numbers depend on."""
    size = report["measurements"][0]
    notes = [
        f"{report['date'][:10]}; " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        f"{size['height']} x {size['width']}, ResNet-{size['depth']}, fc {size['fc_dim']}, {size['num_pids']} people",
    ]
    if (size["encoder_width"], size["decoder_width"]) != (1, 1):
        notes.append(f"widths {size['encoder_width']} and {size['decoder_width']}")
    if report["platform"] == "cpu":
        notes.append(f"{', '.join(report['cpu']['instructions'])}; heap {'kept' if report['keep_heap'] else 'trimmed'}")
    if not size.get("onednn", True):
        notes.append("oneDNN off")
    if report["xla_flags"]:
        notes.append(report["xla_flags"])
    return "; ".join(notes)


def table_of(cases: Sequence[Sequence[dict[str, Any]]]) -> str:
    """A line for every case; a case is the measurements of its sides."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells_of, cases)]
    return markdown(lines)


def cells_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The row of one case: san_jax, PyTorch with no option, and the fastest of PyTorch."""
    ours = next(row for row in rows if row["framework"] == "jax")
    theirs = [row for row in rows if row["framework"] == "torch" and "seconds" in row]
    shipped = next((row for row in theirs if not row["options"]), {})
    best = min(theirs, key=lambda row: row["seconds"], default={})
    return [
        ours["task"],
        ours["dtype"],
        str(ours["batch"]),
        number(ours, "seconds"),
        number(ours, "pictures_per_second"),
        number(ours, "flops_per_second", unit=1e12),
        number(ours, "compile_seconds"),
        number(ours, "peak_bytes", unit=1e9),
        number(shipped, "seconds"),
        number(best, "seconds"),
        ", ".join(best.get("options", ())) or "-",
        number(best, "peak_bytes", unit=1e9),
        number(best, "ratio"),
    ]


def number(row: dict[str, Any], field: str, *, unit: float = 1.0) -> str:
    """A field with three significant digits, or all those before the point; a dash if it is missing."""
    if field not in row:
        return "-"
    value = row[field] / unit
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


if __name__ == "__main__":
    main()
