"""PyTorch's optimizers as optax transforms, consecutive phases, frozen layers, and learning-rate schedules."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Int32, PyTree

from san_jax.errors import UserError

OPTIMIZERS = ("amsgrad", "adam", "sgd", "rmsprop")
TEXTURE_OPTIMIZERS = ("adam", "muon")
EPS = 1e-8  # PyTorch's default for all of them


def make_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """An optimizer by name; all but muon as PyTorch computes them.

    Args:
      name: amsgrad, adam, sgd, rmsprop (alpha 0.99), or muon (see `scale_by_muon`).
      learning_rate: a number, or a function of the number of updates that this transform has made.
      weight_decay: L2, added to the gradient before any moment, as PyTorch's `weight_decay` (AdamW decouples it).
      b1: decay of the first moment of amsgrad and adam.
      b2: decay of their second moment.
      momentum: of sgd and rmsprop; in rmsprop it acts on the scaled gradient, before the learning rate.
      nesterov: whether sgd uses Nesterov momentum.

    Raises:
      UserError: the name is unknown.
    """
    if name == "amsgrad":
        directions = [scale_by_amsgrad(b1, b2)]
    elif name == "adam":
        directions = [optax.scale_by_adam(b1, b2, EPS)]
    elif name == "muon":
        directions = [scale_by_muon(b1, b2)]
    elif name == "sgd":
        directions = [optax.trace(momentum, nesterov)]
    elif name == "rmsprop":
        directions = [optax.scale_by_rms(decay=0.99, eps=EPS, eps_in_sqrt=False), optax.trace(momentum)]
    else:
        raise UserError(f"reid.optimizer {name!r} is unknown; it must be one of {', '.join(OPTIMIZERS)}")
    return optax.chain(
        optax.add_decayed_weights(weight_decay), *directions, optax.scale_by_learning_rate(learning_rate)
    )


def scale_by_amsgrad(b1: float, b2: float, eps: float = EPS) -> optax.GradientTransformation:
    """PyTorch's AMSGrad: the maximum of the raw second moment, bias-corrected afterwards.

    `optax.scale_by_amsgrad` takes the maximum of the corrected moment, so that one large gradient early in training
    shrinks the steps for good (optax issue 1389).

    References:
      Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", ICLR 2018.
    """

    def init(params: optax.Params) -> optax.ScaleByAmsgradState:
        mu, nu, nu_max = (optax.tree.zeros_like(params) for _ in range(3))  # three buffers, so that each can be donated
        return optax.ScaleByAmsgradState(count=jnp.zeros([], jnp.int32), mu=mu, nu=nu, nu_max=nu_max)

    def update(
        grads: optax.Updates, state: optax.ScaleByAmsgradState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAmsgradState]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)
        updates = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + eps),
            optax.tree.bias_correction(mu, b1, count),
            optax.tree.bias_correction(nu_max, b2, count),
        )
        return updates, optax.ScaleByAmsgradState(count=count, mu=mu, nu=nu, nu_max=nu_max)

    return optax.GradientTransformation(init, update)


def scale_by_muon(b1: float, b2: float) -> optax.GradientTransformation:
    """Muon for the kernels of convolutions and linear layers, a column for each output; Adam for everything else.

    Both have Nesterov momentum, and make steps of about the same size, so that one learning rate does for both (Liu et
    al., section 2.2).

    Args:
      b1: decay of Adam's first moment; that of Muon's momentum is 0.95.
      b2: decay of Adam's second moment.

    References:
      Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
      Liu et al., "Muon is Scalable for LLM Training", 2025.
    """

    def matrices(params: optax.Params) -> PyTree:
        def columns(leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
            *inputs, output = range(leaf.ndim)
            return optax.contrib.MuonDimensionNumbers(tuple(inputs), (output,)) if inputs else None

        return jax.tree.map(columns, params)

    descent = optax.contrib.muon(
        1.0, muon_weight_dimension_numbers=matrices, consistent_rms=0.2, adam_b1=b1, adam_b2=b2
    )
    return optax.chain(descent, optax.scale(-1.0))


class PhasesState(NamedTuple):
    """The state of consecutive phases.

    Attributes:
      count: number of updates made in all phases together.
      phase: index of the phase that made the last one, 0 before the first.
      arrays: the state of that phase, as nested dictionaries by the paths of its leaves; phases share the arrays at
        equal paths, such as the moments of Adam and AMSGrad. What only other phases use is kept, but means nothing.
    """

    count: Int32[Array, ""]
    phase: Int32[Array, ""]
    arrays: PyTree


def in_phases(phases: Sequence[tuple[int | None, optax.GradientTransformation]]) -> optax.GradientTransformation:
    """Runs optimizers one after the other, each from a fresh state and with its own count of updates.

    The state holds one phase at a time, and has one structure throughout, so that one compiled step and one kind of
    checkpoint serve all phases.

    Args:
      phases: (number of updates, transform) of each phase, in order; the last phase has no end and the number None.
        Phases of 0 updates are left out.
    """
    phases = [(steps, tx) for steps, tx in phases if steps != 0]
    lengths = [steps for steps, _ in phases]
    if None in lengths[:-1] or lengths[-1:] != [None]:
        raise ValueError(f"the last phase, and no other, must have the number of updates None; got {lengths}")
    ends = list(itertools.accumulate(lengths[:-1]))

    def init(params: optax.Params) -> PhasesState:
        arrays = {}
        for _, tx in reversed(phases):  # the first phase comes last, since its state is the one that counts
            arrays |= leaves_by_path(tx.init(params))
        return PhasesState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), unflatten_dict(arrays))

    def update(
        grads: optax.Updates, state: PhasesState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, PhasesState]:
        current = index_of_interval(ends, state.count)
        updates, arrays = optax.tree.zeros_like(grads), flatten_dict(state.arrays)
        old = dict(arrays)
        for index, (_, tx) in enumerate(phases):
            fresh = tx.init(params)
            # An element-wise `where` fuses with the update and writes in place; branches would copy the state.
            kept = jax.tree.map(partial(jnp.where, state.phase != current), fresh, at_paths(fresh, old))
            proposed, new = tx.update(grads, kept, params)
            chosen = partial(jnp.where, current == index)
            updates = jax.tree.map(chosen, proposed, updates)
            arrays |= {path: chosen(leaf, arrays[path]) for path, leaf in leaves_by_path(new).items()}
        return updates, PhasesState(optax.safe_increment(state.count), current, unflatten_dict(arrays))

    return optax.GradientTransformation(init, update)


def leaves_by_path(tree: PyTree) -> dict[tuple[str, ...], Any]:
    """Path -> leaf of a tree; lists, tuples and named tuples give the same paths as dictionaries of their items."""
    return {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def at_paths(like: PyTree, leaves: Mapping[tuple[str, ...], Any]) -> PyTree:
    """A tree of the structure of `like`, its leaves taken by their paths."""
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[_names(path)], like)


def _names(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def frozen_except(tx: optax.GradientTransformation, open_layers: Sequence[str]) -> optax.GradientTransformation:
    """Applies `tx` only to the named top-level children of the parameters; the others get zero updates.

    The state of the others is kept, so that it has the structure of an optimizer of all parameters. `tx` must treat
    every array on its own.

    Raises:
      UserError: at `init`, if a name is not a child of the parameters.
    """

    def init(params: optax.Params) -> optax.OptState:
        unknown = [name for name in open_layers if name not in params]
        if unknown:
            raise UserError(f"schedule.open_layers names {', '.join(unknown)}; the network has {', '.join(params)}")
        return tx.init(params)

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = tx.update(grads, state, params)
        still = {name: optax.tree.zeros_like(child) for name, child in updates.items() if name not in open_layers}
        return {**updates, **still}, state

    return optax.GradientTransformation(init, update)


def scaled(tx: optax.GradientTransformation, factor_of: Callable[[str], float]) -> optax.GradientTransformation:
    """Multiplies the updates of each top-level child of the parameters by the factor of its name."""

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = tx.update(grads, state, params)
        return {name: optax.tree.scale(factor_of(name), child) for name, child in updates.items()}, state

    return optax.GradientTransformation(tx.init, update)


def multistep(learning_rate: float, milestones: Sequence[int], gamma: float) -> optax.Schedule:
    """A rate that is multiplied by `gamma` at every milestone.

    Args:
      learning_rate: rate of the first step.
      milestones: the first step of every new rate, counted from the start of the phase.
      gamma: the factor.
    """
    return stepwise(learning_rate * gamma ** np.arange(len(milestones) + 1), sorted(milestones))


def rising(rate: optax.Schedule, steps: int) -> optax.Schedule:
    """The same rate, but in the first `steps` steps, in which it is multiplied by 1 / steps, 2 / steps, ... 1."""
    return lambda step: rate(step) * jnp.minimum(1.0, (step + 1) / max(1, steps))


def exponential_by_epoch(rate: float, growth: float, epoch_starts: Sequence[int]) -> optax.Schedule:
    """The rate `rate * growth ** epoch`, constant within an epoch; the last epoch has no end.

    Args:
      rate: rate in epoch 0.
      growth: factor from one epoch to the next.
      epoch_starts: the first step of every epoch, counted from the start of the phase; epochs may differ in length.
    """
    return stepwise(rate * growth ** np.arange(len(epoch_starts)), epoch_starts[1:])


def stepwise(rates: Sequence[float] | np.ndarray, starts: Sequence[int]) -> optax.Schedule:
    """`rates[i]` from step `starts[i - 1]` on; computed once in float64, so that the rates do not drift."""
    rates = np.asarray(rates, np.float32)
    return lambda step: jnp.asarray(rates)[index_of_interval(starts, step)]


def index_of_interval(starts: Sequence[int], step: Int32[Array, ""] | int) -> Int32[Array, ""]:
    """How many of the sorted `starts` lie at or before the step."""
    return jnp.searchsorted(jnp.asarray(starts, jnp.int32), step, side="right")
