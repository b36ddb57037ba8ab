import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from array_source import ArraySource
from commands import finish, start, two_processes
from cuhk03_release import write_release
from jax.experimental import multihost_utils

import tfds_builders
from san_jax.commands import common, textures
from san_jax.errors import UserError


@pytest.fixture
def cluster(monkeypatch):
    """Makes this process one of several, by its index; the result lists the calls in order."""
    happened = []

    def prepare(name, **_):
        happened.append(f"prepare {name}")
        if name == "missing/set":
            raise UserError("there is no data set missing/set")

    def broadcast(array):
        happened.append("meet")
        return array if jax.process_index() == 0 else np.array(broadcast.said)

    def open_source(name, *_, **__):
        happened.append(f"open {name}")
        return ArraySource([0])

    def become(index, said=False):
        broadcast.said = said
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(jax, "process_index", lambda: index)
        return happened

    monkeypatch.setattr(tfds_builders, "prepare", prepare)
    monkeypatch.setattr(tfds_builders, "open_source", open_source)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    return become


PLACES = dict(data_dir="data", manual_dir="")


@pytest.mark.parametrize(("number", "ends"), [(errno.ENOSPC, SystemExit), (errno.ECONNREFUSED, OSError)])
def test_error_of_the_disk_without_a_file_is_one_line_and_others_are_not_taken_for_one(
    number, ends, monkeypatch, capsys
):
    def fail():
        raise OSError(number, "the system's words")

    monkeypatch.setattr(common.os, "_exit", sys.exit)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which commands replace
    with pytest.raises(ends):
        common._guarded(fail, [], (), check=lambda: None)
    said = capsys.readouterr().err
    wanted = "error: the system's words; free some space or check the disk, and start the same command again\n"
    assert said == (wanted if ends is SystemExit else "")


def test_first_process_prepares_before_the_broadcast(cluster):
    happened = cluster(0)
    common.open_source("set/a:3", "train", **PLACES)
    assert happened == ["prepare set/a:3", "meet", "open set/a:3"]


def test_textures_of_a_data_set_are_drawn_of_what_the_first_process_prepares(cluster):
    happened = cluster(0)
    places = dict(data_dir="data", manual_dir="", pattern="", output="textures", boxes=None)
    textures.open_pictures({"input": "tfds:set/a", "split": "train", **places})
    assert happened == ["prepare set/a", "meet", "open set/a"]


def test_other_processes_wait_and_open(cluster):
    happened = cluster(1)
    common.open_source("set/a:3", "train", **PLACES)
    assert happened == ["meet", "open set/a:3"]


def test_failed_preparation_in_the_first_process_ends_all_processes(cluster):
    happened = cluster(0)
    with pytest.raises(UserError, match="there is no data set missing/set"):
        common.open_source("missing/set", "train", **PLACES)
    assert happened == ["prepare missing/set", "meet"]
    cluster(1, said=True)
    with pytest.raises(UserError, match="the first process could not prepare missing/set; its message says why"):
        common.open_source("missing/set", "train", **PLACES)
    assert happened[2:] == ["meet"]


def test_help_into_a_closed_pipe_prints_no_error(unread):
    done = subprocess.run([sys.executable, "train.py", "--help"], stdout=unread, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_path_that_cannot_be_used_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    command = "from pathlib import Path; from san_jax.commands import common; "
    command += "common.run_command(lambda path: path.read_text(), files=('PATH',))"
    for name, reason in (("x" * 300, "File name too long"), ("file/below", "Not a directory")):
        words = [sys.executable, "-c", command, str(tmp_path / name)]
        done = subprocess.run(words, capture_output=True, text=True)
        said = f"error: {tmp_path / name}: {reason}; give another path, or fix this one\n"
        assert (done.returncode, done.stderr) == (1, said)


def test_name_that_stdout_cannot_encode_is_printed_with_escapes(tmp_path):
    (tmp_path / "ü.py").write_text("from configs import san\n\nget_config = san.get_config\n")
    done = subprocess.run(
        [sys.executable, Path("train.py").absolute(), "--config=ü.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "workdir: runs/\\xfc\n")
    assert done.stderr.startswith("error: cuhk03/labeled_texture is not in data_dir")


@pytest.mark.slow
def test_first_of_two_processes_prepares_and_both_score(tmp_path):
    release = write_release(tmp_path / "release", height=64)
    command = ["-m", "san_jax.commands.reference_scores", "--data=cuhk03/labeled", "--workers=0"]
    command += [f"--data_dir={tmp_path / 'data'}", f"--manual_dir={release}"]
    (status, _, first), (other_status, _, second) = map(finish, [start(*command, **own) for own in two_processes()])
    assert (status, other_status) == (0, 0), first + second
    assert "preparing cuhk03/labeled" in first
    assert "prepar" not in second


@pytest.mark.parametrize("listed", ["set/a,set/a", "set/a, set/b ,set/a"])
def test_data_set_that_is_named_twice_is_refused(listed):
    with pytest.raises(UserError, match=r"data\.train names set/a twice; name each data set once"):
        common.names(listed, field="data.train")


def test_compiled_programs_are_kept_in_the_folder_unless_jax_has_another(tmp_path):
    program = jax.jit(lambda x: x * 3 + len(tmp_path.name))
    with common.programs_kept(tmp_path / "own"):  # the tests have named a folder
        assert jax.config.jax_compilation_cache_dir != str(tmp_path / "own")
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        with common.programs_kept(tmp_path / "own"):
            program(np.ones(5, np.float32))
        assert len(list((tmp_path / "own").glob("*cache"))) >= 1
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        common._keep_programs(Path(before[0]))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["search.py", "--checkpoint=rendered-small", "--query=a.jpg"], "gallery"),
        (["search.py", "--checkpoint=rendered-small", "--gallery=a", "--query=a.jpg"], "index"),
        (["eval.py", "--checkpoint=rendered-small", "--data=cuhk03/labeled"], "output"),
        (["generate_textures.py", "--checkpoint=rendered-small-pg", "--input=a"], "output"),
        (["-m", "san_jax.experiments.chain"], "workdir"),
    ],
)
def test_flag_that_must_be_local_refuses_an_address(command, flag):
    status, output, errors = finish(start(*command, f"--{flag}=s3://bucket/a"))
    said = f"error: --{flag} is s3://bucket/a, but must be local, since it is read and written in place; give a local "
    assert (status, output) == (1, "")
    assert errors == said + "path, and copy it by hand\n"


@pytest.mark.parametrize("command", [["train.py", "--config=configs/baseline.py:small"], ["eval.py"]])
def test_flag_that_may_be_an_address_refuses_those_of_other_kinds(command):
    status, output, errors = finish(start(*command, "--workdir=https://host/run"))
    said = "error: https://host/run is neither a local path nor an s3:// or gs:// address; copy it to one of these\n"
    assert (status, output, errors) == (1, "", said)
