import jax
import numpy as np
import pytest

from san_jax.data import identity_sampler, streams

JAX_STREAMS = ("encoder", "decoder", "augmentation")


def bits(keys):
    return {tuple(row) for row in np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist()}


def test_no_two_streams_of_a_run_share_a_key():
    """Augmentation keys are folded with the step, weight keys with the number of the parameter."""
    numbers = np.arange(1000, dtype=np.uint32)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = [bits(jax.random.key(seed)) | bits(fold(jax.random.key(seed), numbers)) for seed in (0, 1)]
    for seed in (0, 1):
        for stream in JAX_STREAMS:
            key = streams.key(seed, stream)
            keys += [bits(key), bits(fold(key, numbers))]
    assert len(set.union(*keys)) == sum(map(len, keys))


def test_key_depends_only_on_seed_and_name():
    for stream in JAX_STREAMS:
        assert bits(streams.key(3, stream)) == bits(streams.key(3, stream)) != bits(streams.key(4, stream))


def test_pairs_and_people_are_shuffled_independently():
    people, pairs = (
        identity_sampler.shuffled_plan(50, batch_size=50, epochs=3, seed=0, stream=stream).rows
        for stream in ("people", "pairs")
    )
    assert not (people == pairs).all(axis=1).any()
    assert np.mean(people == pairs) < 0.1


def test_people_of_a_seed_are_those_of_runs_from_before_streams():
    """So that a run resumed from an old checkpoint keeps its epochs, and with them its phases and its last step."""
    for seed, epoch in ((0, 0), (7, 3), (2**31, 319)):
        expected = np.random.default_rng([seed, epoch]).permutation(100)
        np.testing.assert_array_equal(streams.generator(seed, "people", epoch).permutation(100), expected)


def test_unknown_stream_is_refused():
    with pytest.raises(KeyError):
        streams.key(0, "weights")
