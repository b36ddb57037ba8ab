import functools

import golden_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from san_jax.errors import UserError
from san_jax.networks.decoder import Decoder
from san_jax.networks.encoder import Encoder
from san_jax.weights import torch_names

CHANNELS = (8, 12, 16, 20)


draw = nnx.jit(lambda decoder, stages: decoder(stages))


def make_decoder(**options) -> Decoder:
    # This random generator compiles faster than the default one.
    rngs = nnx.Rngs(jax.random.key(0, impl="rbg"))
    return Decoder(**dict(encoder_channels=CHANNELS, width=0.0625, rngs=rngs) | options)


@functools.cache
def made_decoder(**options) -> Decoder:
    return nnx.jit(lambda: make_decoder(**options))()


def stages(height: int = 2, width: int = 1, *, last: tuple[int, int] | None = None) -> tuple:
    """Four maps as from an encoder with last stride 1; `height` and `width` are those of stage 3."""
    rng = np.random.default_rng(0)
    sizes = [(4 * height, 4 * width), (2 * height, 2 * width), (height, width), last or (height, width)]
    return tuple(
        jnp.asarray(rng.standard_normal((2, *size, channels)).astype(np.float32))
        for size, channels in zip(sizes, CHANNELS, strict=True)
    )


@pytest.fixture(scope="module")
def released():
    """resnet50_fc512 and decoder with the golden weights, and what they compute on the golden pictures."""
    seed = 2020
    encoder = golden_recipe.filled(
        lambda: Encoder(depth=50, num_pids=16, rngs=nnx.Rngs(0)),
        torch_names.encoder_names(depth=50, fc_dim=512),
        seed=seed,
    )
    decoder = golden_recipe.filled(
        lambda: Decoder(encoder_channels=encoder.channels, rngs=nnx.Rngs(0)), torch_names.decoder_names(), seed=seed
    )
    images = jnp.asarray(golden_recipe.images(2, 256, 128, seed=seed))

    @nnx.jit
    def forward(encoder: Encoder, decoder: Decoder) -> dict:
        encoded = encoder(images)
        drawn = decoder(encoded.stages)
        maps = {f"stage{i + 1}": stage for i, stage in enumerate(encoded.stages)}
        maps |= {f"level{i + 1}": level for i, level in enumerate(drawn.levels)}
        found = {name: values.mean((1, 2)) for name, values in maps.items()}
        found |= {"features": encoded.feats, "logits": encoded.logits, "texture": drawn.texture[:, ::8, ::8]}
        for name, norm in (("bn1", encoder.stem.norm), ("fc_bn", encoder.fc.norm)):
            found |= {f"{name}_mean": norm.mean[...], f"{name}_var": norm.var[...]}
        return found

    def compute(mode: str) -> dict:
        for model in (encoder, decoder):
            getattr(model, mode)()
        return forward(encoder, decoder)

    return compute


def test_running_statistics_give_the_numbers_of_the_released_code(released):
    order = ("stage1", "stage2", "stage3", "stage4", "features", "level1", "level2", "level3", "level4", "texture")
    golden_recipe.assert_agrees(released("eval"), golden_recipe.numbers("forward_eval.npz"), dict.fromkeys(order, 1e-4))


def test_batch_statistics_give_the_numbers_of_the_released_code(released):
    tolerances = dict.fromkeys(("bn1_mean", "bn1_var", "fc_bn_mean", "fc_bn_var"), 1e-4)
    tolerances |= dict.fromkeys(("features", "logits", "texture"), 2e-3)
    golden_recipe.assert_agrees(released("train"), golden_recipe.numbers("forward_train.npz"), tolerances)


def test_texture_is_square_and_levels_double():
    drawn = draw(nnx.clone(made_decoder()), stages(2, 1))
    assert [level.shape for level in drawn.levels] == [(2, 4, 2, 16), (2, 8, 4, 4), (2, 16, 8, 2), (2, 32, 16, 1)]
    assert drawn.texture.shape == (2, 32, 32, 3)


def test_width_scales_only_the_channels_of_the_decoder():
    decoder = nnx.eval_shape(lambda: make_decoder(width=0.5))
    assert decoder.reduce.conv.kernel.shape == (1, 1, 20, 256)
    assert decoder.embed1.conv.kernel.shape == (1, 1, 8, 32)
    assert decoder.final.kernel.shape == (7, 7, 8, 3)


def test_coarse_texture_is_a_linear_function_of_the_last_stage_added_to_the_drawing():
    decoder, plain = nnx.clone(made_decoder(coarse=5)), nnx.clone(made_decoder())
    for network in (decoder, plain):
        network.eval()
    *fine, last = stages()
    added = draw(decoder, (*fine, last)).texture - draw(plain, (*fine, last)).texture
    assert added.shape == (2, 32, 32, 3)
    code, texels = (np.asarray(layer.kernel[...], np.float64) for layer in (decoder.coarse.code, decoder.coarse.texels))
    assert (code.shape, texels.shape) == ((4 * 2 * 20, 5), (5, 32 * 32 * 3))
    seen = np.asarray(last, np.float64)[:, [0, 0, 1, 1]]  # 2 x 1 to 4 x 2; between two rows: a quarter of the other one
    seen[:, 1] = 0.75 * seen[:, 1] + 0.25 * seen[:, 3]
    seen[:, 2] = 0.75 * seen[:, 2] + 0.25 * seen[:, 0]
    expected = np.repeat(seen, 2, axis=2).reshape(2, -1) @ code @ texels
    np.testing.assert_allclose(added.reshape(2, -1), expected, atol=1e-4)


def test_coarse_texture_has_the_size_of_the_drawing():
    drawn = nnx.eval_shape(lambda: make_decoder(coarse=5)(stages(8, 4)).texture)
    assert drawn.shape == (2, 128, 128, 3)


def test_decoder_without_convolutions_draws_the_coarse_texture_alone():
    decoder, whole = nnx.clone(made_decoder(width=0.0, coarse=5)), nnx.clone(made_decoder(coarse=5))
    drawn = draw(decoder, stages())
    assert drawn.levels == ()
    assert {path[0] for path, _ in nnx.to_flat_state(nnx.state(decoder))} == {"coarse"}
    whole.coarse = decoder.coarse
    convolved = nnx.clone(made_decoder())
    for network in (whole, convolved):
        network.eval()
    rest = draw(whole, stages()).texture - draw(convolved, stages()).texture
    np.testing.assert_allclose(drawn.texture, rest, atol=1e-5)


def test_decoder_that_can_draw_nothing_is_refused():
    with pytest.raises(UserError, match=r"decoder\.width and decoder\.coarse are both 0"):
        make_decoder(width=0.0)


def test_no_map_has_fewer_channels_than_asked_for():
    decoder = nnx.eval_shape(lambda: make_decoder(width=0.125, min_channels=12))
    shapes = [up.conv1.kernel.shape[2:] for up in (decoder.up1, decoder.up2, decoder.up3, decoder.up4)]
    assert shapes == [(64, 64), (32, 32), (12, 12), (12, 12)]
    assert decoder.final.kernel.shape == (7, 7, 12, 3)


def test_texture_without_skips_depends_only_on_the_last_stage():
    decoder = nnx.clone(made_decoder(skips=False))
    *fine, last = stages()
    decoder.eval()
    without_fine = (*(jnp.zeros_like(stage) for stage in fine), last)
    np.testing.assert_array_equal(draw(decoder, (*fine, last)).texture, draw(decoder, without_fine).texture)
    assert (draw(decoder, (*fine, last + 1)).texture != draw(decoder, without_fine).texture).any()
    with_skips = nnx.eval_shape(make_decoder)
    assert len(nnx.to_flat_state(nnx.state(with_skips))) - len(nnx.to_flat_state(nnx.state(decoder))) == 3 * 6


@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_texture_with_skips_depends_on_every_stage(changed):
    decoder = nnx.clone(made_decoder())
    decoder.eval()
    maps = list(stages())
    before = draw(decoder, tuple(maps)).texture
    maps[changed] = maps[changed] + 1.0
    assert (draw(decoder, tuple(maps)).texture != before).any()


def test_initial_weights_have_the_stated_deviation():
    decoder = made_decoder(width=0.5)
    kernel = np.asarray(decoder.up1.conv1.kernel[...])  # 3 x 3 x 256 x 256
    np.testing.assert_allclose(kernel.std(), 0.02 * np.sqrt(2 / (9 * 512)), rtol=0.02)
    embed = np.asarray(decoder.up1.conv.kernel[...])  # 256 -> 128
    np.testing.assert_allclose(embed.std(), 0.02 * np.sqrt(2 / (9 * (256 + 128))), rtol=0.02)
    scale = np.asarray(decoder.up1.norm1.scale[...])
    np.testing.assert_allclose([scale.mean(), scale.std()], [1, 0.02], atol=5e-3)
    for path, leaf in nnx.to_flat_state(nnx.state(decoder, nnx.Param)):
        if path[-1] == "bias":
            np.testing.assert_array_equal(leaf[...], 0)


def test_bfloat16_decoder_has_bfloat16_levels_and_a_float32_texture():
    drawn = draw(nnx.clone(made_decoder(compute_dtype="bfloat16")), stages())
    assert {level.dtype for level in drawn.levels} == {jnp.dtype(jnp.bfloat16)}
    assert drawn.texture.dtype == jnp.float32


def test_error_for_a_last_stage_of_stride_two_names_the_field():
    with pytest.raises(UserError, match=r"encoder\.last_stride"):
        nnx.eval_shape(lambda: jax.tree.leaves(make_decoder()(stages(4, 2, last=(2, 1)))))


def test_error_for_an_indivisible_picture_size_names_the_fields():
    maps = stages(4, 2)
    with pytest.raises(UserError, match=r"data\.height and data\.width"):
        nnx.eval_shape(lambda: jax.tree.leaves(make_decoder()((maps[0][:, :-1], *maps[1:]))))
