import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from san_jax.errors import UserError
from san_jax.networks.encoder import BLOCKS, STEMS, Encoder

forward = nnx.jit(lambda encoder, images: encoder(images))


def make_encoder(depth: int = 14, **options) -> Encoder:
    # This random generator compiles faster than the default one.
    rngs = nnx.Rngs(jax.random.key(0, impl="rbg"))
    return Encoder(**dict(depth=depth, num_pids=6, fc_dim=8, width=0.0625, rngs=rngs) | options)


@functools.cache
def made_encoder(**options) -> Encoder:
    return nnx.jit(lambda: make_encoder(**options))()


def sizes_of(**options) -> list[tuple[int, ...]]:
    """Sizes of stages, feats and logits, without the batch, for pictures of the paper's size."""

    def leaves() -> list:
        return jax.tree.leaves(make_encoder(width=1.0, **options)(jnp.zeros((2, 256, 128, 3))))

    return [leaf.shape[1:] for leaf in jax.eval_shape(leaves)]


def pictures(batch: int = 2, height: int = 32, width: int = 16) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(0).standard_normal((batch, height, width, 3)).astype(np.float32))


def running_means(module: nnx.Module) -> list:
    return [np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(module)) if path[-1] == "mean"]


@pytest.mark.parametrize("depth", BLOCKS)
def test_depth_counts_the_layers_with_weights(depth):
    encoder = nnx.eval_shape(lambda: make_encoder(depth))
    kernels = [path for path, _ in nnx.to_flat_state(nnx.state(encoder, nnx.Param)) if path[-1] == "kernel"]
    not_counted = [path for path in kernels if "shortcut" in path or "fc" in path]
    # Stem, two or three layers per block, classifier.
    assert len(kernels) - len(not_counted) == depth


def test_maps_of_resnet50_have_the_sizes_of_the_paper():
    stages = [(64, 32, 256), (32, 16, 512), (16, 8, 1024), (16, 8, 2048)]
    assert sizes_of(depth=50, num_pids=767, fc_dim=512) == [*stages, (512,), (767,)]


def test_released_resnet50_halves_stage_four_and_has_no_fc():
    *_, stage4, feats, logits = sizes_of(depth=50, num_pids=767, fc_dim=0, last_stride=2)
    assert (stage4, feats, logits) == ((8, 4, 2048), (2048,), (767,))


def test_width_scales_every_stage_and_nothing_else():
    encoder = nnx.eval_shape(lambda: make_encoder(18, width=0.5))
    assert encoder.channels == (32, 64, 128, 256)
    assert encoder.stem.conv.kernel.shape == (7, 7, 3, 32)
    assert encoder.classifier.kernel.shape == (8, 6)


def test_initial_weights_have_the_stated_deviation():
    encoder = made_encoder(depth=18, width=0.5, fc_dim=64)
    kernel = np.asarray(encoder.stage4[0].conv2.kernel[...])  # 3 x 3 x 256 x 256
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (3 * 3 * 256)), rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=1e-3)
    strided = np.asarray(encoder.stage4[0].conv1.kernel[...])  # 128 -> 256: fan-out, not fan-in
    np.testing.assert_allclose(strided.std(), np.sqrt(2 / (3 * 3 * 256)), rtol=0.02)
    np.testing.assert_allclose(np.asarray(encoder.fc.linear.kernel[...]).std(), 0.01, rtol=0.05)
    np.testing.assert_allclose(np.asarray(encoder.classifier.kernel[...]).std(), 0.01, rtol=0.15)
    for path, leaf in nnx.to_flat_state(nnx.state(encoder)):
        if path[-1] in ("bias", "mean"):
            np.testing.assert_array_equal(leaf[...], 0)
        if path[-1] in ("scale", "var"):
            np.testing.assert_array_equal(leaf[...], 1)


def test_layers_in_eval_mode_keep_their_statistics_while_the_others_update():
    encoder = nnx.clone(made_encoder())
    frozen = ("stem", "stage1", "stage2", "stage3", "stage4")
    for name in frozen:
        getattr(encoder, name).eval()
    forward(encoder, pictures())
    for name in frozen:
        assert all((mean == 0).all() for mean in running_means(getattr(encoder, name)))
    assert (running_means(encoder.fc)[0] != 0).any()


def test_features_in_eval_do_not_depend_on_the_rest_of_the_batch():
    encoder = nnx.clone(made_encoder())
    encoder.eval()
    images = pictures(batch=3)
    np.testing.assert_allclose(
        forward(encoder, images).feats[:1], forward(encoder, images[:1]).feats, rtol=1e-4, atol=1e-6
    )


def test_bfloat16_encoder_has_bfloat16_stages_and_the_rest_in_float32():
    encoder = made_encoder(compute_dtype="bfloat16")
    out = forward(nnx.clone(encoder), pictures())
    assert {stage.dtype for stage in out.stages} == {jnp.dtype(jnp.bfloat16)}
    assert out.feats.dtype == out.logits.dtype == jnp.float32
    assert {leaf.dtype for _, leaf in nnx.to_flat_state(nnx.state(encoder))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("fc_dim", [0, 8])
def test_neck_gives_normalised_features_and_its_bias_gets_no_gradient(fc_dim):
    graph, params, stats = nnx.split(made_encoder(fc_dim=fc_dim, neck="bn"), nnx.Param, nnx.BatchStat)

    @jax.jit
    def feats(params):
        return nnx.merge(graph, params, stats, copy=True)(pictures(batch=8)).feats

    found = np.asarray(feats(params))
    assert found.shape == (8, fc_dim or 128)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    assert (found < 0).any()
    gradients = jax.jit(jax.grad(lambda params: (feats(params) * jnp.arange(8.0)[:, None]).sum()))(params)
    norm = gradients["fc"]["norm"]
    assert (np.asarray(norm["scale"][...]) != 0).any()
    np.testing.assert_array_equal(norm["bias"][...], 0)


def test_stems_differ_in_relu_and_pool_padding():
    images = pictures()
    first = {stem: made_encoder(stem=stem) for stem in STEMS}
    maps = {stem: nnx.relu(it.stem(images)) if it.stem_has_relu else it.stem(images) for stem, it in first.items()}
    padding = {stem: it.pool_padding for stem, it in first.items()}
    assert padding == {"torchvision": 1, "fastreid": 0, "strong_baseline": 1}
    assert {stem for stem in STEMS if (maps[stem] < 0).any()} == {"strong_baseline"}


@pytest.mark.parametrize(
    ("field", "value"), [("depth", 20), ("last_stride", 3), ("neck", "'batchnorm'"), ("stem", "'resnet'")]
)
def test_error_for_an_unsupported_network_names_the_field(field, value):
    with pytest.raises(UserError, match=rf"encoder\.{field} is {value}"):
        make_encoder(**{field: value.strip("'") if isinstance(value, str) else value})
