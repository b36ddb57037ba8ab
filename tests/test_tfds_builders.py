import fcntl
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from cuhk03_release import write_release

from san_jax.errors import UserError
from san_jax.process import identity
from tfds_builders import __main__, cuhk03, open_source, staging

NAME = "cuhk03/labeled_texture"
FOLDER = "cuhk03/labeled_texture/1.0.0"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"), height=64)


@pytest.fixture(scope="module")
def prepared(release, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    open_source(NAME, "train", data_dir=data_dir, manual_dir=release)
    return data_dir


@pytest.fixture
def own_data_dir(prepared, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(prepared, tmp_path / "data")


def records_of(source) -> list:
    return [source[row] for row in range(len(source))]


def start(code: str, *arguments, **options) -> subprocess.Popen:
    """Another Python process with captured standard error."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_prepared_set_needs_no_release(prepared):
    assert len(open_source(NAME, "query", data_dir=prepared)) == 8


@pytest.mark.parametrize("read_before", [False, True])
def test_source_can_be_pickled_for_worker_processes(read_before, prepared):
    source = open_source(NAME, "train", data_dir=prepared)
    if read_before:
        assert source[0]["name"] == source.names[0]
    there = pickle.loads(pickle.dumps(source))
    assert records_of(there) == records_of(source)
    np.testing.assert_array_equal(there.pids, source.pids)


def test_worker_processes_initialise_no_jax_backend(prepared):
    """A worker that reads records must not claim the accelerator, though some builders render with JAX."""
    source = open_source(NAME, "train", data_dir=prepared)
    reader = start(
        """
        import pickle, sys
        source = pickle.loads(bytes.fromhex(sys.argv[1]))
        assert source[0]["name"] == source.names[0]
        from jax._src import xla_bridge
        assert not xla_bridge.backends_are_initialized()
        """,
        pickle.dumps(source).hex(),
    )
    assert (reader.communicate()[1], reader.returncode) == ("", 0)


def test_relative_data_dir_is_found_after_a_change_of_directory(prepared, monkeypatch, tmp_path):
    monkeypatch.chdir(prepared.parent)
    source = open_source(NAME, "train", data_dir=prepared.name)
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(source))[3]["name"] == source.names[3]


@pytest.mark.parametrize("name", ["cuhk03", "cuhk03/nothing", "market1502", "", "cuhk03/labeled/x"])
def test_unknown_data_set_lists_the_known_ones(name, tmp_path):
    with pytest.raises(UserError, match=f"no data set {name}; there are cuhk03/labeled, cuhk03/detected, "):
        open_source(name, "train", data_dir=tmp_path)


def test_unknown_split_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="no split test; it has train, query, gallery"):
        open_source(NAME, "test", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["zeros", "cut", "missing"])
def test_damaged_records_name_set_split_row_and_the_way_out(damage, own_data_dir):
    (shard,) = (own_data_dir / FOLDER).glob("*train*")
    if damage == "zeros":
        with open(shard, "r+b") as file:
            file.seek(100_000)
            file.write(bytes(50_000))
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:100_000])
    else:
        shard.unlink()
    source = open_source(NAME, "train", data_dir=own_data_dir)
    message = f"{NAME}, split train: the record of row \\d+ cannot be read; delete {own_data_dir / FOLDER} and start"
    with pytest.raises(UserError, match=message):
        records_of(source)


@pytest.mark.parametrize("file", ["metadata.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"train": [1]}', '{"train', "[" * 100_000])
def test_damaged_description_names_the_folder_to_delete(file, content, own_data_dir):
    path = own_data_dir / FOLDER / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=f"{NAME} as prepared in {own_data_dir}.* is damaged; delete"):
        open_source(NAME, "train", data_dir=own_data_dir)


def test_unwritable_folder_is_named(release, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{NAME} cannot be prepared in {tmp_path / 'file'}"):
        open_source(NAME, "train", data_dir=tmp_path / "file", manual_dir=release)


def test_folder_whose_name_is_not_utf_8_is_refused_before_anything_is_written(release, tmp_path):
    with pytest.raises(UserError, match=r"data_dir .*d\udcff is no UTF-8, .*; rename it"):
        open_source(NAME, "train", data_dir=tmp_path / "d\udcff", manual_dir=release)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_preparation_are_removed_by_the_next(release, prepared, tmp_path):
    killed = start(
        """
        import os, signal, sys
        from tfds_builders import cuhk03, open_source
        read = cuhk03.Cuhk03.records
        def read_some(*args):
            for count, record in enumerate(read(*args)):
                if count == 20:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield record
        cuhk03.Cuhk03.records = read_some
        open_source("cuhk03/labeled_texture", "train", data_dir=sys.argv[1], manual_dir=sys.argv[2])
        """,
        tmp_path,
        release,
    )
    killed.communicate()
    assert killed.returncode == -9
    assert not (tmp_path / FOLDER).exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2  # the lock and an unfinished folder
    source = open_source(NAME, "train", data_dir=tmp_path, manual_dir=release)
    assert records_of(source) == records_of(open_source(NAME, "train", data_dir=prepared))
    assert {path.name for path in tmp_path.iterdir()} == {"cuhk03", ".cuhk03-labeled_texture.lock"}


def unfinished(data_dir, name, **owner):
    """A staging folder of a set, as left by a process with this owner record."""
    path = data_dir / f"{staging.prefix(name)}abcd1234"
    path.mkdir(parents=True)
    (path / "picture").write_text("")
    here = {"name": name, "pid": os.getpid(), "started": identity.started(os.getpid()), **identity.machine()}
    (path / staging.OWNER).write_text(json.dumps(here | owner))
    return path


def test_leftover_is_deleted_only_if_its_process_of_this_machine_is_dead(tmp_path, capsys):
    gone = start("import os; print(os.getpid())", stdout=subprocess.PIPE)
    dead = int(gone.communicate()[0])
    owners = {
        "alive": {},
        "dead": {"pid": dead},
        "reused": {"started": "1"},  # another process has that pid now
        "elsewhere": {"pid": dead, "host": "another"},
        "rebooted": {"pid": dead, "boot": "another"},
        "contained": {"pid": dead, "pid_namespace": "another"},
    }
    paths = {case: unfinished(tmp_path / case, "set/small", **owner) for case, owner in owners.items()}
    for case in owners:
        staging.clear(tmp_path / case, "set/small")
    assert {case for case, path in paths.items() if not path.exists()} == {"dead", "reused"}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0] == (
        f"{paths['elsewhere']} belongs to process {dead} of another; delete it if nobody prepares set/small any more"
    )


@pytest.mark.parametrize(
    ("cleared", "other"),
    [
        ("set/full-occlusion0", "set/full-occlusion0.6"),
        ("set/full", "set/full.1"),
        ("set/full-x", "set-full/x"),
    ],
)
def test_leftover_of_a_set_with_the_same_name_prefix_is_kept(cleared, other, tmp_path):
    path = unfinished(tmp_path, other, started="1")
    staging.clear(tmp_path, cleared)
    assert path.exists()
    staging.clear(tmp_path, other)
    assert not path.exists()


def test_of_two_processes_one_prepares_and_one_waits(release, prepared, tmp_path):
    code = """
        import sys, time
        from tfds_builders import cuhk03, open_source
        read = cuhk03.Cuhk03.records
        def read_slowly(*args):
            for record in read(*args):
                time.sleep(0.01)
                yield record
        cuhk03.Cuhk03.records = read_slowly
        open_source("cuhk03/labeled_texture", "train", data_dir=sys.argv[1], manual_dir=sys.argv[2])
        """
    both = [start(code, tmp_path, release) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum("preparing cuhk03/labeled_texture" in text for text in told) == 1, told
    source = open_source(NAME, "train", data_dir=tmp_path)
    assert records_of(source) == records_of(open_source(NAME, "train", data_dir=prepared))


def test_without_locks_the_first_finished_preparation_is_used(release, prepared, tmp_path, monkeypatch):
    """On such a file system the unfinished folder of another process is kept, and its finished one is used."""

    def no_locks(*_):
        raise OSError("locks are not supported")

    read = cuhk03.Cuhk03.records

    def read_while_another_finishes(self, *args):
        if not (tmp_path / FOLDER).exists():
            shutil.copytree(prepared / FOLDER, tmp_path / FOLDER)
        return read(self, *args)

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(cuhk03.Cuhk03, "records", read_while_another_finishes)
    theirs = unfinished(tmp_path, NAME)
    source = open_source(NAME, "train", data_dir=tmp_path, manual_dir=release)
    assert records_of(source) == records_of(open_source(NAME, "train", data_dir=prepared))
    assert theirs.exists()


def test_full_disk_is_an_error_of_one_line_and_leaves_no_files(release, tmp_path):
    command = 'ulimit -f 100 && exec "$0" -m tfds_builders cuhk03/labeled --manual_dir="$1" --data_dir="$2"'
    result = subprocess.run(
        ["bash", "-c", command, sys.executable, release, tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    started, error = result.stderr.splitlines()
    assert started == f"preparing cuhk03/labeled in {tmp_path}"
    assert re.fullmatch(f"error: cuhk03/labeled cannot be prepared in {tmp_path}: .*File too large.*", error)
    assert [path.name for path in tmp_path.iterdir()] == [".cuhk03-labeled.lock"]


def test_command_prepares_a_set_and_prints_its_counts(release, tmp_path, monkeypatch, capsys):
    arguments = ["cuhk03/labeled", f"--manual_dir={release}", f"--data_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["tfds_builders", *arguments])
    __main__.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["split", "pictures", "people", "cameras"],
        ["train", "84", "10", "2"],
        ["query", "8", "4", "2"],
        ["gallery", "27", "4", "2"],
    ]


def test_command_with_a_closed_stdout_pipe_exits_quietly(prepared, unread):
    command = [sys.executable, "-m", "tfds_builders", NAME, f"--data_dir={prepared}"]
    done = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_command_escapes_characters_that_stdout_cannot_encode(prepared, tmp_path):
    (tmp_path / "dätä").symlink_to(prepared)
    command = [sys.executable, "-m", "tfds_builders", NAME, f"--data_dir={tmp_path / 'dätä'}"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"{NAME} is in {tmp_path}/d\\xe4t\\xe4/" in done.stdout


def test_command_exits_with_1_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfds_builders", "cuhk03/labeled", f"--data_dir={tmp_path}"])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: cuhk03/labeled is not in data_dir")
