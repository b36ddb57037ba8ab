import json
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finished_runs import assert_same_bits, train_command
from object_store import get_folder, put_folder, variables
from runs import write_pictures
from small_networks import SHAPE, state_of

import san_jax
from san_jax import devices, remote
from san_jax.errors import UserError
from san_jax.training import starting_weights, working_copy
from san_jax.training.checkpoints import Checkpoints
from san_jax.weights import stored

SAN = "configs/san.py:small"
AWAY = "http://127.0.0.1:9"  # nothing listens there


def steps_in(address):
    """The complete checkpoints of a workdir: kind -> step."""
    found = [stored.OF_STEP.match(name) for name in remote.listing(address) if name.endswith(stored.LAST)]
    assert len(found) == len({step[1] for step in found}), "one of each kind"
    return {step[1]: int(step[2]) for step in found}


def save(workdir, *steps):
    """Saves steps of a run, as a training does; (step, mAP) is scored, too."""
    state = jax.device_put(state_of("san_pg"), devices.replicated(devices.make_mesh()))
    with working_copy.of(workdir) as copy:
        (copy.folder / "config.json").write_text("{}")
        with Checkpoints(copy.folder, SHAPE, mode="san_pg", copy=copy) as saved:
            for step, *scores in steps:
                saved.save(step, state)
                if scores:
                    saved.keep_if_best(step, {"mAP": scores[0]})


@pytest.fixture
def workdir(bucket):
    """The address of a run that was saved twice, and scored best at the first time."""
    save(f"{bucket}/run", (3, 0.5), (5, 0.4))
    return f"{bucket}/run"


def test_newest_and_best_checkpoint_are_in_the_store_and_nothing_that_is_local(workdir):
    assert steps_in(workdir) == {"checkpoints": 5, "best": 3}
    tops = {name.split("/")[0] for name in remote.listing(workdir)}
    assert tops == {"config.json", "checkpoints", "best"}


def test_load_reads_a_run_a_checkpoint_and_a_file_of_weights(workdir, tmp_path):
    model = san_jax.load(workdir)
    assert (model.source, model.step) == (f"{workdir}/checkpoints/5", 0)
    assert san_jax.load(workdir, best=True).source == f"{workdir}/best/3"
    assert san_jax.load(f"{workdir}/best/3").source == f"{workdir}/best/3"
    model.save(tmp_path / "weights.safetensors")
    remote.upload(tmp_path, ["weights.safetensors"], workdir)
    again = san_jax.load(f"{workdir}/weights.safetensors")
    assert again.source == f"{workdir}/weights.safetensors"
    assert again.digest(*model.weights) == model.digest(*model.weights)
    assert not list(remote.cache().glob(f"{remote.TEMPORARY}*"))
    with pytest.raises(UserError, match=rf"^{workdir}/none holds no checkpoint; give the workdir of a run"):
        san_jax.load(f"{workdir}/none")


def test_training_starts_from_weights_in_the_store(workdir):
    state = jax.tree.map(jnp.zeros_like, state_of("san_pg"))
    state = jax.device_put(state, devices.replicated(devices.make_mesh()))
    started = starting_weights.start_from(Path(workdir), state, architecture=SHAPE)
    stored_weights = san_jax.load(workdir).weights["decoder"]
    jax.tree.map(np.testing.assert_array_equal, started.decoder, stored_weights)
    assert any(map(np.any, jax.tree.leaves(stored_weights)))
    with pytest.raises(UserError, match=rf"^init_from: {workdir}/none holds no weights; give a run, a checkpoint or a"):
        starting_weights.check_exists(Path(f"{workdir}/none"))


def test_run_on_another_machine_goes_on_from_what_is_in_the_store(workdir, monkeypatch, tmp_path):
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "other_machine"))
    with working_copy.of(workdir) as copy:
        assert stored.newest(copy.folder).name == "5"
        assert stored.newest(copy.folder, best=True).name == "3"
    save(workdir, (8, 0.45))
    assert steps_in(workdir) == {"checkpoints": 8, "best": 3}


def test_what_an_earlier_start_has_left_here_is_replaced_but_for_compiled_programs(workdir):
    folder = remote.copy_of(workdir, working_copy.AREA)
    shutil.copytree(folder / "checkpoints" / "5", folder / "checkpoints" / "9")
    (folder / "compiled").mkdir()
    (folder / "compiled" / "program").touch()
    (folder / "config.json").write_text("another")
    with working_copy.of(workdir) as copy:
        assert stored.newest(copy.folder).name == "5"
        assert (folder / "compiled" / "program").exists()
        assert (folder / "config.json").read_text() == "{}"


def test_checkpoint_that_was_not_sent_whole_is_not_read_and_goes_away(workdir):
    folder = remote.copy_of(workdir, working_copy.AREA)
    remote.upload(folder / "checkpoints" / "5", ["about/metadata"], f"{workdir}/checkpoints/9")
    assert san_jax.load(workdir).source == f"{workdir}/checkpoints/5"
    save(workdir, (8,))
    assert {name.split("/")[1] for name in remote.listing(workdir) if name.startswith("checkpoints/")} == {"8"}


def test_last_file_of_a_checkpoint_is_sent_last_and_deleted_first(workdir, monkeypatch):
    calls, upload, delete = [], remote.upload, remote.delete
    noted = lambda does, names: calls.append((does, [name for name in names if name.startswith("checkpoints/")]))  # noqa: E731
    monkeypatch.setattr(remote, "upload", lambda folder, names, to: (noted("sent", names), upload(folder, names, to)))
    monkeypatch.setattr(remote, "delete", lambda at, names: (noted("deleted", names), delete(at, names)))
    save(workdir, (8,))
    order = [(does, [name.endswith(stored.LAST) for name in names]) for does, names in calls if names]
    assert [(does, all(last), any(last)) for does, last in order] == [
        ("sent", False, False),
        ("sent", True, True),
        ("deleted", True, True),
        ("deleted", False, False),
    ]


def test_second_run_on_this_machine_is_refused_with_pid_host_and_address(workdir):
    said = rf"^{workdir} is in use by a training, pid {os.getpid()} on {re.escape(socket.gethostname())}, since"
    with working_copy.of(workdir), pytest.raises(UserError, match=said), working_copy.of(workdir):
        pass


def test_run_ends_when_another_one_has_written_into_its_workdir(workdir, monkeypatch, tmp_path):
    with working_copy.of(workdir) as copy:
        with monkeypatch.context() as other:
            other.setenv(remote.CACHE, str(tmp_path / "other_machine"))
            save(workdir, (8,))
        with pytest.raises(UserError, match=rf"another run writes into {workdir}: checkpoints/8 there is not of this"):
            copy.publish()
    assert steps_in(workdir) == {"checkpoints": 8, "best": 3}


def test_training_goes_on_without_the_store_and_sends_the_next_checkpoint(workdir, monkeypatch, capsys):
    with working_copy.of(workdir) as copy:
        shutil.copytree(copy.folder / "checkpoints" / "5", copy.folder / "checkpoints" / "8")
        with monkeypatch.context() as away:
            away.setenv("AWS_ENDPOINT_URL", AWAY)
            copy.publish_if_possible()
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith(f"cannot read {workdir} (Could not connect to the endpoint")
        assert said.endswith("; the training goes on, and the next checkpoint is sent\n")
        shutil.rmtree(copy.folder / "checkpoints" / "5")
        copy.publish_if_possible()
    assert steps_in(workdir) == {"checkpoints": 8, "best": 3}


def test_run_without_its_store_ends_in_one_line(workdir, monkeypatch):
    with pytest.raises(UserError, match=rf"cannot read {workdir} \("), working_copy.of(workdir) as copy:  # noqa: SIM117
        with Checkpoints(copy.folder, SHAPE, copy=copy):
            monkeypatch.setenv("AWS_ENDPOINT_URL", AWAY)


def test_local_workdir_has_no_copy(tmp_path):
    with working_copy.of(tmp_path / "run") as copy:
        assert copy is None
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_run_in_a_store_is_stopped_and_resumed_elsewhere_and_ends_with_the_bits_of_a_local_one(
    finished, data, bucket, tmp_path
):
    """The data come from the store, too; the run is then scored and loaded there."""
    local, _ = finished("san")
    put_folder(data["data.data_dir"], f"{bucket}/data")
    workdir, fields = f"{bucket}/runs/one", {"data.data_dir": f"{bucket}/data"}
    command = train_command(workdir, fields, SAN)
    machine = {remote.CACHE: str(tmp_path / "machine")}
    first = commands.Running(*command, environment=variables() | machine, together=True)
    while not steps_in(workdir) and first.poll() is None:
        time.sleep(0.05)
    if first.poll() is None:
        os.killpg(first.pid, signal.SIGTERM)
    status, output = first.finish()
    assert status == 143, output
    stopped = steps_in(workdir)["checkpoints"]
    assert f"stopped after step {stopped}, which is saved; start again on {workdir} to resume" in output
    status, output = commands.Running(*command, environment=variables(), together=True).finish()
    assert status == 0, output
    assert f"step {stopped + 1}/" in output
    assert_same_bits(local, get_folder(workdir, tmp_path / "got"))
    words = "eval.py", f"--workdir={workdir}", "--best", "--report"
    status, output = commands.Running(*words, environment=variables(), together=True).finish()
    assert status == 0, output
    assert f"report: {workdir}/report.html" in output
    scores = json.loads((get_folder(workdir, tmp_path / "got") / "scores.json").read_text())
    assert scores["checkpoint"].startswith(f"{workdir}/best/")
    pictures = write_pictures(tmp_path / "pictures", ["a.png", "b.png"])
    feats = [san_jax.load(run).features(sorted(pictures.iterdir())) for run in (workdir, local)]
    np.testing.assert_array_equal(*feats)


@pytest.mark.slow
def test_two_processes_with_caches_of_their_own_end_with_the_bits_of_a_shared_workdir(data, bucket, tmp_path):
    store = variables()

    def train(workdir, epochs, caches):
        command = train_command(workdir, data | {"schedule.epochs": epochs}, "configs/baseline.py:small")
        both = [
            commands.Running(*command, environment=store | own | {remote.CACHE: str(tmp_path / cache)}, together=True)
            for own, cache in zip(commands.two_processes(), caches, strict=True)
        ]
        for status, output in [process.finish() for process in both]:
            assert status == 0, output

    train(f"{bucket}/run", 1, ["one", "two"])
    train(f"{bucket}/run", 2, ["three", "four"])  # goes on from what the first has sent
    train(tmp_path / "run", 2, ["one", "two"])
    assert_same_bits(tmp_path / "run", get_folder(f"{bucket}/run", tmp_path / "got"))
