"""The smallest networks that have all parts, and their fresh states; for tests that need no golden numbers."""

import functools

import jax
import optax

from san_jax.networks.architecture import Architecture
from san_jax.training import train_step
from san_jax.training.train_step import Networks

SHAPE = Architecture(
    depth=10,
    fc_dim=8,
    last_stride=1,
    encoder_width=0.125,
    num_pids=5,
    decoder_width=0.05,
    skips=True,
    height=32,
    width=16,
)
# Plain gradient descent: the update of a parameter is its negative gradient.
REID = optax.sgd(1.0)
RECON = optax.sgd(1.0)


def state_of(mode, reid_tx=REID, recon_tx=RECON):
    """The initial state of a mode, in dictionaries of its own: a test may replace arrays in it."""
    return jax.tree.map(lambda array: array, _shared_state(mode, reid_tx, recon_tx))


@functools.cache
def _shared_state(mode, reid_tx, recon_tx):
    make = functools.partial(train_step.make_state, Networks(mode, SHAPE), reid_tx=reid_tx, recon_tx=recon_tx, seed=1)
    return jax.jit(make)()
