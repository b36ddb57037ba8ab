"""Runs written ONNX files in onnxruntime and compares them with the networks; small networks of every kind."""

import dataclasses

import jax
import numpy as np
import onnx
import pytest
from exported_networks import ARCHITECTURES, DRAWING, model_of
from torch_states import SMALL

from san_jax.errors import UserError
from san_jax.runtimes import checks, onnx_file, onnx_graph, onnx_networks
from san_jax.runtimes.interface import INPUTS, Interface


def written(model, folder, *, textures=False, half=False, input="float_nchw"):
    """The interface of a model's file, its path and its graph."""
    interface = Interface(model.architecture, input, feats=model.mode != "san_pg", textures=textures)
    weights = jax.tree.map(np.asarray, model.weights)
    path = folder / "network.onnx"
    path.write_bytes(onnx_file.content(interface, weights, half=half, what="network.onnx"))
    return interface, path, onnx.load(path).graph


def pictures_for(architecture, count=5):
    return checks.pictures(height=architecture.height, width=architecture.width, count=count)


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_are_those_of_the_model_at_every_batch_size(tmp_path, name, input):
    model = model_of(ARCHITECTURES[name])
    interface, path, _ = written(model, tmp_path, input=input)
    run, shown = onnx_file.runner(path), pictures_for(model.architecture)
    expected = model.features(shown)
    assert np.abs(expected).max() > 0.01
    for rows in (slice(0, 1), slice(1, 3), slice(None)):
        feats = run(interface.fed(shown[rows]))["feats"]
        np.testing.assert_allclose(feats, expected[rows], atol=1e-5 * np.abs(expected).max())
        assert feats.dtype == np.float32


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("mode", ["san", "san_pg"])
def test_textures_are_those_of_the_model_as_pixels_and_as_numbers(tmp_path, name, mode):
    model = model_of(DRAWING[name], mode)
    shown = pictures_for(model.architecture)
    expected = model.textures(shown)
    interface, path, graph = written(model, tmp_path, textures=True, input="uint8_nhwc")
    pixels = onnx_file.runner(path)(interface.fed(shown))["textures"]
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert np.mean(pixels != expected) < 0.01
    assert [output.name for output in graph.output] == (["textures"] if mode == "san_pg" else ["feats", "textures"])
    interface, path, _ = written(model, tmp_path, textures=True)
    numbers = onnx_file.runner(path)(interface.fed(shown))["textures"]
    np.testing.assert_allclose(
        np.clip(numbers, -1, 1), np.moveaxis(expected, -1, 1) / 127.5 - 1, atol=0.51 / 127.5
    )
    assert np.ptp(expected) > 3, "a drawing, not one colour"


def test_each_convolution_is_one_node_and_maps_are_never_transposed(tmp_path):
    _, path, graph = written(model_of(SMALL), tmp_path)
    kinds = onnx_graph.counts(path.read_bytes())
    assert kinds == {
        "Conv": 17, "Relu": 14, "Add": 4, "MaxPool": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1
    }  # fmt: skip
    names = {node.name for node in graph.node}
    assert {"conv1", "layer1.0.conv1", "layer4.0.downsample", "fc"} < names
    constants = {one.name: tuple(one.dims) for one in graph.initializer}
    assert constants["layer1.0.conv2.weight"] == (2, 2, 3, 3), "OIHW, as PyTorch has them"


def test_pictures_as_they_are_are_transposed_once_and_normalised_in_the_graph(tmp_path):
    _, path, _ = written(model_of(SMALL), tmp_path, input="uint8_nhwc")
    kinds = onnx_graph.counts(path.read_bytes())
    assert (kinds["Transpose"], kinds["Cast"], kinds["Mul"], kinds["Add"]) == (1, 1, 1, 5)


@pytest.mark.parametrize(
    ("input", "kind", "shape"),
    [
        ("float_nchw", onnx.TensorProto.FLOAT, ["batch", 3, 64, 32]),
        ("uint8_nhwc", onnx.TensorProto.UINT8, ["batch", 64, 32, 3]),
    ],
)
def test_input_is_named_images_and_has_an_open_batch(tmp_path, input, kind, shape):
    _, path, graph = written(model_of(SMALL), tmp_path, input=input)
    (images,), (feats,) = graph.input, graph.output
    assert (images.name, images.type.tensor_type.elem_type) == ("images", kind)
    assert [axis.dim_param or axis.dim_value for axis in images.type.tensor_type.shape.dim] == shape
    assert feats.name == "feats"
    assert [axis.dim_param or axis.dim_value for axis in feats.type.tensor_type.shape.dim] == ["batch", 8]
    notes = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert (notes["input"], notes["size"]) == (input, "64 x 32 (height x width)")


@pytest.mark.parametrize("input", INPUTS)
def test_float16_halves_the_weights_and_keeps_the_features_near(tmp_path, input):
    model = model_of(SMALL, "san")
    options = dict(textures=True, input=input)
    _, path, graph = written(model, tmp_path, **options)
    whole, shown = sum(len(one.raw_data) for one in graph.initializer), pictures_for(SMALL)
    interface, path, graph = written(model, tmp_path, **options, half=True)
    large = [one for one in graph.initializer if len(one.dims) == 4 and not one.name.startswith("input.")]
    assert {one.data_type for one in large} == {onnx.TensorProto.FLOAT16}
    assert sum(len(one.raw_data) for one in graph.initializer) < 0.55 * whole
    found = onnx_file.runner(path)(interface.fed(shown))
    expected = model.features(shown)
    away = np.linalg.norm(found["feats"] - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 1e-5 < away.max() < 5e-3
    assert found["textures"].dtype == interface.dtype


def test_value_that_float16_cannot_hold_is_named(tmp_path):
    model = model_of(SMALL)
    scale = model.weights["encoder"]["stage1"][0]["norm1"]["scale"]
    model.weights["encoder"]["stage1"][0]["norm1"]["scale"] = scale + 1e7
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight has values above 65504"):
        written(model, tmp_path, half=True)


@dataclasses.dataclass(frozen=True)
class Newer(type(SMALL)):
    pooling: str = "average"


@pytest.mark.parametrize(
    ("change", "named"), [({"pooling": "gem"}, r"pooling = 'gem'"), ({"neck": "l2"}, r"neck = 'l2'")]
)
def test_option_without_nodes_is_refused_by_name(change, named):
    newer = Newer(**dataclasses.asdict(SMALL))
    onnx_networks.check(newer)
    with pytest.raises(UserError, match=f"{named} cannot be exported to ONNX; export to .stablehlo"):
        onnx_networks.check(dataclasses.replace(newer, **change))


def test_network_that_no_onnx_file_can_hold_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_graph, "LARGEST", 2**20 + 1000)
    with pytest.raises(UserError, match=r"network\.onnx: .* GB of weights, but an ONNX file holds 2 GB"):
        written(model_of(SMALL), tmp_path)
