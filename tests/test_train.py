"""`train.py` and `eval.py` as commands, on a small release."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import commands
import pytest
from commands import ROOT, finish
from finished_runs import arrays_in, assert_same_bits, finished_run, shared_folder, train_command

from san_jax.commands import train as command_module
from san_jax.errors import UserError
from san_jax.weights import stored

BASELINE = "configs/baseline.py:small"  # of the modes, the quickest to compile
pytestmark = pytest.mark.slow


def command(workdir, fields, config="configs/san.py:small"):
    return train_command(workdir, fields, config)


def start(*arguments, environment=None, **fields):
    return commands.Running(*command(*arguments, **fields), environment=environment, together=True)


def train(*arguments, **fields):
    """Exit code and output of a run that is left alone."""
    return finish(start(*arguments, **fields))


@pytest.fixture(scope="module")
def uninterrupted(finished):
    """An uninterrupted run of SAN: workdir and output."""
    return finished("san")


def test_killed_and_restarted_run_ends_like_an_uninterrupted_one(uninterrupted, data, tmp_path):
    """SIGKILL three times, at random moments: during a step, a save or the scoring."""
    seed, kills, step = time.time_ns(), 0, 0
    print(f"moments of the kills by random.Random({seed})")
    rng = random.Random(seed)
    while True:
        process = start(tmp_path, data)
        while kills < 3 and process.poll() is None:
            newest = stored.newest(tmp_path)
            if newest is not None and int(newest.name) > step:
                step = int(newest.name)
                time.sleep(rng.uniform(0, 0.5))
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            time.sleep(0.02)
        status, output = finish(process)
        if status != -signal.SIGKILL:
            break
    assert status == 0, output
    assert kills >= 2, "the run ended before it could be killed"
    assert_same_bits(uninterrupted[0], tmp_path)


def test_sigterm_and_ctrl_c_save_and_the_run_resumes(uninterrupted, data, tmp_path):
    stop_and_resume(tmp_path, data, numbers=(signal.SIGTERM, signal.SIGINT))
    assert_same_bits(uninterrupted[0], tmp_path)


def stop_and_resume(workdir, *arguments, numbers=(signal.SIGTERM,)):
    """Sends each signal to a run after its next checkpoint, then starts the run again and lets it finish."""
    for number in numbers:
        before = stored.newest(workdir)
        process = start(workdir, *arguments)
        while stored.newest(workdir) == before and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        status, output = finish(process)
        assert status == 128 + number, output
        assert "Traceback" not in output
        said = [line for line in output.splitlines() if line.startswith("stopped")]
        assert len(said) == 1, output
        # While the run is being scored or compiles another phase, nothing is unsaved and it ends at once.
        assert said[0].startswith("stopped by") or f"after step {stored.newest(workdir).name}," in said[0]
    status, output = train(workdir, *arguments)
    assert status == 0, output


def test_signal_at_any_moment_ends_in_one_line_and_bounded_time(uninterrupted, data, tmp_path):
    """During imports, data preparation, compiling and steps; each run resumes in the same workdir."""
    seed = time.time_ns()
    print(f"moments of the signals by random.Random({seed})")
    moments = random.Random(seed)
    numbers = itertools.cycle([signal.SIGTERM, signal.SIGINT])
    for number, seconds in zip(numbers, (0.3, 1, 2, 3, 5, 8), strict=False):
        process = commands.start_alone(*command(tmp_path, data))
        time.sleep(seconds * moments.uniform(0.8, 1.2))
        os.killpg(process.pid, number)
        sent = time.monotonic()
        output, _ = process.communicate(timeout=600)
        assert time.monotonic() - sent < 15, output
        assert process.returncode == 128 + number, (seconds, output)
        assert "Traceback" not in output
        assert output.splitlines()[-1].startswith("stopped"), output
    status, output = train(tmp_path, data)
    assert status == 0, output
    assert_same_bits(uninterrupted[0], tmp_path)


def start_on_two(workdirs, fields, config="configs/san.py:small"):
    """Starts two processes with a device each, on workdirs that should be one."""
    variables = commands.two_processes()
    return [start(place, fields, config, environment=own) for place, own in zip(workdirs, variables, strict=True)]


def test_signal_to_one_of_two_processes_stops_both_after_the_same_step_and_they_or_one_alone_resume(data, tmp_path):
    for number, index in ((signal.SIGTERM, 1), (signal.SIGINT, 0)):
        before = stored.newest(tmp_path)
        both = start_on_two([tmp_path, tmp_path], data, BASELINE)
        while stored.newest(tmp_path) == before and both[0].poll() is None:
            time.sleep(0.05)
        os.killpg(both[index].pid, number)
        (status, output), (other_status, other_output) = finish(both[index]), finish(both[1 - index])
        assert (status, other_status) == (128 + number, 143), output + other_output
        said = f"stopped after step {stored.newest(tmp_path).name}, which is saved"
        assert said in output
        assert said in other_output
        assert before is None or int(stored.newest(tmp_path).name) > int(before.name)
    stopped = int(stored.newest(tmp_path).name)
    status, output = train(tmp_path, data, BASELINE)
    assert status == 0, output
    assert f"\nstep {stopped + 1}/" in output
    assert int(stored.newest(tmp_path, best=True).name) > stopped


def test_two_processes_that_do_not_share_their_workdir_are_an_error(finished, data, tmp_path):
    """The same command on two hosts, whose folders of this name are two."""
    shutil.copytree(finished("baseline")[0], tmp_path / "own" / "run")
    (tmp_path / "other").mkdir()
    words = [ROOT / "train.py", *command("run", data, f"{ROOT / BASELINE}")[1:]]
    both = [
        commands.Running(*words, cwd=tmp_path / host, environment=variables, together=True)
        for host, variables in zip(("own", "other"), commands.two_processes(), strict=True)
    ]
    for status, output in map(finish, both):
        assert status == 1, output
        assert "the workdir must be one folder that all hosts share" in output.splitlines()[-1]
    assert not (tmp_path / "other" / "run" / "config.json").exists()


def test_second_run_in_a_workdir_is_refused_and_the_first_continues(finished, data, tmp_path):
    first = start(tmp_path, data, BASELINE)
    while not (tmp_path / "config.json").exists() and first.poll() is None:
        time.sleep(0.05)
    second = start(tmp_path, data, BASELINE)
    status, output = finish(second)
    assert status == 1, output
    assert f"{tmp_path} is in use by a training, pid {first.pid} on " in output.splitlines()[-1]
    status, output = finish(first)
    assert status == 0, output
    assert_same_bits(finished("baseline")[0], tmp_path)


def test_finished_run_prints_its_scores_when_started_again(finished, data, tmp_path):
    workdir, output = finished("baseline")
    status, again = train(shutil.copytree(workdir, tmp_path / "run"), data, BASELINE)
    assert status == 0
    assert again.split("in percent\n")[-1] == output.split("in percent\n")[-1]


def test_loss_decreases_and_the_workdir_is_complete(uninterrupted):
    workdir, output = uninterrupted
    assert "10 identities from 2 cameras" in output
    assert {"config.json", "events", "checkpoints", "best"} <= {path.name for path in workdir.iterdir()}
    assert json.loads((workdir / "config.json").read_text())["encoder"]["depth"] == 10
    terms = [line.split() for line in output.splitlines() if line.startswith("step ")]
    first, last = (float(line[line.index("id") + 1]) for line in (terms[0], terms[-1]))
    assert last < first


def test_eval_scores_the_run_with_best_metric_and_data_flags(finished, tmp_path):
    workdir, output = finished("baseline")
    workdir, scores = shutil.copytree(workdir, tmp_path / "run"), {}
    for flags in (["--best"], ["--metric=cuhk03"], ["--data=cuhk03/labeled,cuhk03/detected"]):
        status, _, errors = commands.run("eval.py", f"--workdir={workdir}", *flags)
        assert status == 0, errors
        scores[flags[0]] = json.loads((workdir / "scores.json").read_text())
    assert f"{100 * scores['--best']['mAP']:.2f}" in output
    assert scores["--best"]["metric"] == "market1501"
    assert scores["--metric=cuhk03"]["metric"] == "cuhk03"
    assert scores["--metric=cuhk03"]["mAP"] != scores["--best"]["mAP"]
    several = scores["--data=cuhk03/labeled,cuhk03/detected"]
    assert several["data"] == "cuhk03/labeled"
    assert set(several["sets"]) == {"cuhk03/labeled", "cuhk03/detected"}
    assert several["mAP"] == several["sets"]["cuhk03/labeled"]["mAP"]
    assert {"rank1", "rank5", "rank10", "rank20", "mINP", "step"} <= set(several)


def test_eval_on_two_processes_gives_the_scores_of_one(finished, tmp_path):
    workdir, _ = finished("baseline")
    place = f"--workdir={workdir}", f"--report_file={tmp_path / 'page.html'}"
    alone = commands.run("eval.py", *place, f"--output={tmp_path / 'alone.json'}")
    (tmp_path / "page.html").unlink()
    place += (f"--output={tmp_path / 'both.json'}",)
    both = [commands.start("eval.py", *place, **own) for own in commands.two_processes()]
    first, second = map(commands.finish, both)
    assert (alone[0], first[0], second[0]) == (0, 0, 0), first[2] + second[2]
    found, expected = (json.loads((tmp_path / name).read_text()) for name in ("both.json", "alone.json"))
    assert found.keys() == expected.keys()
    assert found["sets"]["cuhk03/labeled_texture"] == pytest.approx(expected["sets"]["cuhk03/labeled_texture"])
    assert "</html>" in (tmp_path / "page.html").read_text()
    assert "percent" in first[1]
    assert "percent" not in second[1], "the first process prints the table"


GENERATOR = {"data.train": "pit/release", "schedule.epochs": 4, "schedule.warmup_epochs": 0, "schedule.eval_every": 2}


@pytest.fixture(scope="module")
def generator(tmp_path_factory, data):
    """An uninterrupted run of a texture generator: workdir and output."""
    folder = shared_folder(tmp_path_factory) / "generator"
    return finished_run(folder, data | GENERATOR, "configs/san_pg.py:small")


def test_texture_generator_resumes_after_a_stop_and_writes_its_textures(generator, data, tmp_path):
    stop_and_resume(tmp_path, data | GENERATOR, "configs/san_pg.py:small")
    assert_same_bits(generator[0], tmp_path)
    names = ["step_000018.png", "step_000036.png"]
    assert sorted(path.name for path in (tmp_path / "textures").iterdir()) == names
    for name in names:
        assert (tmp_path / "textures" / name).read_bytes() == (generator[0] / "textures" / name).read_bytes()


def test_eval_scores_the_held_out_pairs_of_a_texture_generator(generator):
    workdir, output = generator
    status, shown, errors = commands.run("eval.py", f"--workdir={workdir}")
    assert status == 0, errors
    assert shown.splitlines()[-2:] == output.splitlines()[-2:], "the table of the run's end"
    scores = json.loads((workdir / "scores.json").read_text())
    assert (scores["data"], scores["metric"], scores["step"]) == ("pit/release", "textures", 36)
    assert 0 < scores["L1"] == scores["sets"]["pit/release"]["L1"] < 1
    assert {"PSNR", "SSIM"} <= set(scores)
    status, _, errors = commands.run("eval.py", f"--workdir={workdir}", "--metric=cuhk03")
    assert status == 1
    assert errors.startswith("error: --metric is for re-ID")
    assert errors.count("\n") == 1


def test_san_starts_from_a_texture_generator_and_mixes_in_pairs(generator, data, tmp_path):
    fields = {"init_from": generator[0], "batch.pit_pictures": 4, "data.pit": "pit/release", "schedule.epochs": 3}
    fields |= {"loss.texture_triplets": 0.0, "schedule.warmup_epochs": 0}
    status, output = train(tmp_path / "uninterrupted", data | fields)
    assert status == 0, output
    assert "\n  fresh     fc, classifier\n" in output
    assert "pit/release: 76 pairs of picture and texture, 4 per batch" in output
    assert "texture_triplets" not in output
    stop_and_resume(tmp_path / "stopped", data | fields)
    assert_same_bits(tmp_path / "uninterrupted", tmp_path / "stopped")


@pytest.mark.parametrize(
    ("fields", "config", "named"),
    [
        (
            {"data.manual_dir": "/nowhere", "data.data_dir": "/tmp/nothing-prepared"},
            "configs/san.py:small",
            "manual_dir",
        ),
        ({"batch.identites": 4}, "configs/san.py:small", "identit"),
        ({}, "configs/sam.py", "configs/sam.py"),
        ({}, "configs/san.py:huge", "huge"),
        ({"batch.identities": "four"}, "configs/san.py:small", "identities"),
        ({"data.train": "cuhk04/labeled"}, "configs/san.py:small", "cuhk03/labeled_texture"),
        ({"data.train": "cuhk03/labeled"}, "configs/san.py:small", "no textures"),
        ({}, "configs/san_pg.py:small", "cuhk03/labeled_texture has no split test"),
        (  # before data are prepared, for which there is no release here
            {"init_from": "/nowhere", "data.manual_dir": "", "data.data_dir": "/tmp/nothing-prepared"},
            "configs/san.py:small",
            "init_from: there is no /nowhere; give a run, a checkpoint or a file",
        ),
        ({"reid.learning_rate": 1e38}, BASELINE, "step"),
    ],
)
def test_invalid_input_is_an_error_of_one_line_and_leaves_no_checkpoint(fields, config, named, data, tmp_path):
    workdir = tmp_path / "run"
    status, _, errors = commands.run(*command(workdir, data | fields, config))
    assert status == 1, errors
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("preparing")]
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: ")
    assert named in lines[0]
    assert stored.newest(workdir) is None


def test_profile_names_steps_in_ascending_order():
    assert command_module.steps_of("100:110") == range(100, 110)
    for written in ("100", "110:100", "5:5", "a:b", ":7", "-1:3"):
        with pytest.raises(UserError, match=rf"--profile={written}: give FIRST:LAST, two steps in ascending order"):
            command_module.steps_of(written)


def test_run_of_another_architecture_is_refused_and_the_checkpoint_kept(finished, data, tmp_path):
    workdir = shutil.copytree(finished("baseline")[0], tmp_path / "run")
    before = arrays_in(workdir)[0]
    status, output = train(workdir, data | {"encoder.fc_dim": 24}, BASELINE)
    assert status == 1
    assert "fc_dim 16 (this run: 24)" in output
    assert arrays_in(workdir)[0] == before
    assert json.loads((workdir / "config.json").read_text())["encoder"]["fc_dim"] == 16


def test_full_disk_is_an_error_of_one_line_and_keeps_the_last_checkpoint(finished, data, tmp_path):
    """Simulated by `ulimit -f`: no file may exceed this many blocks."""
    workdir = shutil.copytree(finished("baseline")[0], tmp_path / "run")
    before = arrays_in(workdir)[0]
    line = " ".join(
        f"'{part}'" for part in (sys.executable, *command(workdir, data | {"schedule.epochs": 6}, BASELINE))
    )
    # The limit would also truncate compiled programs in the cache, which later runs read.
    environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000"}
    limited = ["bash", "-c", f"ulimit -f 100; {line}"]
    done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert [text for text in done.stderr.splitlines() if "cannot write a checkpoint under" in text]
    assert "Traceback" not in done.stderr
    assert arrays_in(workdir)[0] == before
