import functools

import numpy as np
import pytest
from array_source import ArraySource
from runs import config_of

from configs import san_pg
from san_jax.errors import UserError
from san_jax.training import batch_plan, run
from san_jax.training.train_step import Networks

PEOPLE = ArraySource(np.repeat(np.arange(12), 5))
PAIRS = ArraySource(np.repeat(np.arange(7), 2), name="test/pairs", seed=1)


def test_error_for_an_indivisible_batch_names_the_field():
    config = config_of()
    networks = Networks("san", run.architecture_of(config, num_pids=12))
    for num_devices, fitting in ((3, 2), (7, 4), (24, 16)):
        said = rf"cannot be divided by {num_devices} devices; change batch\.identities, or use {fitting} of them"
        with pytest.raises(UserError, match=said):
            batch_plan.make_plan(config, PEOPLE, None, networks=networks, num_devices=num_devices)


def test_error_for_a_batch_that_its_pairs_make_indivisible_names_pit_pictures():
    """Only the total must be divisible: on 3 devices 16 pictures and 2 pairs are, 16 pictures and 3 pairs are not."""
    networks = Networks("san", run.architecture_of(config_of(), num_pids=12))
    make_plan = functools.partial(batch_plan.make_plan, source=PEOPLE, pairs=PAIRS, networks=networks, num_devices=3)
    assert make_plan(config_of(**{"batch.pit_pictures": 2})).rows.shape[1] == 18
    with pytest.raises(UserError, match=r"batch\.pit_pictures 3 pairs .* by 3 devices; change batch\.pit_pictures"):
        make_plan(config_of(**{"batch.pit_pictures": 3}))


def test_san_pg_takes_no_picture_twice_in_an_epoch():
    config = config_of(san_pg, **{"schedule.epochs": 2})
    networks = Networks("san_pg", run.architecture_of(config, num_pids=12))
    plan = batch_plan.make_plan(config, PEOPLE, None, networks=networks, num_devices=1)
    assert plan.rows.shape == (2 * (60 // 16), 16)
    first, second = np.split(plan.rows, 2)
    assert len(set(first.ravel())) == first.size
    assert not np.array_equal(first, second)
