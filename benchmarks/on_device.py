"""Runs all measurements on a machine with a GPU, in one command and within a time limit.

    python -m benchmarks.on_device --minutes=9 --out=FOLDER
    python -m benchmarks.on_device --minutes=4 --stages=1,3
    python -m benchmarks.on_device --tiny                     # the same stages at sizes for two CPU cores

Needs JAX, Flax, optax, jaxtyping, NumPy, SciPy and Pillow; PyTorch for comparison; no TFDS, grain or ml_collections.
A stage is one or more processes with a time limit; if it fails, the next one still runs. FOLDER gets log.txt,
stages.json, and reports.zip, to which a stage's reports are added as soon as it ends:

    unzip FOLDER/reports.zip -d benchmarks/results && python -m benchmarks.table

Stages in the order in which they run:

    1  description and peak rates of the machine
    2  correctness: the tests of networks, losses, optimizers, scores and renderer, on the device
    3  training steps and features, compared with PyTorch; time of each kernel of a step
    4  the training loop with its input, for every way of data.cache
    5  scores, re-ranking, search
    6  rendering
    7  learning at the paper's size, on people rendered into the device's memory
"""

import argparse
import dataclasses
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import train_step
from benchmarks.case import DTYPES, Case, new_folder

ROOT = Path(__file__).parent.parent
RIGHT = (
    *("layers", "encoder", "decoder", "losses", "optimizers", "golden_gradients", "train_step", "augmentation"),
    *("distances", "ranking", "reranking", "verification", "query_expansion", "renderer", "studio"),
)
TINY_RIGHT = ("distances",)
TINY_STEP = "--batch=8 --pictures=4 --height=32 --width=16 --depth=10 --encoder_width=0.1 --fc_dim=8 --num_pids=4"
STAGES = {1, 2, 3, 4, 5, 6, 7}
TORCH_PROGRAMS = ".torch"  # not among the reports


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of a stage.

    Attributes:
      stage: its number.
      name: of its log.
      command: arguments of the Python interpreter.
      seconds: its time limit.
      beside: whether it runs at the same time as adjacent parts with this mark; nothing is timed then.
      variables: additional environment variables.
    """

    stage: int
    name: str
    command: str
    seconds: int
    beside: bool = False
    variables: tuple[tuple[str, str], ...] = ()


def parts(out: Path, *, tiny: bool) -> Iterator[Part]:
    """All parts in their order; they write into the folders that benchmarks/results has."""
    other = out / "on_device" / time.strftime("%Y-%m-%d_%H%M")
    step = f"-m benchmarks.train_step --out={out} --rounds=1 --torch_cache={out / TORCH_PROGRAMS}"
    step += f" {TINY_STEP} --repeats=2 --torch=" if tiny else " --batch=64 --repeats=20 --warmup=3"
    options = "" if tiny else " --torch=channels_last,channels_last+compile"
    cases = "--tasks=baseline,features --dtypes=bfloat16"
    if not tiny:
        cases = "--tasks=san,baseline,features,san_pg --dtypes=bfloat16,tensorfloat32"
    trial = " --tiny" if tiny else ""
    tests = " ".join(f"tests/test_{name}.py" for name in (TINY_RIGHT if tiny else RIGHT))
    shared = (("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),)
    exact = (*shared, ("JAX_PLATFORMS", ""), ("JAX_DEFAULT_MATMUL_PRECISION", "highest"))
    workers = "" if tiny else "-n 6"

    yield Part(1, "machine", f"-m benchmarks.machine --out={other}{trial}", 60)
    if not tiny:
        yield Part(3, "torch_programs", f"-m benchmarks.on_device --torch_programs {step}{options}", 110, True, shared)
    yield Part(2, "right", f"-m pytest -o addopts= -m 'not slow' -q {workers} {tests}", 130, True, exact)
    yield Part(3, "steps", f"{step}{options} {cases}", 240)
    some = " --rounds=1 --only 'one-pass moments'" if tiny else ""
    yield Part(3, "variants", f"-m benchmarks.variants --out={other}{trial}{some}", 120)
    yield Part(3, "kernels", f"-m benchmarks.kernels --out={other}{trial}", 70)
    loop = "--tiny --task=baseline --steps=3 --rounds=1 --pictures=64" if tiny else "--dtype=bfloat16"
    yield Part(4, "loop", f"-m benchmarks.loop --out={out / 'loop'} {loop}", 100)
    for at_once in (16,) if tiny else (16, 64):
        people = "--people=4 --height=32 --texture_side=32 --rounds=1" if tiny else "--people=64 --rounds=3"
        name = f"rendering_by_{at_once}"
        yield Part(6, name, f"-m benchmarks.rendering --out={out / 'rendering'} --at_once={at_once} {people}", 60)
    sizes = "--sizes=tiny --repeats=2" if tiny else "--sizes=market1501,market1501+500k,cuhk03,msmt17"
    sides = "product,rank,argsort,nearest,tpr,single_shot" if tiny else "product,rank,tpr,nearest,rerank"
    yield Part(5, "scores", f"-m benchmarks.scoring --out={out / 'scoring'} --rounds=1 {sizes} --sides={sides}", 120)
    yield Part(7, "learning", f"-m benchmarks.learning --out={other}{trial}", 420)
    if not tiny:  # last: there is hardly time for it
        large = f"-m benchmarks.train_step --out={out} --rounds=1 --batch=256 --pictures=256 --repeats=10 --warmup=3"
        yield Part(3, "large_batch", f"{large} --torch=channels_last --tasks=san,features --dtypes=bfloat16", 150)


def main() -> int:
    """Runs the stages that the flags select."""
    if "--torch_programs" in sys.argv:
        return torch_programs(sys.argv[sys.argv.index("--torch_programs") + 3 :])
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9, help="time limit of the whole run (default: 9)")
    parser.add_argument("--stages", type=stages, default=STAGES, help="such as 1,3 or 1-7 (default: all)")
    parser.add_argument("--tiny", action="store_true", help="sizes for two CPU cores")
    parser.add_argument("--out", type=new_folder, default=os.environ.get("OUT", "runs/on_device"))
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = parts(Path(folder), tiny=flags.tiny)
        run([part for part in found if part.stage in flags.stages], Path(folder), flags.out, minutes=flags.minutes)
    return 0


def stages(text: str) -> set[int]:
    """The stages that --stages names, such as 1,3 or 1-7."""
    chosen = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r}: give numbers such as 1,3 or 1-7")
        chosen |= set(range(int(first), int(last or first) + 1))
    if not chosen or not chosen <= STAGES:
        raise argparse.ArgumentTypeError(f"{text!r}: there are stages 1 to {max(STAGES)}")
    return chosen


def run(chosen: Sequence[Part], reports: Path, out: Path, *, minutes: float) -> None:
    """Runs parts until the time is up.

    Args:
      chosen: the parts.
      reports: the folder into which they write.
      out: gets three files, written anew after each part: log.txt, stages.json, which says how each part ended, and
        reports.zip with all files in `reports`.
      minutes: time limit.
    """
    deadline = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    ended: dict[str, dict] = {}

    def one(part: Part) -> None:
        begin = time.monotonic()
        limit = min(part.seconds, deadline - begin)
        status = run_part(part, limit) if limit > 5 else ("", "no time left")
        ended[part.name] = {"seconds": round(time.monotonic() - begin, 1), "ended": status[1]}
        (out / "stages.json").write_text(json.dumps(ended, indent=1) + "\n")
        with open(out / "log.txt", "a") as log:
            log.write(f"==== {part.name}: {ended[part.name]}\n{status[0][-20000:]}\n")
        pack(reports, out / "reports.zip")
        print(f"==== {part.name}: {ended[part.name]}\n{status[0][-1500:]}", flush=True)

    with ThreadPoolExecutor() as pool:
        for beside, group in itertools.groupby(chosen, lambda part: part.beside):
            mapped = pool.map if beside else map
            list(mapped(one, group))


PACKING = threading.Lock()


def pack(folder: Path, archive: Path) -> None:
    """Writes all files of a folder but PyTorch's programs to a zip archive, which is replaced in one step."""
    part = archive.with_suffix(".part")
    with PACKING:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as written:
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(folder)
                if path.is_file() and name.parts[0] != TORCH_PROGRAMS:
                    written.write(path, name)
        part.replace(archive)


def run_part(part: Part, limit: float) -> tuple[str, str]:
    """The output of a part, and how it ended."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(part.variables)
    with subprocess.Popen(
        [sys.executable, *shlex.split(part.command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with the processes that it started
            printed, _ = process.communicate()
            return printed, f"stopped after {limit:.0f} s"
    return printed, "well" if process.returncode == 0 else f"exit code {process.returncode}"


def torch_programs(words: list[str]) -> int:
    """Compiles PyTorch's programs in parallel into --torch_cache, so that the measurements need not wait."""
    flags = train_step.parse_flags(words)
    options = [chosen for chosen in flags.torch if "compile" in chosen]
    wanted = [
        dataclasses.replace(case, framework="torch", options=chosen, warmup=0, repeats=1)
        for case in train_step.cases(flags, platform="gpu")
        for chosen in options
        if case.task != "san_pg" and case.dtype in DTYPES
    ]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(flags.torch_cache), "TORCHINDUCTOR_COMPILE_THREADS": "4"}

    def compile_one(case: Case) -> None:
        answer = train_step.ask(flags.torch_python, "benchmarks.torch_san", case, environment=environment)
        print(case.task, case.dtype, answer.get("error") or f"{answer['compile_seconds']:.1f} s", flush=True)

    with ThreadPoolExecutor(max_workers=6) as pool:
        list(pool.map(compile_one, wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
