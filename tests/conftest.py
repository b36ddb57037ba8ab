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
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax


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


def pytest_terminal_summary(terminalreporter):
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax", "orbax-checkpoint", "grain")]
    terminalreporter.write_line(", ".join([f"Python {platform.python_version()}", *versions]))
