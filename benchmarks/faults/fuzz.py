"""Fuzzes the parsers that are written in Python, guided by the lines that an input reaches (atheris).

    python -m benchmarks.faults fuzz --minutes=3

Needs the extra `fuzz`. A parser may return or raise a UserError of one line. It may run nothing that an input names:
while it reads, Python's audit hooks watch for processes, sockets, writes and pickles' own look-up of classes.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # nothing of the parsers, which are imported below

import boxed_frames

FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class"),
    *("os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "ctypes.dlopen"),
)
TARGETS = {  # the parser's name -> the kind of input, as in `readers.KINDS`, whose good one is the beginning
    "torch archive": ".pth, archive",
    "torch stream": ".pth, older stream",
    "list": "list",
    "boxes, MOT": "boxes, MOT",
    "boxes, COCO": "boxes, COCO",
    "boxes, YOLO": "boxes, YOLO",
}
MEMORY_MB = 4096  # of the whole process; more is a fault


def measure(out: Path, good: Path, *, seed: int, minutes: float) -> Iterator[dict[str, Any]]:
    """Fuzzes each parser for some minutes; reports after each.

    Args:
      out: folder for the corpus, and for inputs with a fault.
      good: the folder that `readers.make_all` has filled.
      seed: of the fuzzer.
      minutes: for each parser.

    Yields:
      By parser: inputs tried, lines and branches reached, and the faults found.
    """
    from benchmarks.faults import readers

    folders, found = dict(readers.make_all(good)), {}
    for target, kind in TARGETS.items():
        corpus = out / target.replace(" ", "_").replace(",", "")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(sorted(folders[kind].rglob(readers.KINDS[kind].damaged))):
            shutil.copy(path, corpus / f"good{number}")
        words = [sys.executable, "-m", "benchmarks.faults.fuzz", target, str(corpus), f"-seed={seed + 1}"]
        options = [f"-max_total_time={60 * minutes:.0f}", f"-rss_limit_mb={MEMORY_MB}", "-timeout=60"]
        options += ["-print_final_stats=1", f"-artifact_prefix={corpus}.", "-max_len=65536"]
        ended = subprocess.run([*words, *options], capture_output=True, text=True)
        counts = {name: int(value) for name, value in re.findall(r"stat::(\w+):\s+(\d+)", ended.stderr)}
        reached = re.findall(r"cov: (\d+)", ended.stderr)
        fault = "" if ended.returncode == 0 else ended.stderr[-1500:]
        found[target] = {
            "inputs": counts.get("number_of_executed_units", 0),
            "reached": int(reached[-1]) if reached else 0,
            "faults": [fault] if fault else [],
        }
        print(f"{target}: {found[target]}", flush=True)
        yield {"seed": seed, "minutes": minutes, "parsers": found}


def parser_of(target: str, place: Path) -> tuple[Callable[[], object], Path]:
    """A parser, and the file in a folder that it reads."""
    from san_jax.data import boxes, frames
    from san_jax.weights import torch_files
    from tfds_builders import people_list

    if target.startswith("torch"):
        path = place / "net.pth"
        return lambda: torch_files.read_tensors_file(path), path
    if target == "list":
        path = place / "people.csv"
        return lambda: people_list.read(path), path
    shown = frames.open_frames(boxed_frames.write_frames(place / "frames"))
    form = target.removeprefix("boxes, ").lower()
    path = place / ("yolo/000001.txt" if form == "yolo" else f"boxes.{form}")
    path.parent.mkdir(exist_ok=True)
    return lambda: boxes.read(path.parent if form == "yolo" else path, shown, form=form), path


def fuzz(target: str, arguments: list[str]) -> None:
    """Lets atheris look for inputs of a parser that it does not answer; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["san_jax", "tfds_builders"]):
        from san_jax.errors import UserError

        read, path = parser_of(target, Path(tempfile.mkdtemp()))
    reads = []

    def audit(event: str, _: tuple) -> None:
        if reads and event in FORBIDDEN:
            raise RuntimeError(f"an input made its reader call {event}")

    sys.addaudithook(audit)

    def try_one(content: bytes) -> None:
        path.write_bytes(content)
        reads.append(True)
        try:
            read()
        except UserError as error:
            if "\n" in str(error) or not str(error):
                raise RuntimeError(f"not one line: {error}") from error
        finally:
            reads.clear()

    atheris.Setup([sys.argv[0], *arguments], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(sys.argv[1], sys.argv[2:])
