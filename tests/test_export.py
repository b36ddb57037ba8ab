import numpy as np
import pytest
import safetensors
import safetensors.numpy
from commands import run_command
from torch_states import SMALL, assert_same, save, state_of, torch_tensors

from san_jax.commands.export import export
from san_jax.errors import UserError
from san_jax.training import starting_weights


@pytest.mark.parametrize("mode", ["san", "baseline"])
def test_exported_weights_come_back_bit_for_bit(tmp_path, mode):
    state, out = state_of(mode=mode, seed=1), tmp_path / "out.safetensors"
    save(tmp_path / "run", state)
    export(tmp_path / "run", out)
    assert_same(starting_weights.start_from(out, state_of(mode=mode, seed=2), architecture=SMALL), state)


def test_file_holds_what_pytorch_s_state_dicts_hold(tmp_path):
    save(tmp_path / "run", state_of())
    export(tmp_path / "run", tmp_path / "out.safetensors")
    tensors, expected = safetensors.numpy.load_file(tmp_path / "out.safetensors"), torch_tensors()
    counters = {name for name in tensors if name.endswith("num_batches_tracked")}
    assert tensors.keys() - counters == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)
        assert tensors[name].dtype == np.float32
    assert counters == {
        name.replace("running_var", "num_batches_tracked") for name in expected if name.endswith("running_var")
    }
    assert {(tensors[name].shape, tensors[name].dtype.str, int(tensors[name])) for name in counters} == {((), "<i8", 0)}
    with safetensors.safe_open(tmp_path / "out.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_best_and_newest_and_a_checkpoint_s_own_folder_are_told_apart(tmp_path):
    run = tmp_path / "run"
    save(run, state_of(seed=1), step=7, best_map=0.5)
    save(run, state_of(seed=2), step=9, best_map=0.4)
    for path, best, seed in ((run, False, 2), (run, True, 1), (run / "best" / "7", False, 1)):
        export(path, tmp_path / "out", best=best)
        values = safetensors.numpy.load_file(tmp_path / "out")["up4.conv.2.weight"]
        np.testing.assert_array_equal(values, torch_tensors(seed=seed)["up4.conv.2.weight"])


def test_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    save(tmp_path / "run", state_of(mode="baseline"))
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(UserError, match=f"cannot write {taken}"):
        export(tmp_path / "run", taken)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "taken"]


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    ended = run_command("san_jax.commands.export", str(tmp_path), str(tmp_path / "out"), "--best")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"error: {tmp_path} holds no best checkpoint; that needs the workdir of a run that was scored\n"
    )
