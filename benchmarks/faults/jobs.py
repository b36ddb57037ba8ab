"""The commands that the campaign interrupts: what each is given, and what it must leave in the end."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import joined

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import cuhk03_release  # noqa: E402, of the tests
import finished_runs  # noqa: E402

PEOPLE = 400, 200, 100, 50, 50  # by pair of cameras, in the set that is prepared
PICTURES = 150  # different ones
LINKS, LINKS_LARGE = 4, 300  # how often a gallery, and a large one, holds each of them
EXPORTED = {"ONNX": "onnx", "StableHLO": "stablehlo", "weights": "pth"}  # name of a job -> suffix of its file
SEARCH_LARGE = f"search in {PICTURES * LINKS_LARGE:,}"  # pictures: for long enough that the index is saved meanwhile
UNBROKEN = "unbroken"


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that can be started again and again until it has finished.

    Attributes:
      words: what follows `python`, for a folder that the command writes into.
      left: what it leaves there: name -> digest of the content.
      processes: how many start at once, and join each other.
    """

    words: Callable[[Path], Sequence[str]]
    left: Callable[[Path], Mapping[str, str]]
    processes: int = 1


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Attributes:
      status: exit status; minus the signal that ended it.
      output: stdout and stderr together.
    """

    status: int
    output: str

    @property
    def complaint(self) -> str:
        """What is wrong with this end: "" if it succeeded, or failed with exit status 1 and one line of an error."""
        if "Traceback" in self.output:
            return "traceback"
        if self.status == 0:
            return ""
        errors = [line for line in self.output.splitlines() if line.startswith("error: ")]
        if self.status != 1:
            return f"exit status {self.status}"
        return "" if len(errors) == 1 else f"{len(errors)} lines of errors"


class Started:
    """The processes of a job, started in a folder.

    Args:
      job: what is started.
      folder: where it writes.
      environment: all variables of the processes.
      logs: folder of their outputs; by default that around `folder`.
    """

    def __init__(
        self, job: Job, folder: Path, *, environment: Mapping[str, str] = os.environ, logs: Path | None = None
    ):
        names = [f"{folder.name}.{index}.log" for index in range(job.processes)]
        self._logs = [((logs or folder.parent) / name).open("w+") for name in names]
        variables = joined.variables(job.processes) if job.processes > 1 else [{}]
        self.processes = [
            subprocess.Popen(
                [sys.executable, *job.words(folder)],
                cwd=ROOT,
                env={**environment, **own},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for log, own in zip(self._logs, variables, strict=True)
        ]

    def ends_within(self, seconds: float) -> bool:
        """Whether all processes end by themselves in this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(process.poll() is not None for process in self.processes):
                return True
            time.sleep(0.01)
        return False

    def kill(self, index: int = 0) -> None:
        """Ends a process by SIGKILL, with those that it has started."""
        os.killpg(self.processes[index].pid, signal.SIGKILL)
        self.processes[index].wait()

    def finish(self, seconds: float = 1200) -> list[Ended]:
        """Waits for the processes; those that run for longer are killed."""
        if not self.ends_within(seconds):
            for index, process in enumerate(self.processes):
                if process.poll() is None:
                    self.kill(index)
        found = []
        for process, log in zip(self.processes, self._logs, strict=True):
            log.seek(0)
            found.append(Ended(process.wait(), log.read()))
            log.close()
        return found


def make_jobs(inputs: Path) -> dict[str, Job]:
    """The jobs by name; writes what they read into a folder, unless it is there.

    * train: SAN, fifty steps of a small network in two phases, saved every ten steps.
    * train on two processes: the same on two.
    * prepare: 800 people of a stand-in for CUHK03.
    * textures: `rendered-small-pg` draws textures of a list's pictures.
    * search: `rendered-small` embeds a gallery and finds pictures in it; and a large one.
    * export: `rendered-small` is written for other runtimes, by format.
    """
    finished_runs.made_once(inputs, write_inputs)
    fields = {"data.data_dir": inputs / "data", "data.manual_dir": inputs / "small"}

    def train(folder: Path) -> list[str]:
        return finished_runs.train_command(folder, fields, "configs/san.py:small")

    def searching(gallery: Path) -> Callable[[Path], list[str]]:
        return lambda folder: [
            "search.py", "--checkpoint=rendered-small", f"--gallery={gallery}", f"--query={inputs / 'query'}",
            f"--index={folder / 'index'}", f"--output={folder / 'found.csv'}", f"--sheet={folder / 'sheet.png'}",
        ]  # fmt: skip

    def exporting(suffix: str) -> Callable[[Path], list[str]]:
        return lambda folder: ["-m", "san_jax", "export", "rendered-small", f"--output={folder / f'net.{suffix}'}"]

    return {
        "train": Job(train, left_by_training),
        "train on two processes": Job(train, left_by_training, processes=2),
        "prepare": Job(
            lambda folder: ["-m", "tfds_builders", "cuhk03/labeled_texture", f"--data_dir={folder}",
                            f"--manual_dir={inputs / 'large'}"],
            files_in,
        ),
        "textures": Job(
            lambda folder: ["generate_textures.py", "--checkpoint=rendered-small-pg", f"--input={inputs / 'gallery'}",
                            f"--output={folder}"],
            files_in,
        ),
        "search": Job(searching(inputs / "gallery"), left_by_search),
        SEARCH_LARGE: Job(searching(inputs / "large_gallery"), left_by_search),
        **{f"export, {name}": Job(exporting(suffix), files_in) for name, suffix in EXPORTED.items()},
    }  # fmt: skip


def write_inputs(inputs: Path) -> None:
    """Stand-ins of CUHK03, galleries and queries; and prepares the small stand-in."""
    cuhk03_release.write_release(inputs / "small")
    cuhk03_release.write_release(inputs / "large", people_per_pair=PEOPLE)
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        colours = rng.integers(40, 216, (4, 1, 3)).repeat(32, axis=0)
        picture = Image.fromarray(np.clip(colours + rng.normal(0, 20, (128, 64, 3)), 0, 255).astype(np.uint8))
        first = inputs / f"{number}.jpg"
        picture.save(first)
        for gallery, links in (("gallery", LINKS), ("large_gallery", LINKS_LARGE)):
            for copy in range(links):
                path = inputs / gallery / str(copy) / first.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.hardlink_to(first)
        if number < 5:
            (inputs / "query").mkdir(exist_ok=True)
            picture.save(inputs / "query" / f"{number}.png")
    prepare = Job(
        lambda _: ["-m", "tfds_builders", "cuhk03/labeled_texture", f"--data_dir={inputs / 'data'}",
                   f"--manual_dir={inputs / 'small'}"],
        files_in,
    )  # fmt: skip
    [ended] = Started(prepare, inputs / "prepare").finish()
    if ended.status:
        sys.exit(f"the inputs cannot be prepared:\n{ended.output}")


def left_by_training(workdir: Path) -> dict[str, str]:
    """Every array of the newest checkpoint, and its step."""
    step, arrays = finished_runs.arrays_in(workdir)
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    digests = {jax.tree_util.keystr(path): digest(np.ascontiguousarray(leaf).tobytes()) for path, leaf in leaves}
    return {"step": str(step), **digests}


def left_by_search(folder: Path) -> dict[str, str]:
    """The features of every picture, whatever parts of the index they are in, and what was found."""
    found = {"found.csv": digest((folder / "found.csv").read_bytes())}
    for part in sorted((folder / "index").glob("*.npy")):
        feats = np.load(part)
        names = json.loads(part.with_suffix(".json").read_text())["names"]
        found |= {name: digest(row.tobytes()) for name, row in zip(names, feats, strict=True)}
    return found


def files_in(folder: Path) -> dict[str, str]:
    """Every file, by its path in the folder; locks, which are empty, included."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest(path.read_bytes()) for path in paths}


def digest(content: bytes) -> str:
    """A short digest."""
    return hashlib.sha256(content).hexdigest()[:16]


def difference(left: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The first names in which two contents differ; "" if they are the same."""
    names = [name for name in {**wanted, **left} if left.get(name) != wanted.get(name)]
    return f"{len(names)} differ, such as {', '.join(names[:3])}" if names else ""
