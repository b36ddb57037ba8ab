import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from san_jax.errors import UserError
from san_jax.training import optimizers

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "optimizers.npz")

GOLDEN_PATHS = {
    "amsgrad": optimizers.make_optimizer(
        "amsgrad", optimizers.multistep(8e-4, (40, 80, 120, 160), 0.5), weight_decay=5e-4
    ),
    "warmup_adam": optimizers.make_optimizer(
        "adam", optimizers.exponential_by_epoch(8e-6, 1.259**0.1, range(200)), weight_decay=5e-4
    ),
    "decoder_adam": optimizers.make_optimizer("adam", 1e-5, b1=0.5),
    "amsgrad_small": optimizers.make_optimizer("amsgrad", optimizers.multistep(8e-4, (40, 80, 120, 160), 0.5)),
}


def path_of(tx, start, grads):
    """Parameters after every step."""

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), grads)[1])()


@pytest.mark.parametrize("name", GOLDEN_PATHS)
def test_parameters_follow_those_of_pytorch(name):
    grads = GOLDEN["grads"] * (1e-6 if name == "amsgrad_small" else 1.0)
    path = path_of(GOLDEN_PATHS[name], jnp.asarray(GOLDEN["start"]), jnp.asarray(grads, jnp.float32))
    np.testing.assert_allclose(path, GOLDEN[name], rtol=0, atol=1e-6)


def test_sgd_with_momentum_and_weight_decay_matches_two_hand_computed_steps():
    tx = optimizers.make_optimizer("sgd", 0.1, weight_decay=0.5, momentum=0.9)
    # gradient 1 + 0.5 * 2 = 2, velocity 2: 2 - 0.2; gradient 1 + 0.9 = 1.9, velocity 1.8 + 1.9 = 3.7: 1.8 - 0.37
    np.testing.assert_allclose(path_of(tx, jnp.array([2.0]), jnp.ones((2, 1))), [[1.8], [1.43]], rtol=1e-6)


def test_nesterov_looks_one_velocity_ahead():
    tx = optimizers.make_optimizer("sgd", 0.1, momentum=0.9, nesterov=True)
    # steps 1 + 0.9 * 1 and 1 + 0.9 * 1.9
    np.testing.assert_allclose(path_of(tx, jnp.zeros(1), jnp.ones((2, 1))), [[-0.19], [-0.461]], rtol=1e-6)


def test_rmsprop_matches_two_hand_computed_steps():
    tx = optimizers.make_optimizer("rmsprop", 0.1, momentum=0.5)
    # mean squares 0.04 and 0.0396 + 0.01; scaled gradients 2 / 0.2 and 1 / sqrt(0.0496), the first halved in the second
    first, second = 10.0, 5.0 + 1 / 0.0496**0.5
    path = path_of(tx, jnp.zeros(1), jnp.array([[2.0], [1.0]]))
    np.testing.assert_allclose(path, [[-0.1 * first], [-0.1 * (first + second)]], rtol=1e-5)


def test_epsilon_of_rmsprop_is_added_outside_the_root():
    tx = optimizers.make_optimizer("rmsprop", 1.0)
    # The root is 0.1 * 1e-7 = 1e-8, as large as epsilon; with epsilon inside, the step would be about 1e-3.
    np.testing.assert_allclose(path_of(tx, jnp.zeros(1), jnp.full((1, 1), 1e-7)), [[-5.0]], rtol=1e-5)


def test_unknown_optimizer_names_the_field_and_the_known_ones():
    with pytest.raises(UserError, match=r"reid\.optimizer 'lion'.*amsgrad, adam, sgd, rmsprop"):
        optimizers.make_optimizer("lion", 1e-3)


def make_phases():
    adam = optimizers.make_optimizer("adam", optimizers.multistep(1e-2, [2], 0.1), weight_decay=5e-4)
    amsgrad = optimizers.make_optimizer("amsgrad", optimizers.multistep(1e-3, [4], 0.5), weight_decay=5e-4)
    return adam, amsgrad


def test_second_phase_starts_from_a_fresh_state_and_its_own_count():
    adam, amsgrad = make_phases()
    start = {"a": {"kernel": jnp.ones((3, 2))}, "b": jnp.arange(4.0)}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), (12, *p.shape)), start)
    path = path_of(optimizers.in_phases([(5, adam), (None, amsgrad)]), start, grads)
    first = path_of(adam, start, jax.tree.map(lambda g: g[:5], grads))
    handed_over = jax.tree.map(lambda p: p[-1], first)
    second = path_of(amsgrad, handed_over, jax.tree.map(lambda g: g[5:], grads))
    alone = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    jax.tree.map(lambda ours, expected: np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-7), path, alone)


def test_second_phase_is_not_changed_by_huge_gradients_of_the_first():
    adam, amsgrad = make_phases()
    tx, params = optimizers.in_phases([(3, adam), (None, amsgrad)]), {"kernel": jnp.ones(3)}
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        _, state = update({"kernel": jnp.full(3, 1e6)}, state, params)
    assert (state.count, state.phase) == (3, 0)
    for _ in range(2):
        updates, state = update({"kernel": jnp.ones(3)}, state, params)
    assert (state.count, state.phase) == (5, 1)
    fresh = amsgrad.init(params)
    for _ in range(2):
        expected, fresh = jax.jit(amsgrad.update)({"kernel": jnp.ones(3)}, fresh, params)
    np.testing.assert_allclose(updates["kernel"], expected["kernel"], rtol=1e-6)


def test_phase_that_is_entered_again_starts_afresh():
    """As when a resumed run has longer epochs, so that its warm-up has not ended yet."""
    adam, amsgrad = make_phases()
    tx, params = optimizers.in_phases([(2, adam), (None, amsgrad)]), {"kernel": jnp.ones(3)}
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update({"kernel": jnp.full(3, 7.0)}, state, params)
    longer = optimizers.in_phases([(9, adam), (None, amsgrad)])
    updates, state = longer.update({"kernel": jnp.ones(3)}, state, params)
    assert (state.count, state.phase) == (4, 0)
    expected, _ = adam.update({"kernel": jnp.ones(3)}, adam.init(params), params)
    np.testing.assert_allclose(updates["kernel"], expected["kernel"], rtol=1e-6)


def test_phases_share_the_arrays_that_both_have():
    params = {"kernel": jnp.ones(3)}
    phases = [*zip((2, None), make_phases(), strict=True)]
    frozen = [(2, optimizers.frozen_except(make_phases()[1], ["kernel"])), *phases]
    for tx in (optimizers.in_phases(phases), optimizers.in_phases(frozen)):
        arrays = optimizers.leaves_by_path(tx.init(params).arrays)
        assert sorted(path[1:] for path in arrays) == [
            *[("count",)] * 2,
            *((moment, "kernel") for moment in ("mu", "nu", "nu_max")),
        ]


def test_state_keeps_shapes_types_and_structure_across_phases():
    tx = optimizers.in_phases([(1, make_phases()[0]), (None, make_phases()[1])])
    params = {"kernel": jnp.ones(3)}
    state = tx.init(params)
    for _ in range(3):
        _, new = tx.update(params, state, params)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
        state = new


def test_state_can_be_donated():
    tx = optimizers.in_phases([(1, make_phases()[0]), (None, make_phases()[1])])
    params = {"kernel": jnp.ones(3)}
    state = tx.init(params)
    update = jax.jit(tx.update, donate_argnums=1)
    for _ in range(3):
        _, state = update(params, state, params)
    assert state.count == 3


def test_phase_of_zero_steps_is_left_out():
    adam, amsgrad = make_phases()
    start = {"kernel": jnp.ones(3)}
    grads = {"kernel": jnp.ones((4, 3))}
    path = path_of(optimizers.in_phases([(0, adam), (None, amsgrad)]), start, grads)
    np.testing.assert_allclose(path["kernel"], path_of(amsgrad, start, grads)["kernel"], rtol=1e-6)
    adam_alone = optimizers.in_phases([(0, amsgrad), (None, adam)]).init(start)
    assert not any("nu_max" in path for path in optimizers.leaves_by_path(adam_alone))


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (36, 6)])
def test_muon_steps_along_all_directions_of_a_kernel_by_about_the_rate_and_adam_moves_the_rest(shape):
    """Of G = U S V^T Muon keeps U V^T, whose entries have a root mean square of 1 / sqrt(inputs) here, times 0.2
    sqrt(inputs) (Liu et al., equation 4); five steps of its iteration leave singular values of 0.68 to 1.13."""
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.ones(shape), "bias": jnp.ones(6)}
    grads = {"kernel": jnp.asarray(rng.normal(size=shape)), "bias": jnp.asarray(rng.normal(size=6))}
    tx = optimizers.make_optimizer("muon", 1e-2, b1=0.5)
    updates, _ = tx.update(grads, tx.init(params), params)
    left, _, right = np.linalg.svd(np.reshape(grads["kernel"], (36, 6)), full_matrices=False)
    along = left.T @ np.reshape(updates["kernel"], (36, 6)) @ right.T / (1e-2 * 0.2 * np.sqrt(36))
    values = -np.diag(along)
    assert 0.6 < values.min() < values.max() < 1.3
    np.testing.assert_allclose(along, np.diag(-values), atol=0.02)
    looked_ahead = 1 + 0.5 * 0.5 / (1 - 0.5**2)  # of Adam's first step, by Nesterov momentum
    np.testing.assert_allclose(updates["bias"], -1e-2 * looked_ahead * np.sign(grads["bias"]), rtol=1e-4)


@pytest.mark.parametrize("steps", [(None, None), (3, 4), (None, 3)])
def test_only_the_last_phase_has_no_end(steps):
    with pytest.raises(ValueError, match="last phase"):
        optimizers.in_phases([(n, tx) for n, tx in zip(steps, make_phases(), strict=True)])


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_frozen_layers_do_not_change_and_open_ones_train_as_if_alone(name):
    tx = optimizers.make_optimizer(name, 0.1, weight_decay=0.5, momentum=0.9)
    params = {"stem": {"kernel": jnp.ones(2)}, "fc": {"kernel": jnp.ones(2)}, "classifier": {"bias": jnp.ones(2)}}
    grads = jax.tree.map(lambda p: jnp.stack([p, -3 * p, 2 * p]), params)
    path = path_of(optimizers.frozen_except(tx, ("fc", "classifier")), params, grads)
    np.testing.assert_array_equal(path["stem"]["kernel"], np.ones((3, 2)))
    opened = {layer: params[layer] for layer in ("fc", "classifier")}
    expected = path_of(tx, opened, {layer: grads[layer] for layer in opened})
    assert np.all(np.diff(expected["fc"]["kernel"], axis=0) != 0)
    for layer in opened:
        jax.tree.map(np.testing.assert_array_equal, path[layer], expected[layer])


def test_frozen_phase_is_followed_by_one_that_trains_every_layer():
    adam, amsgrad = make_phases()
    params = {"stem": jnp.ones(2), "fc": jnp.ones(2)}
    grads = jax.tree.map(lambda p: jnp.stack([p] * 3), params)
    path = path_of(optimizers.in_phases([(2, optimizers.frozen_except(adam, ["fc"])), (None, amsgrad)]), params, grads)
    np.testing.assert_array_equal(path["stem"][:2], np.ones((2, 2)))
    assert np.all(path["stem"][2] < 1)


def test_unknown_open_layer_names_the_field_and_the_existing_layers():
    tx = optimizers.frozen_except(optax.sgd(0.1), ("fc", "classifyer"))
    with pytest.raises(UserError, match=r"schedule\.open_layers names classifyer; .*stem, fc, classifier"):
        tx.init({"stem": jnp.ones(1), "fc": jnp.ones(1), "classifier": jnp.ones(1)})


def test_milestone_is_the_first_step_with_the_new_rate():
    rates = jax.vmap(optimizers.multistep(8e-4, (3, 5), 0.5))(jnp.arange(7))
    np.testing.assert_array_equal(rates, np.float32([8e-4] * 3 + [4e-4] * 2 + [2e-4] * 2))


def test_rate_without_milestones_is_constant():
    assert optimizers.multistep(8e-4, (), 0.5)(10**6) == np.float32(8e-4)


def test_warm_up_rate_changes_where_epochs_of_different_length_begin():
    schedule = optimizers.exponential_by_epoch(1e-5, 2.0, (0, 3, 4, 6))
    rates = jax.vmap(schedule)(jnp.arange(8, dtype=jnp.int32))
    np.testing.assert_array_equal(rates, np.float32([1e-5] * 3 + [2e-5] + [4e-5] * 2 + [8e-5] * 2))


def test_published_warm_up_ends_near_the_published_rate():
    schedule = optimizers.exponential_by_epoch(8e-6, 1.259, range(0, 20 * 93, 93))
    assert float(schedule(20 * 93 - 1)) == pytest.approx(8e-6 * 1.259**19, rel=1e-6)
