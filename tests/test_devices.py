import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import PATIENT, two_processes, xla_flags
from finished_runs import made_once, shared_folder

from san_jax import devices

HERE = Path(__file__).parent


def start(num_devices, **environment):
    flags = xla_flags(f"--xla_force_host_platform_device_count={num_devices}", PATIENT)
    environment |= {"XLA_FLAGS": flags, "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        [sys.executable, str(HERE / "distributed_losses.py")],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    # The other processes print nothing, but gloo says on standard output that it is connected.
    return next((json.loads(line) for line in output.splitlines() if line.startswith("{")), None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device computes, once for all test processes."""
    folder = shared_folder(tmp_path_factory) / "on_one_device"
    made_once(folder, lambda folder: (folder / "found.json").write_text(json.dumps(result(start(1)))))
    return json.loads((folder / "found.json").read_text())


def assert_same_run(found, alone, layout):
    assert alone["layout"] == [1, 1, 1]
    assert found["layout"] == layout
    assert found["refused"] == alone["refused"]
    assert len(set(alone["batches"]["stream"])) == 4
    assert all(batches == alone["batches"]["stream"] for one in (alone, found) for batches in one["batches"].values())
    assert "gallery features hold NaN, inf or too large numbers in 1 rows, first in row 3" in found["refused"]
    for step, (losses, expected) in enumerate(zip(found["losses"], alone["losses"], strict=True)):
        for name, value in expected.items():
            np.testing.assert_allclose(losses[name], value, rtol=1e-5, atol=1e-5, err_msg=f"step {step}, {name}")
    feats, expected = np.array(found["feats"]), np.array(alone["feats"])
    np.testing.assert_allclose(feats, expected, atol=1e-5 * np.abs(expected).max())
    assert found["split"]["held"] == 64 * layout[1] // layout[0]  # of 60 pictures, in equal parts
    assert found["split"]["difference"] <= 1e-6 * np.abs(expected).max()
    in_one, in_parts = found["split"]["scores"]
    assert in_parts == in_one
    for name, value in alone["scores"]["test/people"].items():
        np.testing.assert_allclose(found["scores"]["test/people"][name], value, atol=2e-3, err_msg=name)
    for name, value in alone["drawn"]["test/pairs"].items():
        np.testing.assert_allclose(found["drawn"]["test/pairs"][name], value, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_eight_devices_compute_the_losses_of_one(alone):
    assert_same_run(result(start(8)), alone, [8, 8, 1])


@pytest.mark.slow
def test_two_processes_with_four_devices_each_compute_the_losses_of_one(alone):
    processes = [start(4, **own) for own in two_processes()]
    first, _ = [result(process) for process in processes]
    assert_same_run(first, alone, [8, 4, 2])


def test_batch_is_sharded_by_rows_and_state_is_replicated():
    mesh = devices.make_mesh()
    rows = np.arange(2 * mesh.size * 3, dtype=np.float32).reshape(-1, 3)
    batch = devices.put_rows(mesh, rows, num_rows=len(rows))
    np.testing.assert_array_equal(batch, rows)
    assert batch.sharding.shard_shape(batch.shape) == (2, 3)
    np.testing.assert_array_equal(devices.local_rows(mesh, len(rows)), np.arange(len(rows)))
    state = jax.device_put(rows, devices.replicated(mesh))
    assert state.sharding.shard_shape(state.shape) == state.shape


def test_compiler_options_are_those_of_the_platform(monkeypatch):
    mesh = devices.make_mesh()
    monkeypatch.setattr(devices, "is_known", lambda option: True)
    assert devices.compiler_options(mesh, onednn=True, deterministic=True) == {devices.ONEDNN: True}
    assert devices.compiler_options(mesh, onednn=False, deterministic=True) == {}
    monkeypatch.setattr(devices, "platform_of", lambda mesh: "gpu")
    assert devices.compiler_options(mesh, onednn=True) == {}
    assert devices.compiler_options(mesh, onednn=True, deterministic=True) == {"xla_gpu_deterministic_ops": True}
    monkeypatch.setattr(devices, "platform_of", lambda mesh: "tpu")
    assert devices.compiler_options(mesh, onednn=True, deterministic=True) == {}


def test_only_options_that_xla_has_are_known():
    assert devices.is_known("xla_cpu_enable_fast_math")
    assert not devices.is_known("xla_cpu_no_such_option")
    assert devices.is_known(devices.ONEDNN)
