import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from san_jax.networks.decoder import Decoder
from san_jax.networks.encoder import BLOCKS, NECKS, Encoder
from san_jax.weights import torch_names


def shapes(model: nnx.Module, kind: type) -> dict:
    return {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(model, kind))}


def assert_names_cover(names: dict, model: nnx.Module):
    for kind, is_stat in ((nnx.Param, False), (nnx.BatchStat, True)):
        named = [entry.path for entry in names.values() if entry.is_stat == is_stat]
        assert len(named) == len(set(named))
        assert set(named) == set(shapes(model, kind))


@pytest.mark.parametrize(
    ("depth", "fc_dim", "neck"),
    [(depth, 32, "none") for depth in BLOCKS] + [(14, fc_dim, neck) for fc_dim in (0, 32) for neck in NECKS],
)
def test_every_parameter_of_an_encoder_has_one_name(depth, fc_dim, neck):
    model = nnx.eval_shape(lambda: Encoder(depth=depth, num_pids=4, fc_dim=fc_dim, neck=neck, rngs=nnx.Rngs(0)))
    assert_names_cover(torch_names.encoder_names(depth=depth, fc_dim=fc_dim, neck=neck), model)


@pytest.mark.parametrize(
    ("width", "skips", "coarse"), [(1.0, True, 0), (1.0, False, 0), (1.0, True, 3), (0.0, True, 3)]
)
def test_every_parameter_of_the_decoder_has_one_name(width, skips, coarse):
    options = dict(encoder_channels=(8, 8, 8, 8), width=width, skips=skips, coarse=coarse)
    model = nnx.eval_shape(lambda: Decoder(**options, rngs=nnx.Rngs(0)))
    assert_names_cover(torch_names.decoder_names(convolves=width > 0, skips=skips, coarse=coarse > 0), model)


def test_encoder_and_decoder_share_no_name():
    assert not torch_names.encoder_names(depth=50, fc_dim=512).keys() & torch_names.decoder_names().keys()


def test_names_are_those_of_torchvision_and_of_the_authors():
    encoder = torch_names.encoder_names(depth=50, fc_dim=512)
    assert encoder["layer1.0.downsample.0.weight"].path == ("stage1", 0, "shortcut", "conv", "kernel")
    assert encoder["layer4.2.bn3.running_var"] == torch_names.Entry(("stage4", 2, "norm3", "var"), "vector", True)
    assert encoder["fc.0.weight"] == torch_names.Entry(("fc", "linear", "kernel"), "linear")
    # 53 convolutions with 53 BatchNorms of four entries, fc (2 + 4), classifier (2)
    assert len(encoder) == 53 + 4 * 53 + 6 + 2
    decoder = torch_names.decoder_names()
    assert decoder["up3.res.res.4.weight"].path == ("up3", "norm2", "scale")
    assert decoder["final_layer.1.bias"].path == ("final", "bias")


@pytest.mark.parametrize(
    ("layout", "theirs", "ours"),
    [("conv", (5, 4, 3, 2), (3, 2, 4, 5)), ("linear", (5, 4), (4, 5)), ("vector", (5,), (5,))],
)
def test_layouts_round_trip(layout, theirs, ours):
    values = np.arange(np.prod(theirs), dtype=np.float32).reshape(theirs)
    converted = torch_names.to_ours(values, layout)
    assert converted.shape == ours
    np.testing.assert_array_equal(torch_names.to_torch(converted, layout), values)


def test_converted_kernel_gives_the_same_convolution():
    rng = np.random.default_rng(0)
    x, kernel_oihw = rng.standard_normal((1, 2, 5, 6)), rng.standard_normal((3, 2, 3, 3))
    theirs = jax.lax.conv(jnp.asarray(x), jnp.asarray(kernel_oihw), (1, 1), "SAME")
    ours = jax.lax.conv_general_dilated(
        jnp.asarray(x.transpose(0, 2, 3, 1)),
        jnp.asarray(torch_names.to_ours(kernel_oihw, "conv")),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_hugging_face_names_map_to_torchvision_names(depth):
    names = torch_names.hugging_face_names(depth=depth)
    assert names["embedder.embedder.convolution.weight"] == "conv1.weight"
    assert names["embedder.embedder.normalization.running_mean"] == "bn1.running_mean"
    assert names["encoder.stages.0.layers.1.layer.0.convolution.weight"] == "layer1.1.conv1.weight"
    assert names["encoder.stages.3.layers.0.layer.1.normalization.bias"] == "layer4.0.bn2.bias"
    assert names["encoder.stages.1.layers.0.shortcut.convolution.weight"] == "layer2.0.downsample.0.weight"
    assert names["encoder.stages.1.layers.0.shortcut.normalization.weight"] == "layer2.0.downsample.1.weight"
    ours = torch_names.encoder_names(depth=depth, fc_dim=0).keys() - {"classifier.weight", "classifier.bias"}
    assert set(names.values()) - ours == {"fc.weight", "fc.bias"}
    assert len(set(names.values())) == len(names)
