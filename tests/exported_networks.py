"""Small networks of every kind, with weights and statistics from a recipe, as models that can be exported."""

import dataclasses

import jax
from torch_states import SMALL, state_of

from san_jax import devices
from san_jax.model import Model

# By name: one option at a time, and together those that meet.
ARCHITECTURES = {
    "bottlenecks": SMALL,
    "basic": dataclasses.replace(SMALL, depth=10),
    "fastreid": dataclasses.replace(SMALL, stem="fastreid", neck="bn"),
    "strong_baseline": dataclasses.replace(SMALL, stem="strong_baseline", neck="bn", fc_dim=0),
    "pooled": dataclasses.replace(SMALL, fc_dim=0, last_stride=2),
    "odd": dataclasses.replace(SMALL, height=70, width=35, stem="fastreid", last_stride=2),
}
DRAWING = {
    "skips": SMALL,
    "without_skips": dataclasses.replace(SMALL, skips=False, min_channels=3),
    "coarse": dataclasses.replace(SMALL, coarse=5),
    "coarse_alone": dataclasses.replace(SMALL, coarse=5, decoder_width=0.0),
    "square": dataclasses.replace(SMALL, height=32, width=32),
}
TINY = dataclasses.replace(SMALL, depth=10, height=32, width=16)  # for tests that compile much
FIELDS = ("encoder", "encoder_stats", "decoder", "decoder_stats")


def model_of(architecture=SMALL, mode="baseline", *, seed=1):
    """A model on one device."""
    state = state_of(architecture, mode, seed=seed)
    weights = {field: getattr(state, field) for field in FIELDS[: 2 if mode == "baseline" else 4]}
    mesh = devices.make_mesh()
    return Model(architecture, mode, jax.device_put(weights, devices.replicated(mesh)), mesh)
