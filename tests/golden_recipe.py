"""Weights and inputs of the golden numbers, as the authors' code was given them; from a seed and PyTorch's names."""

import pathlib
import zlib
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict

from san_jax.weights import torch_names

GOLDEN = pathlib.Path(__file__).parent / "golden"


def weight(name: str, shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """The entry `name` of a PyTorch state dict, in PyTorch's shape, float32."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        values = rng.uniform(0.2, 0.6, shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return values.astype(np.float32)


def filled(make_model: Callable[[], nnx.Module], names: Mapping[str, torch_names.Entry], *, seed: int) -> nnx.Module:
    """The model with the recipe's weights and statistics."""
    graphdef, *states = nnx.split(nnx.eval_shape(make_model), nnx.Param, nnx.BatchStat)
    shapes = {path: leaf.shape for state in states for path, leaf in nnx.to_flat_state(state)}
    params, stats = {}, {}
    for name, entry in names.items():
        shape = np.empty(shapes[entry.path], np.bool).transpose(torch_names.TO_TORCH[entry.layout]).shape
        values = torch_names.to_ours(weight(name, shape, seed=seed), entry.layout)
        (stats if entry.is_stat else params)[entry.path] = jnp.asarray(values)
    return nnx.merge(graphdef, unflatten_dict(params), unflatten_dict(stats))


def images(batch: int, height: int, width: int, *, seed: int) -> np.ndarray:
    """Normalised pictures [batch height width 3], float32: coarse patches and a little noise."""
    rng = np.random.default_rng([seed, 1])
    low = rng.standard_normal((batch, height // 8, width // 8, 3))
    high = 0.3 * rng.standard_normal((batch, height, width, 3))
    return (low.repeat(8, 1).repeat(8, 2) + high).astype(np.float32)


def textures(batch: int, height: int, width: int, *, seed: int) -> np.ndarray:
    """Texture images [batch height width 3] in [-1, 1], float32."""
    return np.random.default_rng([seed, 2]).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def numbers(file: str) -> dict[str, np.ndarray]:
    """The arrays of one golden file."""
    with np.load(GOLDEN / file) as arrays:
        return dict(arrays)


def assert_agrees(ours: Mapping[str, np.ndarray], golden: Mapping[str, np.ndarray], tolerances: Mapping[str, float]):
    """Fails at the first quantity, in the order of `tolerances`, whose error is above its tolerance.

    The error is the largest absolute difference divided by the golden array's largest absolute value.
    """
    assert set(tolerances) == set(golden)
    for name, tolerance in tolerances.items():
        assert ours[name].shape == golden[name].shape, name
        error = np.abs(np.asarray(ours[name]) - golden[name]).max() / np.abs(golden[name]).max()
        assert error <= tolerance, f"{name} is the first quantity that is off, by {error:.1e}"
