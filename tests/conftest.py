"""Shared by all tests: JAX on the CPU, with a persistent compilation cache."""

import gc
import os
import platform
from importlib import metadata
from pathlib import Path

import pytest

# Set before JAX is imported; inherited by the commands that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # a tenth of the time to trace and compile a step
# LLVM's optimization and XLA's MLIR emitters take longer than the small programs here run; from jaxlib 0.11 on, there
# are no other emitters. `XLA_FLAGS= make test` tests with both.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (" --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""),
)

import jax

gc.set_threshold(100_000, 50, 100)  # as commands do; the default would take a tenth of all time
SYNTHESIS = Path(__file__).parent.parent / "san_jax" / "synthesis"
RENDERING = {"test_pit", "test_synthetic_reid", "test_pretrained", "test_tutorial", "test_export"}
RENDERING |= {f"test_{path.stem}" for path in SYNTHESIS.glob("*.py")}


ALONE = ("cluster", "browser")  # marks of tests that need Debian's packages, and run by a target of their own alone


def pytest_collection_modifyitems(config, items):
    """Leaves tests with a mark of ALONE out unless they are asked for, as by `-m cluster`."""
    unasked = [mark for mark in ALONE if mark not in (config.option.markexpr or "")]
    left_out = [item for item in items if any(map(item.get_closest_marker, unasked))]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def batch_sizes(monkeypatch):
    """Sizes of the batches of users' pictures that are read from now on."""
    from san_jax.data import picture_batches  # not for the tests that need none of it

    sizes, plain = [], picture_batches.batches

    def seen(*arguments, **options):
        for batch in plain(*arguments, **options):
            sizes.append(len(batch.images))
            yield batch

    monkeypatch.setattr(picture_batches, "batches", seen)
    return sizes


@pytest.fixture
def unread():
    """The write end of a pipe whose read end is closed, as `| head` closes it after its last line."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def traced_anew():
    """Clears JAX's caches before and after a test that patches what jitted functions read while they are traced."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def rank_promotion(request):
    """Forbids implicit broadcasting to a higher rank, where a wrong axis would be a wrong loss or score in silence.

    Tests of rendering are excepted: there, points [..., 3] meet single points [3] in every second line.
    """
    with jax.numpy_rank_promotion("allow" if request.module.__name__ in RENDERING else "raise"):
        yield


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    """Frees the compiled programs of each test module; those of all modules take gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Config fields that name a small release with PIT pairs and a folder of prepared data sets."""
    import finished_runs

    folder = finished_runs.shared_folder(tmp_path_factory) / "data"
    finished_runs.made_once(folder, finished_runs.write_release_with_pairs)
    return {"data.manual_dir": folder / "release", "data.data_dir": folder / "prepared"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory, data):
    """`finished("san")`: workdir and output of an uninterrupted small run of that mode, to be read or copied."""
    import finished_runs

    def run_of(mode):
        folder = finished_runs.shared_folder(tmp_path_factory) / f"finished_{mode}"
        return finished_runs.finished_run(folder, data, f"configs/{mode}.py:small")

    return run_of


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The address of an empty bucket of an S3 server on this machine; copies are in the folder `cache` of tmp_path."""
    import object_store  # later than this file, as below; and it takes half a second

    return object_store.new_bucket(monkeypatch, tmp_path / "cache")


@pytest.fixture(scope="session")
def san_page(tmp_path_factory):
    """The report page of a SAN run on one test set, and its scores."""
    import report_pages  # later than this file: jaxtyping does not check modules of san_jax that were imported before

    workdir = tmp_path_factory.mktemp("run")
    report_pages.log(workdir)
    scores = report_pages.scores_of(report_pages.people_set(), "market1501")
    return report_pages.page_of(workdir, report_pages.people_set(), scores=scores), scores


def pytest_terminal_summary(terminalreporter):
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax", "orbax-checkpoint")]
    terminalreporter.write_line(", ".join([f"Python {platform.python_version()}", *versions]))
