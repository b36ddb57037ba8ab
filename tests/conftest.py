"""What all tests share: JAX on the CPU, and compiled programs kept between runs."""

import gc
import os
import platform
from importlib import metadata
from pathlib import Path

import pytest

# Before JAX is imported, and inherited by the commands that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax


@pytest.fixture
def unread():
    """A pipe to write into whose reader has gone, as in `| head` when it has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def traced_anew():
    """For tests that replace what jitted functions read while they are traced: no trace from before, and none after."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def memory_of_a_module():
    """Gives back the compiled programs of a module; they are gigabytes by the end of all tests."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def san_page(tmp_path_factory):
    """The report's page of a SAN run on one test set, and its scores."""
    import report_pages  # imports jax, for which the variables above must be set

    workdir = tmp_path_factory.mktemp("run")
    report_pages.log(workdir)
    scores = report_pages.scores_of(report_pages.people_set(), "market1501")
    return report_pages.page_of(workdir, report_pages.people_set(), scores=scores), scores


def pytest_terminal_summary(terminalreporter):
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax", "orbax-checkpoint", "grain")]
    terminalreporter.write_line(", ".join([f"Python {platform.python_version()}", *versions]))
