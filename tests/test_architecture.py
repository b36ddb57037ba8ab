import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_networks import SHAPE

from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture, check_same


def test_decoder_fits_the_stages_of_its_encoder():
    """Stage 2 has 16 channels at width 0.125; the decoder's own are scaled by 0.05 (512 to 26)."""
    decoder = nnx.eval_shape(lambda: SHAPE.new_decoder(nnx.Rngs(0)))
    assert decoder.embed2.conv.kernel.shape == (1, 1, 16, 13)
    assert decoder.reduce.conv.kernel.shape == (1, 1, 64, 26)


def test_last_stride_two_is_refused_with_a_decoder():
    halved = dataclasses.replace(SHAPE, last_stride=2, height=64, width=32)
    halved.check(draws=False)
    with pytest.raises(UserError, match=r"encoder\.last_stride to 1"):
        halved.check(draws=True)


def test_sizes_that_the_decoder_cannot_double_are_refused():
    with pytest.raises(UserError, match=r"data\.height and data\.width must be multiples of 16"):
        dataclasses.replace(SHAPE, height=40, width=20).check(draws=True)


def test_error_lists_the_fields_that_differ():
    check_same(SHAPE, SHAPE, where="a")
    with pytest.raises(UserError, match=r"a holds another network: fc_dim 8 \(this run: 16\); "):
        check_same(SHAPE, dataclasses.replace(SHAPE, fc_dim=16), where="a")


def test_older_checkpoints_default_to_the_networks_of_the_released_code():
    later = {"neck": "none", "stem": "torchvision", "min_channels": 1, "coarse": 0}
    older = {name: value for name, value in dataclasses.asdict(SHAPE).items() if name not in later}
    assert Architecture(**older) == SHAPE
    assert {name: getattr(SHAPE, name) for name in later} == later


def test_digest_depends_on_the_architecture_and_the_weights():
    weights = {"kernel": np.arange(6, dtype=np.float32)}
    digest = SHAPE.digest(weights)
    assert digest == SHAPE.digest({"kernel": jnp.arange(6, dtype=jnp.float32)})
    assert digest != SHAPE.digest({"kernel": np.nextafter(weights["kernel"], 9)})
    assert digest != dataclasses.replace(SHAPE, height=64).digest(weights)
