"""How the networks compute, by the names that the config's `compute_dtype` takes."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax


class Compute(NamedTuple):
    """Dtype of maps, and precision of the products in convolutions and their gradients.

    Parameters, running statistics, pooled features, the layers behind them, textures and losses are float32 in any
    case; the products among those are of the highest precision.
    """

    dtype: jnp.dtype
    precision: lax.Precision


COMPUTE = {
    # Float32 on every device; XLA's default would be TensorFloat-32 on GPUs and one bfloat16 pass on TPUs.
    "float32": Compute(jnp.dtype("float32"), lax.Precision.HIGHEST),
    # On GPUs that have it: products of numbers rounded to 10 bits, summed in float32, as PyTorch's convolutions by
    # default. Three bfloat16 passes on TPUs, float32 on CPUs.
    "tensorfloat32": Compute(jnp.dtype("float32"), lax.Precision.HIGH),
    "bfloat16": Compute(jnp.dtype("bfloat16"), lax.Precision.DEFAULT),
}
COMPUTE_DTYPES = tuple(COMPUTE)
