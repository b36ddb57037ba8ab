import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_networks import TINY, model_of

import san_jax
from san_jax.errors import UserError
from san_jax.runtimes import checks, exporting, onnx_file, onnx_graph, onnx_networks, stablehlo
from san_jax.runtimes.exporting import Options
from san_jax.runtimes.interface import INPUTS, normalised_nchw
from san_jax.weights import saving, torch_names

PROGRAMS = ["out.onnx", "out.stablehlo"]


@pytest.fixture(scope="module")
def model():
    return model_of(TINY, "san")


@pytest.mark.parametrize(
    ("name", "given", "format"),
    [
        ("out.onnx", None, "onnx"),
        ("out.stablehlo", None, "stablehlo"),
        ("out.safetensors", "safetensors", "safetensors"),
        ("out.pth.tar", None, "torch"),
        ("out", "onnx", "onnx"),
        ("out.engine", "stablehlo", "stablehlo"),
    ],
)
def test_format_is_that_of_the_suffix_or_given_where_it_does_not_say(name, given, format):
    assert Options(format=given).checked(Path(name)).format == format


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.onnx", {"precision": "int8"}, "int8 needs calibration: pictures of the kind"),
        ("out.onnx", {"calibration": ["a.jpg"]}, "calibration has no effect without int8"),
        ("out.onnx", {"precision": "int8", "calibration": []}, "calibration has no pictures; give some dozens"),
        (
            "out.onnx",
            {"precision": "int8", "calibration": ["absent.jpg"]},
            r"cannot read absent\.jpg \(No such file or directory\); replace or remove it",
        ),
        ("out", {}, r"out: the suffix '' names no format; name it \.safetensors, \.pth, \.onnx or \.stablehlo, or"),
        ("out.h5", {}, r"out\.h5: the suffix '\.h5' names no format"),
        ("out.pth", {"format": "onnx"}, r"out\.pth is named as torch, but the format is onnx; leave it out"),
        ("out.onnx", {"format": "tflite"}, "format is 'tflite'; it can be safetensors, torch, onnx, stablehlo"),
        ("out.onnx", {"input": "nchw"}, "input is 'nchw'; it can be float_nchw, uint8_nhwc"),
        ("out.onnx", {"precision": "bfloat16"}, "precision is 'bfloat16'; it can be"),
        ("out.pth", {"input": "uint8_nhwc"}, "input has no effect on torch, only on onnx and stablehlo; leave it out"),
        ("out.safetensors", {"textures": True}, "textures has no effect on safetensors"),
        ("out.stablehlo", {"precision": "float16"}, "precision has no effect on stablehlo, only on onnx"),
        ("out.onnx", {"half": True}, "half has no effect on onnx, .*; for float16 in ONNX, give precision=float16"),
    ],
)
def test_wrong_or_idle_options_are_refused_before_anything_is_done(tmp_path, model, name, options, message):
    with pytest.raises(UserError, match=message) as refused:
        san_jax.export(model, tmp_path / name, **options)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*PROGRAMS, "out.safetensors", "out.pth"])
def test_every_format_is_checked_and_reports_its_size(tmp_path, model, name):
    exported = san_jax.export(model, tmp_path / name)
    assert exported.size == (tmp_path / name).stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [name]
    found = {
        "onnx": "opset 17, 30 nodes (12 Conv, ", "stablehlo": "for cpu, cuda, tpu",
        "safetensors": "142 tensors", "torch": "142 tensors",
    }  # fmt: skip
    assert exported.holds.startswith(found[exported.format])
    wanted = "feats differ from" if name in PROGRAMS else "read back: all 142 are the same bits"
    assert wanted in exported.figures


@pytest.mark.slow
def test_onnx_and_stablehlo_of_a_generator_hold_its_textures_alone(tmp_path):
    generator = model_of(TINY, "san_pg")
    for name in PROGRAMS:
        with pytest.raises(UserError, match="texture generator, whose features were not trained"):
            san_jax.export(generator, tmp_path / name)
        exported = san_jax.export(generator, tmp_path / name, textures=True, input="uint8_nhwc")
        assert "textures differ" in exported.figures
        assert "feats" not in exported.figures
    assert san_jax.export(generator, tmp_path / "out.pth").format == "torch"


def test_textures_of_a_network_without_decoder_are_refused(tmp_path):
    with pytest.raises(UserError, match="has no decoder"):
        san_jax.export(model_of(TINY), tmp_path / "out.onnx", textures=True)


def tampered(module, name, monkeypatch):
    """Makes the writer of one format write a network whose last layer is another one."""
    if name == "out.onnx":
        head = onnx_networks.head
        monkeypatch.setattr(
            onnx_networks, "head", lambda graph, fc, x: graph.add("Neg", head(graph, fc, x), name="negative")
        )
    elif name == "out.stablehlo":
        function = stablehlo.function
        monkeypatch.setattr(
            stablehlo, "function", lambda *given: lambda x: {"feats": 1.001 * function(*given)(x)["feats"]}
        )
    else:
        monkeypatch.setattr(saving, "torch_tensors", lambda *given: altered(torch_tensors(*given)))


torch_tensors = saving.torch_tensors


def altered(tensors):
    tensors["layer3.0.bn2.bias"] = np.nextafter(tensors["layer3.0.bn2.bias"], np.float32(np.inf))
    return tensors


@pytest.mark.parametrize("name", [*PROGRAMS, "out.safetensors", "out.pth"])
def test_file_that_computes_something_else_is_not_written_and_an_older_one_is_kept(
    tmp_path, model, name, monkeypatch
):
    tampered(exporting, name, monkeypatch)
    message = "feats of the exported network differ" if name in PROGRAMS else "what was read back is not what"
    for older in (None, b"older"):
        if older:
            (tmp_path / name).write_bytes(older)
        with pytest.raises(UserError, match=f"{name} is not written: {message}") as refused:
            san_jax.export(model, tmp_path / name)
        assert "\n" not in str(refused.value)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == ([older] if older else [])


@pytest.mark.parametrize("name", PROGRAMS)
def test_damaged_file_is_not_written(tmp_path, model, name, monkeypatch):
    module = onnx_file if name == "out.onnx" else stablehlo
    content = module.content
    monkeypatch.setattr(module, "content", lambda *given, **more: content(*given, **more)[:-1000] + bytes(1000))
    monkeypatch.setattr(onnx_graph, "counts", lambda content: {})
    with pytest.raises(UserError, match=rf"{name}"):
        san_jax.export(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*PROGRAMS, "out.safetensors"])
def test_full_disk_is_one_line_and_keeps_the_older_file(tmp_path, model, name, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError(28, "No space left on device")

    (tmp_path / name).write_text("older")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=rf"cannot write .*{name} \(No space left on device\); choose another place"):
        san_jax.export(model, tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


def test_half_precision_rounds_weights_and_is_read_back_so(tmp_path, model):
    exported = san_jax.export(model, tmp_path / "out.safetensors", half=True)
    assert "all 142 are the same bits" in exported.figures
    assert exported.size < 0.7 * san_jax.export(model, tmp_path / "whole.safetensors").size


@pytest.mark.parametrize("input", INPUTS)
def test_int8_quarters_the_weights_and_keeps_the_angle_of_the_features(tmp_path, model, input):
    shown = checks.pictures(height=32, width=16, count=20)
    options = dict(precision="int8", input=input, textures=True)
    exported = san_jax.export(model, tmp_path / "out.onnx", calibration=shown, **options)
    assert "have a cosine similarity to san_jax's of 0.9" in exported.figures
    graph = onnx.load(tmp_path / "out.onnx").graph
    bytes_of = {one.name: (one.data_type, len(one.raw_data)) for one in graph.initializer if len(one.dims) == 4}
    assert bytes_of["layer4.0.conv2.weight_quantized"] == (onnx.TensorProto.INT8, 64 * 64 * 9 // 16)
    assert not [name for name, (kind, _) in bytes_of.items() if kind == onnx.TensorProto.FLOAT and "input" not in name]
    found = onnx_file.runner(tmp_path / "out.onnx")(shown if input == "uint8_nhwc" else normalised_nchw(shown))
    expected = model.features(shown)
    assert 0.95 < checks.cosines(found["feats"].astype(float), expected.astype(float)).min() < 0.999999


def test_int8_that_is_too_far_is_not_written(tmp_path, model, monkeypatch):
    monkeypatch.setitem(checks.COSINES, "int8", 0.9999999)
    shown = checks.pictures(height=32, width=16, count=4)
    with pytest.raises(UserError, match=r"is not written: feats .*; calibrate on pictures of the kind"):
        san_jax.export(model, tmp_path / "out.onnx", precision="int8", calibration=shown)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_missing_library_is_named_before_anything_is_computed(tmp_path, model, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    message = rf"ONNX needs {missing}, which is not installed; pip install 'san_jax\[onnx\]'"
    with pytest.raises(UserError, match=message):
        san_jax.export(model, tmp_path / "out.onnx")
    assert san_jax.export(model, tmp_path / "out.safetensors")


def test_libraries_are_imported_only_for_onnx():
    code = "import sys, san_jax.commands.export; assert not {'onnx', 'onnxruntime', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_installed_packages_agree_with_each_other():
    """A library for exports must not hold JAX, Flax or orbax at an older version than this package needs."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_names_of_nodes_are_those_of_pytorch(tmp_path, model):
    san_jax.export(model, tmp_path / "out.onnx")
    nodes = {node.name for node in onnx.load(tmp_path / "out.onnx").graph.node if node.op_type == "Conv"}
    theirs = {name.removesuffix(".weight") for name in torch_names.encoder_names(depth=10, fc_dim=8)}
    assert {name for name in nodes if "downsample" not in name} <= theirs
