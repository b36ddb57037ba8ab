import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_networks import RECON, REID, SHAPE, state_of

from san_jax.batch import Batch
from san_jax.data import augmentation
from san_jax.errors import UserError
from san_jax.training import losses, optimizers, train_step
from san_jax.training.train_step import Networks, Objective

PEOPLE, INSTANCES = 4, 2


def make_batch(pairs=0, seed=0):
    rng = np.random.default_rng(seed)
    rows = PEOPLE * INSTANCES + pairs
    return Batch(
        image=jnp.asarray(rng.integers(0, 256, (rows, 32, 16, 3), np.uint8)),
        texture=jnp.asarray(rng.integers(0, 256, (rows, 32, 32, 3), np.uint8)),
        pid=jnp.repeat(jnp.arange(PEOPLE), INSTANCES),
    )


def normalise(key, image):
    del key
    return augmentation.normalise(image)


@functools.cache
def step_of(mode, *, reid_tx=REID, recon_tx=RECON, open_layers=None, dtype="float32", augment=normalise, **objective):
    step = functools.partial(
        train_step.train_step,
        networks=Networks(mode, SHAPE, dtype, open_layers),
        objective=Objective(instances=INSTANCES, **objective),
        augment=augment,
        reid_tx=reid_tx,
        recon_tx=recon_tx,
        seed=0,
    )
    return jax.jit(step)


def moved(before, after):
    return jax.tree.map(np.subtract, jax.device_get(before), jax.device_get(after))


def assert_close(got, expected, tolerance=2e-3):
    """Relative to the largest value; gradients of biases in front of a BatchNorm are rounding errors only."""
    got, expected = jax.device_get((got, expected))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(b).max()), 1e-3)
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def losses_of(encoder, decoder, state, batch):
    """Both losses from one forward pass, computed independently of the training step."""
    networks = Networks("san", SHAPE)
    out, _ = networks.encode(encoder, state.encoder_stats, augmentation.normalise(batch.image))
    drawn, _ = networks.draw(decoder, state.decoder_stats, out.stages)
    people = len(batch.pid)
    reid = losses.id_loss(out.logits[:people], batch.pid) + losses.batch_hard_triplet(out.feats[:people], batch.pid)
    levels = [level[:people] for level in drawn.levels]
    recon = losses.reconstruction(drawn.texture, augmentation.scale_texture(batch.texture))
    return reid, recon + losses.texture_triplets(levels, instances=INSTANCES).sum()


@pytest.fixture(scope="module")
def gradients():
    """Gradients at the first state: of the re-ID loss for the encoder, of the texture losses for both networks."""
    state, batch = state_of("san"), make_batch(pairs=2)

    @jax.jit
    def both(encoder, decoder):
        _, pull = jax.vjp(lambda encoder, decoder: losses_of(encoder, decoder, state, batch), encoder, decoder)
        return pull((1.0, 0.0))[0], *pull((0.0, 1.0))

    return jax.device_get(both(state.encoder, state.decoder))


def test_both_gradients_are_taken_at_the_parameters_of_the_forward_pass(gradients):
    """With plain SGD the encoder changes by the sum of both gradients at the old parameters, whatever the order."""
    reid, recon, by_decoder = gradients
    state = state_of("san")
    after, _ = step_of("san")(state, make_batch(pairs=2))
    assert_close(moved(state.encoder, after.encoder), jax.tree.map(np.add, reid, recon))
    assert_close(moved(state.decoder, after.decoder), by_decoder)


def test_texture_losses_have_no_gradient_for_fc_and_classifier(gradients):
    _, recon, _ = gradients
    assert all(not leaf.any() for name in ("fc", "classifier") for leaf in jax.tree.leaves(recon[name]))


def test_baseline_computes_the_re_id_part_of_san_and_has_no_decoder():
    state, batch = state_of("baseline"), make_batch()
    after, terms = step_of("baseline")(state, dataclasses.replace(batch, texture=None))
    _, san_terms = step_of("san")(state_of("san"), batch)
    assert set(terms) == {"id", "triplet"}
    assert_close(terms, {name: san_terms[name] for name in terms})
    assert not jax.tree.leaves((after.decoder, after.decoder_stats, after.recon_opt))


def test_san_pg_trains_on_the_reconstruction_only():
    state, batch = state_of("san_pg"), make_batch()
    after, terms = step_of("san_pg")(state, batch)
    assert set(terms) == {"reconstruction"}
    assert not jax.tree.leaves(after.reid_opt)
    for name in ("fc", "classifier"):
        assert_close(after.encoder[name], state.encoder[name], 0)
    assert any(leaf.any() for leaf in jax.tree.leaves(moved(state.encoder["stem"], after.encoder["stem"])))


def test_batch_statistics_are_updated_once_per_step():
    """The encoder's first running mean after one step: 0.9 of the old and 0.1 of the batch's, not twice that."""
    state, batch = state_of("san"), make_batch()
    after, _ = step_of("san")(state, batch)
    images, kernel = augmentation.normalise(batch.image), state.encoder["stem"]["conv"]["kernel"]
    maps = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), [(3, 3), (3, 3)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(after.encoder_stats["stem"]["norm"]["mean"], 0.1 * maps.mean((0, 1, 2)), rtol=1e-4)


def test_pairs_after_the_reid_pictures_count_in_the_reconstruction_only():
    """Another texture for a pair changes the decoder's update and no re-ID term; it cannot affect L_TR."""
    batch = make_batch(pairs=2)
    changed = dataclasses.replace(batch, texture=batch.texture.at[-1].set(0))
    first, terms = step_of("san")(state_of("san"), batch)
    second, other_terms = step_of("san")(state_of("san"), changed)
    same = {"id", "triplet", "texture_triplets"}
    assert {name for name in terms if terms[name] == other_terms[name]} == same
    assert not np.array_equal(first.decoder["final"]["bias"], second.decoder["final"]["bias"])


def test_htri_only_drops_the_id_loss():
    _, terms = jax.eval_shape(step_of("baseline", htri_only=True), state_of("baseline"), make_batch())
    assert set(terms) == {"triplet"}


def test_texture_triplets_can_be_weighted_and_switched_off():
    state, batch = state_of("san"), make_batch()
    without, terms = step_of("san", texture_triplets=0.0)(state, batch)
    assert "texture_triplets" not in terms
    once, threefold = (
        moved(step(state, batch)[0].decoder, without.decoder)
        for step in (step_of("san"), step_of("san", texture_triplets=3.0))
    )
    assert all(leaf.any() for leaf in jax.tree.leaves(once["up1"]))
    assert_close(threefold, jax.tree.map(lambda x: 3 * x, once))


def test_reconstruction_can_be_weighted_beside_the_triplets():
    rng = np.random.default_rng(0)
    drawn, texture, *levels = (jnp.asarray(rng.normal(size=(8, 4, 4, 3)), jnp.float32) for _ in range(6))

    def loss(weight, levels):
        found, terms = train_step.recon_terms(drawn, texture, levels, objective=Objective(2, reconstruction=weight))
        return float(found), {name: float(term) for name, term in terms.items()}

    once, terms = loss(1.0, levels)
    threefold, same = loss(3.0, levels)
    assert same == terms
    assert once == pytest.approx(terms["reconstruction"] + terms["texture_triplets"])
    assert threefold == pytest.approx(3 * terms["reconstruction"] + terms["texture_triplets"])
    assert loss(3.0, None)[0] == pytest.approx(terms["reconstruction"]), "the only loss needs no weight"


def test_frozen_layers_keep_parameters_and_statistics():
    open_layers = ("fc", "classifier")
    reid_tx = optimizers.frozen_except(optimizers.make_optimizer("amsgrad", 0.1, weight_decay=0.1), open_layers)
    recon_tx = optimizers.frozen_except(optax.sgd(1.0), (*open_layers, "decoder"))
    state = state_of("san", reid_tx, recon_tx)
    step = step_of("san", reid_tx=reid_tx, recon_tx=recon_tx, open_layers=open_layers)
    after, _ = step(state, make_batch())
    for name, before in state.encoder.items():
        unmoved = all(not leaf.any() for leaf in jax.tree.leaves(moved(before, after.encoder[name])))
        assert unmoved == (name not in open_layers), name
    for name, before in state.encoder_stats.items():
        unmoved = all(not leaf.any() for leaf in jax.tree.leaves(moved(before, after.encoder_stats[name])))
        assert unmoved == (name not in open_layers), name
    assert any(leaf.any() for leaf in jax.tree.leaves(moved(state.decoder, after.decoder)))


def test_bfloat16_keeps_parameters_statistics_and_losses_in_float32():
    state, batch = state_of("san"), make_batch()
    after, terms = step_of("san", dtype="bfloat16")(state, batch)
    exact, exact_terms = step_of("san")(state, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves((after.encoder, after.encoder_stats, after.decoder, terms))} == {
        jnp.dtype("float32")
    }
    for name, value in terms.items():
        np.testing.assert_allclose(value, exact_terms[name], rtol=0.05, err_msg=name)
    assert not np.array_equal(after.encoder["stem"]["conv"]["kernel"], exact.encoder["stem"]["conv"]["kernel"])


def test_augmentation_depends_only_on_seed_and_step():
    augment = functools.partial(augmentation.augment, height=28, width=14, crop=0.5, mirror=0.5, erase=0.5)
    step = step_of("baseline", augment=augment)
    state, batch = state_of("baseline"), make_batch()
    _, once = step(state, batch)
    _, again = step(state, batch)
    _, later = step(dataclasses.replace(state, step=state.step + 1), batch)
    assert once["id"] == again["id"] != later["id"]


def test_initial_state_depends_only_on_the_seed():
    make = functools.partial(train_step.make_state, Networks("baseline", SHAPE), reid_tx=REID, recon_tx=RECON)
    make = jax.jit(make, static_argnames="seed")
    same, other = make(seed=1), make(seed=2)
    assert_close(same.encoder, state_of("baseline").encoder, 1e-6)
    assert not np.array_equal(same.encoder["fc"]["linear"]["kernel"], other.encoder["fc"]["linear"]["kernel"])


@pytest.mark.parametrize(("fields", "named"), [({"mode": "sann"}, "mode"), ({"compute_dtype": "float16"}, "compute_")])
def test_unknown_mode_or_dtype_names_the_field(fields, named):
    with pytest.raises(UserError, match=named):
        Networks(**{"mode": "san", "architecture": SHAPE, **fields})
