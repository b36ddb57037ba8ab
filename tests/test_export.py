import dataclasses
import json
import re
import shutil

import commands
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from exported_networks import model_of
from PIL import Image
from torch_states import SMALL, assert_same, save, state_of, torch_tensors

from san_jax.commands import export as export_command
from san_jax.commands.export import export
from san_jax.errors import UserError
from san_jax.runtimes import checks
from san_jax.training import starting_weights
from san_jax.weights import checksums
from san_jax.weights.loading import load_weights


@pytest.mark.parametrize("mode", ["san", "baseline"])
def test_exported_weights_are_read_back_bit_for_bit(tmp_path, mode):
    state, out = state_of(mode=mode, seed=1), tmp_path / "out.safetensors"
    save(tmp_path / "run", state)
    export(tmp_path / "run", out)
    assert_same(starting_weights.start_from(out, state_of(mode=mode, seed=2), architecture=SMALL), state)


def test_file_holds_the_tensors_of_pytorch_state_dicts(tmp_path):
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
        assert file.metadata().keys() == {"format", "san_jax"}


@pytest.mark.parametrize("name", ["half.safetensors", "half.pth"])
def test_half_precision_takes_half_the_bytes_and_rounds_to_float16(tmp_path, name):
    save(tmp_path / "run", state_of(seed=1))
    export(tmp_path / "run", tmp_path / f"whole_{name}")
    export(tmp_path / "run", tmp_path / name, half=True)
    numbers = sum(values.size for values in torch_tensors().values())
    saved = (tmp_path / f"whole_{name}").stat().st_size - (tmp_path / name).stat().st_size
    assert abs(saved - 2 * numbers) < 0.1 * numbers, "but for padding"
    half, whole = (load_weights(tmp_path / file).weights for file in (name, f"whole_{name}"))
    jax.tree.map(lambda one, all_: np.testing.assert_array_equal(one, all_.astype(np.float16)), half, whole)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype("f4")}


def test_value_that_is_too_large_for_half_precision_is_named(tmp_path):
    state = state_of(seed=1)
    state.encoder["stem"]["norm"]["bias"] = state.encoder["stem"]["norm"]["bias"] + 1e5
    save(tmp_path / "run", state)
    with pytest.raises(UserError, match=r"bn1\.bias has values above 65504, .*; export without --half"):
        export(tmp_path / "run", tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_newest_best_or_a_given_checkpoint_folder_is_exported(tmp_path):
    run = tmp_path / "run"
    save(run, state_of(seed=1), step=7, best_map=0.5)
    save(run, state_of(seed=2), step=9, best_map=0.4)
    for path, best, seed in ((run, False, 2), (run, True, 1), (run / "best" / "7", False, 1)):
        export(path, tmp_path / "out.safetensors", best=best)
        values = safetensors.numpy.load_file(tmp_path / "out.safetensors")["up4.conv.2.weight"]
        np.testing.assert_array_equal(values, torch_tensors(seed=seed)["up4.conv.2.weight"])


def test_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    save(tmp_path / "run", state_of(mode="baseline"))
    taken = tmp_path / "taken.pth"
    taken.mkdir()
    with pytest.raises(UserError, match=f"cannot write {taken}"):
        export(tmp_path / "run", taken)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run", "taken.pth"]


def test_command_reports_an_error_in_one_line(tmp_path):
    ended = commands.run("-m", "san_jax.commands.export", tmp_path, f"--output={tmp_path / 'out.pth'}", "--best")
    said = f"error: {tmp_path} holds no best checkpoint; that needs the workdir of a run that was scored\n"
    assert ended == (1, "", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "OUT.pth"], "the file is given as a flag: san-jax export RUN --output=OUT.pth"),
        (["RUN"], "--output names no file; give one, as san-jax export RUN --output=san.onnx"),
        ([], "this command takes one argument, RUN, but was given none; see --help"),
        (["A", "B", "--output=c.onnx"], "this command takes one argument, RUN, but was given A B; see --help"),
        (["RUN", "--output=s3://bucket/san.onnx"], "--output is s3://bucket/san.onnx, but must be local, since"),
    ],
)
def test_command_line_of_another_form_is_one_line(tmp_path, words, said):
    code, out, err = commands.run("-m", "san_jax.commands.export", *words, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_command_writes_onnx_and_prints_size_nodes_and_differences(tmp_path):
    save(tmp_path / "run", state_of(seed=1))
    flags = [f"--output={tmp_path / 'out.onnx'}", "--input=uint8_nhwc", "--textures"]
    code, out, err = commands.run("-m", "san_jax.commands.export", tmp_path / "run", *flags)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith(f"{tmp_path / 'out.onnx'}: onnx of {tmp_path / 'run'}/checkpoints/7, 0.1 MB, opset 17, ")
    assert re.search(r"onnxruntime \S+ on 10 pictures, alone and in a batch: feats differ .*, textures differ ", second)


@pytest.mark.parametrize("name", ["out.pth", "out.pt", "out.pth.tar", "out.bin", "out.safetensors"])
def test_file_describes_its_networks_and_is_read_back_bit_for_bit(tmp_path, name):
    architecture = dataclasses.replace(SMALL, height=96, width=48)
    save(tmp_path / "run", state_of(seed=1), architecture)
    export(tmp_path / "run", tmp_path / name)
    loaded = load_weights(tmp_path / name)
    assert (loaded.architecture, loaded.mode) == (architecture, "san")
    state = state_of(seed=1)
    for field, weights in loaded.weights.items():
        jax.tree.map(np.testing.assert_array_equal, weights, getattr(state, field))
    assert load_weights(tmp_path / name, height=64).architecture.height == 64


@pytest.mark.parametrize("mode", ["san", "baseline", "san_pg"])
def test_mode_is_that_of_the_checkpoint(tmp_path, mode):
    save(tmp_path / "run", state_of(mode=mode))
    export(tmp_path / "run", tmp_path / "out.safetensors")
    assert load_weights(tmp_path / "out.safetensors").mode == mode


def test_start_from_an_exported_texture_generator_takes_only_body_and_decoder(tmp_path, capsys):
    save(tmp_path / "run", state_of(mode="san_pg", seed=1))
    export(tmp_path / "run", tmp_path / "out.pth")
    fresh = state_of(seed=2)
    state = starting_weights.start_from(tmp_path / "out.pth", fresh, architecture=SMALL)
    for name in ("fc", "classifier"):
        jax.tree.map(np.testing.assert_array_equal, state.encoder[name], fresh.encoder[name])
    assert capsys.readouterr().out.endswith("\n  fresh     fc, classifier\n")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"stem": "fastreid", "neck": "bn"}, {"backbone.layer4.0.bn3.bias", "heads.bottleneck.1.weight"}),
        ({"stem": "strong_baseline", "neck": "bn", "fc_dim": 0}, {"base.conv1.weight", "bottleneck.running_var"}),
        ({"neck": "bn"}, {"conv1.weight", "bottleneck.0.bias"}),
        ({"stem": "fastreid"}, {"backbone.conv1.weight", "heads.fc.0.weight", "heads.classifier.bias"}),
    ],
)
@pytest.mark.parametrize("mode", ["san", "baseline"])
def test_stem_and_neck_are_encoded_in_the_tensor_names_too(tmp_path, change, names, mode):
    """Tensors saved again without their description must not give other features."""
    architecture = dataclasses.replace(SMALL, **change)
    save(tmp_path / "run", state_of(architecture, mode, seed=1), architecture)
    export(tmp_path / "run", tmp_path / "described.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "described.safetensors")
    assert names < tensors.keys()
    safetensors.numpy.save_file(tensors, tmp_path / "bare")
    found = load_weights(tmp_path / "bare", height=SMALL.height, width=SMALL.width)
    assert found.architecture == architecture if mode == "san" else True
    assert (found.architecture.stem, found.architecture.neck, found.mode) == (
        architecture.stem,
        architecture.neck,
        mode,
    )


@pytest.mark.parametrize("name", ["san.npz", "san.h5", "san"])
def test_suffix_of_no_format_is_refused_before_weights_are_read(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}: the suffix .* names no format; name it \.safetensors"):
        export(tmp_path / "nothing", tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["san.onnx", "san.h5"])
def test_model_saves_weights_alone(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}: weights cannot be saved as .*; name it \.safetensors or \.pth"):
        model_of().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_int8_is_calibrated_on_a_folder_of_pictures(tmp_path, capsys):
    save(tmp_path / "run", state_of(seed=1))
    folder = tmp_path / "pictures" / "of_people"
    folder.mkdir(parents=True)
    for number, picture in enumerate(checks.pictures(height=80, width=40, count=20)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    options = dict(precision="int8", calibration=str(folder.parent))
    export(tmp_path / "run", tmp_path / "out.onnx", **options)
    assert "17 Conv" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--calibration has no effect without --precision=int8"):
        export(tmp_path / "run", tmp_path / "out.onnx", **options | {"precision": None})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no pictures .*; give a folder that does"):
        export(tmp_path / "run", tmp_path / "out.onnx", **options | {"calibration": str(tmp_path / "empty")})


def test_large_folder_gives_pictures_at_equal_distances(tmp_path, monkeypatch):
    monkeypatch.setattr(export_command, "CALIBRATION", 3)
    for number in range(9):
        Image.new("RGB", (4, 8)).save(tmp_path / f"{number}.png")
    assert [path.name for path in export_command.pictures_of(tmp_path)] == ["0.png", "4.png", "8.png"]


@pytest.mark.slow
def test_rendered_pictures_for_int8_are_of_people_and_always_the_same():
    pictures = export_command.rendered(height=32, width=16)
    assert (pictures.shape, pictures.dtype) == ((96, 32, 16, 3), np.uint8)
    np.testing.assert_array_equal(pictures, export_command.rendered(height=32, width=16))
    assert pictures.std(axis=(1, 2, 3)).min() > 5


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ('{"mode": "san"}', "'architecture'"),
        ('{"architecture": {"depth": 14}, "mode": "san"}', "missing"),
        ('{"architecture": {"pooling": 3}, "mode": "san"}', "pooling"),
        ('{"architecture": {"depth": "14"}, "mode": "san"}', "depth"),
        ("[1]", "damaged description"),
        ("{", "damaged description"),
    ],
)
def test_invalid_description_is_refused_in_one_line(tmp_path, notes, message):
    safetensors.numpy.save_file(torch_tensors(), tmp_path / "theirs", {"san_jax": notes})
    with pytest.raises(UserError, match=message) as refused:
        load_weights(tmp_path / "theirs")
    assert "\n" not in str(refused.value)


def test_run_saved_before_necks_and_stems_can_be_started_from_and_exported(tmp_path):
    save(tmp_path / "run", state_of(seed=1))
    about = tmp_path / "run" / "checkpoints" / "7" / "about" / "metadata"
    older = {name: value for name, value in json.loads(about.read_text()).items() if name not in ("neck", "stem")}
    about.write_text(json.dumps(older))
    shutil.rmtree(about.parents[1] / checksums.CHECKSUMS)  # which came later, too
    assert_same(starting_weights.start_from(tmp_path / "run", state_of(seed=2), architecture=SMALL), state_of(seed=1))
    export(tmp_path / "run", tmp_path / "out.safetensors")
    assert load_weights(tmp_path / "out.safetensors").architecture == SMALL
