"""Reads broken files: a UserError, or what is right, in bounded time and memory."""

import collections
import multiprocessing
import os
import random
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.case import status_bytes
from benchmarks.faults.jobs import Job, Started

LONGEST = 60.0  # seconds in which an input must be answered
MORE_MEMORY = 1024  # MB above the peak of the whole input that a broken one may take
RIGHT, REFUSED, OTHER = "right", "refused", "read as other content"
OUTCOMES = RIGHT, REFUSED, OTHER
FAULTS = "traceback", "process ended", "too slow", "too much memory", "wrong in silence", "not one line", "unnamed"


def serve(place: Path, answers: Any) -> None:
    """Reads the inputs that it is asked for, in a process of its own; answers with outcome, message and peak in MB."""
    from benchmarks.faults import readers

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    right, peaks = {}, {}
    for name, folder in readers.make_all(place):
        readers.KINDS[name].read(folder)  # once for what is imported and compiled
        right[name], _, peaks[name] = attempt(readers.KINDS[name], folder)
    answers.send(None)
    while (asked := answers.recv()) is not None:
        name, folder = asked
        digest, message, peak = attempt(readers.KINDS[name], folder)
        outcome = outcome_of(digest, message, right[name], guarded=readers.KINDS[name].guarded)
        if peak - peaks[name] > MORE_MEMORY:
            outcome, message = "too much memory", f"{peak - peaks[name]:.0f} MB more; {message}"
        answers.send((outcome, message))


def attempt(kind: Any, folder: Path) -> tuple[str, str, float]:
    """What is read from a folder, or else the message; and the peak of resident memory meanwhile in MB."""
    from san_jax.errors import UserError

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    try:
        digest, message = kind.read(folder), ""
    except UserError as error:
        digest, message = "", str(error) or "empty"
    except BaseException:  # SystemExit too
        digest, message = "", "Traceback " + traceback.format_exc()[-1500:]
    return digest, message, memory("VmHWM") - before


def memory(field: str) -> float:
    """A field of this process's memory in MB."""
    return status_bytes(field) / 2**20


def outcome_of(digest: str, message: str, right: str, *, guarded: bool) -> str:
    """One of OUTCOMES, or of FAULTS."""
    if message.startswith("Traceback"):
        return "traceback"
    if message:
        return REFUSED if "\n" not in message else "not one line"
    if digest == right:
        return RIGHT
    return "wrong in silence" if guarded else OTHER


class Reader:
    """A process that reads inputs, started again when one ends it."""

    def __init__(self, place: Path):
        self._place = place
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._answers, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(self._place, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._answers.recv()

    def read(self, name: str, folder: Path) -> tuple[str, str]:
        """The outcome and the message."""
        self._answers.send((name, folder))
        try:
            if self._answers.poll(LONGEST):
                return self._answers.recv()
            outcome = "too slow", f"over {LONGEST:g} s"
        except EOFError:
            self._process.join()
            return self._again(("process ended", f"exit code {self._process.exitcode}"))
        return self._again(outcome)

    def _again(self, outcome: tuple[str, str]) -> tuple[str, str]:
        self.close()
        self._start()
        return outcome

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


def measure(out: Path, *, seed: int, inputs: int, commands: int) -> Iterator[dict[str, Any]]:
    """Breaks good inputs, as many of each kind, and reads them; reports now and then.

    Args:
      out: folder for the inputs; those with a fault remain, as FAULT_NUMBER.
      seed: of the damage.
      inputs: how many are read in one process.
      commands: how many are read by commands, in a process each.

    Yields:
      For both ways, by kind, how many had which outcome so far; and every fault.
    """
    reader = Reader(out / "good")  # makes the good inputs
    from benchmarks.faults import readers

    found: dict[str, Any] = {"seed": seed}
    kinds = list(readers.KINDS)
    for way, count in (("in one process", inputs), ("by command", commands)):
        counts, faults = collections.defaultdict(collections.Counter), []
        chosen = [name for name in kinds if way == "in one process" or readers.KINDS[name].command]
        for number in range(count):
            name = chosen[number % len(chosen)]
            rng = random.Random(f"{seed} {way} {number}")
            folder = out / "broken" / f"{number}"
            how = readers.KINDS[name].copy(out / "good" / f"{kinds.index(name):02d}", folder, rng)
            outcome, message = (
                reader.read(name, folder) if way == "in one process" else by_command(readers.KINDS[name], folder)
            )
            counts[name][outcome] += 1
            if outcome not in OUTCOMES:
                faults.append({"kind": name, "number": number, "how": how, "outcome": outcome, "message": message})
                shutil.copytree(folder, out / f"fault_{way.split()[-1]}_{number}", dirs_exist_ok=True)
                print(f"{name}, {how}: {outcome}: {message}", flush=True)
            shutil.rmtree(folder)
            found[way] = {"kinds": {name: dict(some) for name, some in counts.items()}, "faults": faults}
            if number % 20 == 19 or number == count - 1:
                yield found
    reader.close()


def by_command(kind: Any, folder: Path) -> tuple[str, str]:
    """How a command that reads the folder ends: success, or exit status 1 and one line that names the input."""
    place = folder.with_name(f"{folder.name}_out")
    place.mkdir()
    started = Started(Job(lambda _: kind.command(folder, place), lambda _: {}), place)
    [ended] = started.finish(LONGEST)
    shutil.rmtree(place)
    said = ended.output.strip().splitlines()
    line = said[-1] if said else ""
    if ended.status == -9:
        return "too slow", f"over {LONGEST:g} s"
    if "Traceback" in ended.output:
        return "traceback", ended.output[-1500:]
    if ended.status == 0:
        return RIGHT, ""
    if ended.complaint:
        return "not one line" if ended.status == 1 else "process ended", f"{ended.complaint}: {ended.output[-1500:]}"
    return (REFUSED if str(folder) in ended.output or folder.name in line else "unnamed"), line
