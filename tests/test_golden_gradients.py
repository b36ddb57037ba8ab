"""The losses and both backward passes of a small SAN, against what the authors' code computed."""

import functools

import golden_recipe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from san_jax import devices
from san_jax.networks.decoder import Decoder
from san_jax.networks.encoder import Encoder
from san_jax.training import losses
from san_jax.weights import torch_names

SEED = 2021
GOLDEN = golden_recipe.numbers("losses_and_grads.npz")
ENCODER_NAMES = torch_names.encoder_names(depth=14, fc_dim=512)
DECODER_NAMES = torch_names.decoder_names()
# In front of a BatchNorm with batch statistics a bias changes nothing, so its gradient is only rounding error.
WITHOUT_GRADIENT = ("fc.0.bias", "reduce_dim.0.bias", *(f"embed_layer{i}.0.bias" for i in (1, 2, 3)))


def make_networks() -> tuple[Encoder, Decoder]:
    encoder = golden_recipe.filled(lambda: Encoder(depth=14, num_pids=4, rngs=nnx.Rngs(0)), ENCODER_NAMES, seed=SEED)
    # One unit, in picture 3 of this channel, is 1.7e-6 before the last ReLU (in float64): rounding alone would decide
    # its sign, and the wrong sign changes the encoder's gradients by up to 1e-1.
    bias = encoder.stage4[0].norm3.bias
    bias[...] = bias[...].at[1595].add(1e-5)
    decoder = golden_recipe.filled(
        lambda: Decoder(encoder_channels=encoder.channels, rngs=nnx.Rngs(0)), DECODER_NAMES, seed=SEED
    )
    return encoder, decoder


@functools.cache
def computed() -> dict[str, np.ndarray | dict[str, np.ndarray]]:
    """Losses by name, and gradients by PyTorch's names in PyTorch's layout: `reid`, `recon`."""
    graphdef, params, stats = nnx.split(make_networks(), nnx.Param, nnx.BatchStat)
    images = jnp.asarray(golden_recipe.images(16, 64, 32, seed=SEED))
    textures = jnp.asarray(golden_recipe.textures(16, 64, 64, seed=SEED))
    pids = jnp.repeat(jnp.arange(4), 4)

    def terms_of(params):
        encoder, decoder = nnx.merge(graphdef, params, stats, copy=True)
        encoded = encoder(images)
        drawn = decoder(encoded.stages)
        terms = {
            "id_loss": losses.id_loss(encoded.logits, pids),
            "triplet_loss": losses.batch_hard_triplet(encoded.feats, pids),
            "reconstruction_loss": losses.reconstruction(drawn.texture, textures),
            "texture_triplets": losses.texture_triplets(drawn.levels, instances=4),
        }
        reid = terms["id_loss"] + terms["triplet_loss"]
        recon = terms["reconstruction_loss"] + terms["texture_triplets"].sum()
        return (reid, recon), (terms, [level.std() for level in drawn.levels])

    # As a run compiles its step; but here running takes longer than compiling, so LLVM optimizes a little.
    options = devices.compiler_options(devices.make_mesh(), onednn=True)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1, **options})
    def backward(params):
        _, pull, (terms, stds) = jax.vjp(terms_of, params, has_aux=True)
        return pull((1.0, 0.0))[0], pull((0.0, 1.0))[0], terms | {"levels_std": jnp.stack(stds)}

    reid, recon, terms = backward(params)
    return {"terms": terms, "reid": in_pytorch(reid), "recon": in_pytorch(recon)}


def in_pytorch(grads: nnx.State) -> dict[str, np.ndarray]:
    """Gradients of both networks by PyTorch's names, in PyTorch's layout."""
    encoder, decoder = (flatten_dict(nnx.to_pure_dict(grads)[i]) for i in (0, 1))
    return {
        name: torch_names.to_torch(np.asarray(flat[entry.path]), entry.layout)
        for names, flat in ((ENCODER_NAMES, encoder), (DECODER_NAMES, decoder))
        for name, entry in names.items()
        if not entry.is_stat
    }


@pytest.mark.slow
@pytest.mark.parametrize("term", ["id_loss", "triplet_loss", "reconstruction_loss", "texture_triplets", "levels_std"])
def test_losses_are_those_of_the_released_code(term):
    golden_recipe.assert_agrees(computed()["terms"], {term: GOLDEN[term]}, {term: 1e-5})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "part"), [("recon", "recon_dec"), ("recon", "recon_enc"), ("reid", "reid")], ids=lambda it: it
)
def test_norm_of_every_gradient_is_that_of_the_released_code(loss, part):
    golden = dict(zip(GOLDEN[f"{part}_grad_names"], GOLDEN[f"{part}_grad_norms"], strict=True))
    ours = {name: np.linalg.norm(computed()[loss][name].astype(np.float64)) for name in golden}
    for name in WITHOUT_GRADIENT:
        assert ours.pop(name, 0) < 1e-5, name
        golden.pop(name, None)
    # From the losses backwards, so that the first failure is next to its cause.
    names = [name for name in reversed(ENCODER_NAMES | DECODER_NAMES) if name in golden]
    golden_recipe.assert_agrees(ours, golden, dict.fromkeys(names, 1e-3))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["recon", "reid"])
def test_gradients_are_those_of_the_released_code(loss):
    golden = {key.removeprefix(f"{loss}/"): value for key, value in GOLDEN.items() if key.startswith(f"{loss}/")}
    ours = {name: computed()[loss][name].ravel()[:64] for name in golden}
    names = [name for name in reversed(ENCODER_NAMES | DECODER_NAMES) if name in golden]
    golden_recipe.assert_agrees(ours, golden, dict.fromkeys(names, 2e-3))


@pytest.mark.slow
def test_texture_losses_leave_fc_and_classifier_without_gradient():
    for name in ("fc.0.weight", "fc.1.weight", "fc.1.bias", "classifier.weight", "classifier.bias"):
        np.testing.assert_array_equal(computed()["recon"][name], 0)
