import numpy as np
import pytest

from san_jax.data import identity_sampler

PIDS = np.random.default_rng(0).permutation(np.repeat(np.arange(30), np.arange(30) % 9 + 1))
PLAN = identity_sampler.identity_plan(PIDS, identities=5, instances=4, epochs=6, seed=3)


def epochs_of(plan):
    return np.split(plan.rows, plan.epoch_starts[1:-1])


def test_rows_of_an_identity_are_adjacent_and_no_identity_comes_twice_in_a_batch():
    people = PIDS[PLAN.rows].reshape(PLAN.num_steps, 5, 4)
    assert (people == people[..., :1]).all()
    assert all(len(set(batch[:, 0])) == 5 for batch in people)


def test_picture_comes_at_most_once_per_epoch_unless_its_identity_has_too_few():
    counts = np.bincount(PIDS)
    for rows in epochs_of(PLAN):
        drawn, times = np.unique(rows, return_counts=True)
        assert times[counts[PIDS[drawn]] >= 4].max() == 1
        assert {0, 1, 2} & set(PIDS[rows].ravel()), "people with fewer than four pictures are drawn too"


def test_number_of_groups_follows_the_number_of_pictures_of_an_identity():
    """An epoch holds at most floor(n / K) groups of an identity with n pictures, or one group if n < K."""
    limit = np.maximum(np.bincount(PIDS) // 4, 1)
    for rows in epochs_of(PLAN):
        groups = np.bincount(PIDS[rows].reshape(-1, 4)[:, 0], minlength=30)
        assert (groups <= limit).all()
        assert (groups < limit).sum() < 5, "an epoch ends when fewer than P people have groups left"


def test_epochs_depend_only_on_seed_and_epoch():
    longer = identity_sampler.identity_plan(PIDS, identities=5, instances=4, epochs=8, seed=3)
    np.testing.assert_array_equal(longer.rows[: PLAN.num_steps], PLAN.rows)
    np.testing.assert_array_equal(longer.epoch_starts[:7], PLAN.epoch_starts)
    other = identity_sampler.identity_plan(PIDS, identities=5, instances=4, epochs=6, seed=4)
    first, second = epochs_of(PLAN)[:2]
    assert not np.array_equal(other.rows[:3], PLAN.rows[:3])
    assert not np.array_equal(first[:3], second[:3])


def test_every_group_of_an_identity_is_equally_likely():
    """With two groups of four in eight pictures, each other picture is in a picture's group with probability 3 / 7."""
    pids = np.repeat(np.arange(2), 8)
    partner = np.zeros(8)
    for epoch in range(2000):
        rows = identity_sampler.identity_epoch(
            pids, identities=2, instances=4, rng=np.random.default_rng([1, epoch])
        ).reshape(-1, 4)
        partner[next(group for group in rows if 0 in group)] += 1
    np.testing.assert_allclose(partner[1:] / 2000, 3 / 7, atol=0.05)


@pytest.mark.parametrize("epochs", [0, 1])
def test_fewer_identities_than_a_batch_holds_give_no_step(epochs):
    plan = identity_sampler.identity_plan(PIDS, identities=31, instances=4, epochs=epochs, seed=0)
    assert plan.num_steps == 0
    assert plan.rows.shape == (0, 124)


def test_pairs_follow_the_people_in_a_batch_and_all_are_used_before_one_is_repeated():
    mixed = identity_sampler.with_pairs(PLAN, num_rows=11, first_row=1000, pictures=3, seed=3)
    np.testing.assert_array_equal(mixed.rows[:, :20], PLAN.rows)
    np.testing.assert_array_equal(mixed.epoch_starts, PLAN.epoch_starts)
    pairs = mixed.rows[:, 20:] - 1000
    assert pairs.shape == (PLAN.num_steps, 3)
    assert PLAN.num_steps > 6, "the pairs are used up more than once"
    passes = [pairs[start : start + 3].ravel() for start in range(0, PLAN.num_steps, 3)]
    assert all(len(set(rows)) == len(rows) and set(rows) <= set(range(11)) for rows in passes)
    assert not np.array_equal(passes[0], passes[1])


def test_pairs_depend_only_on_seed_and_step():
    longer = identity_sampler.identity_plan(PIDS, identities=5, instances=4, epochs=8, seed=3)
    mixed = [identity_sampler.with_pairs(plan, num_rows=11, first_row=0, pictures=3, seed=3) for plan in (PLAN, longer)]
    np.testing.assert_array_equal(mixed[0].rows, mixed[1].rows[: PLAN.num_steps])
    other = identity_sampler.with_pairs(PLAN, num_rows=11, first_row=0, pictures=3, seed=4)
    assert not np.array_equal(other.rows[:, 20:], mixed[0].rows[:, 20:])


def test_plan_without_pairs_is_returned_unchanged():
    assert identity_sampler.with_pairs(PLAN, num_rows=11, first_row=1000, pictures=0, seed=3) is PLAN
