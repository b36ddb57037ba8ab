from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from san_jax import devices
from san_jax.training import older_states, optimizers

LENGTHS = (2, 2, None)
PARAMS = {"stem": jnp.ones(2), "fc": jnp.ones(2)}
GRADS = [dict(zip(PARAMS, pair, strict=True)) for pair in jax.random.normal(jax.random.key(0), (8, 2, 2))]


def transforms():
    """Adam and AMSGrad, each with rates that change within its phase."""
    rates = optimizers.multistep(0.1, [1], 0.5)
    return [optimizers.make_optimizer(name, rates, weight_decay=0.1) for name in ("adam", "amsgrad")]


def older_run():
    """All updates of three phases, and the state before each, as earlier versions computed and kept them."""
    adam, amsgrad = transforms()
    frozen = optax.partition({"open": amsgrad, "frozen": optax.set_to_zero()}, {"stem": "frozen", "fc": "open"})
    phases = [frozen, adam, amsgrad]
    states, before, updates = [tx.init(PARAMS) for tx in phases], [], []
    for step, grads in enumerate(GRADS):
        before.append({"count": jnp.asarray(step), "phases": list(states)})
        active = min(step // 2, 2)
        update, states[active] = phases[active].update(grads, states[active], PARAMS)
        updates.append(update)
    return before, updates


def newer():
    """The transform that makes the same updates, and the shapes of its state."""
    adam, amsgrad = transforms()
    phases = zip(LENGTHS, (optimizers.frozen_except(amsgrad, ["fc"]), adam, amsgrad), strict=True)
    tx = optimizers.in_phases(list(phases))
    return tx, devices.with_sharding(jax.eval_shape(tx.init, PARAMS), devices.replicated(devices.make_mesh()))


@pytest.mark.parametrize("step", range(8))
def test_converted_state_makes_the_updates_that_the_older_one_would_have_made(step):
    before, expected = older_run()
    tx, like = newer()
    state = older_states.converted(before[step], like)
    for grads, updates in zip(GRADS[step:], expected[step:], strict=True):
        ours, state = tx.update(grads, state, PARAMS)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), ours, updates)


def test_converted_state_has_shapes_dtypes_and_shardings_of_the_newer_kind():
    before, _ = older_run()
    _, like = newer()
    state = older_states.converted(before[1], like)
    assert jax.tree.structure(state) == jax.tree.structure(like)
    for ours, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        assert (ours.shape, ours.dtype) == (wanted.shape, wanted.dtype)
    shapes = older_states.shapes_of(jax.eval_shape(lambda: before[1]))
    assert optimizers.leaves_by_path(shapes).keys() == optimizers.leaves_by_path(like).keys()


def test_kinds_of_state_are_told_apart():
    before, _ = older_run()
    assert older_states.is_older(before[0])
    assert not older_states.is_older({"count": 0, "phase": 0, "arrays": {}})
    assert not older_states.is_older({})
    assert not older_states.is_older(None)
