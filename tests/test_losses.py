import jax
import jax.numpy as jnp
import numpy as np
import pytest

from san_jax.training import losses

POINTS = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
PIDS = jnp.array([0, 0, 1, 1])


def test_id_loss_of_a_hand_computed_batch():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]))
    # Targets (14/15, 1/30, 1/30) and its permutation: 14/15 log 2 + 2/30 log 4 for the first, for the second
    # 14/15 log 4 + 1/30 log 4 + 1/30 log 2; with log 4 = 2 log 2 their mean is (16/15 + 59/30) / 2 log 2.
    assert losses.id_loss(logits, jnp.array([0, 1])) == pytest.approx(91 / 60 * np.log(2), rel=1e-6)


def test_id_loss_without_smoothing_is_the_negative_log_probability():
    logits = jax.random.normal(jax.random.key(0), (5, 7))
    pids = jnp.array([6, 0, 3, 3, 1])
    expected = -np.log(jax.nn.softmax(logits))[np.arange(5), pids].mean()
    assert losses.id_loss(logits, pids, label_smoothing=0.0) == pytest.approx(expected, rel=1e-6)


def test_gradient_of_the_id_loss_is_softmax_minus_smoothed_target():
    logits = jax.random.normal(jax.random.key(1), (3, 4))
    pids = jnp.array([2, 0, 3])
    target = 0.9 * np.eye(4)[pids] + 0.1 / 4
    gradient = jax.grad(losses.id_loss)(logits, pids)
    np.testing.assert_allclose(gradient, (jax.nn.softmax(logits) - target) / 3, atol=1e-7)


def test_id_loss_of_bfloat16_logits_is_computed_in_float32():
    logits = jax.random.normal(jax.random.key(2), (4, 700)).astype(jnp.bfloat16)
    pids = jnp.arange(4)
    loss = losses.id_loss(logits, pids)
    assert loss.dtype == jnp.float32
    assert loss == losses.id_loss(logits.astype(jnp.float32), pids)


def test_batch_hard_triplet_of_a_hand_computed_batch():
    # Hardest positives 5, 5, sqrt(85), sqrt(85); hardest negatives 1, sqrt(18), 1, 5.
    hinges = [5 - 1, 5 - 18**0.5, 85**0.5 - 1, 85**0.5 - 5]
    assert losses.batch_hard_triplet(POINTS, PIDS) == pytest.approx(np.mean(hinges) + 0.3, rel=1e-6)


def test_batch_hard_triplet_and_its_gradient_are_zero_if_identities_are_further_apart_than_the_margin():
    feats = jnp.array([[0.0], [0.1], [5.0], [5.1]])
    assert losses.batch_hard_triplet(feats, PIDS) == 0
    np.testing.assert_array_equal(jax.grad(losses.batch_hard_triplet)(feats, PIDS), np.zeros((4, 1)))


def test_batch_hard_triplet_does_not_depend_on_the_order_of_rows_or_the_values_of_pids():
    feats = jax.random.normal(jax.random.key(3), (12, 5))
    pids = jnp.repeat(jnp.arange(4), 3)
    order = jax.random.permutation(jax.random.key(4), 12)
    shuffled = losses.batch_hard_triplet(feats[order], 100 - 7 * pids[order])
    assert shuffled == pytest.approx(float(losses.batch_hard_triplet(feats, pids)), rel=1e-6)


def test_only_picture_of_an_identity_is_its_own_positive():
    feats = jnp.array([[0.0, 0.0], [0.0, 0.1]])
    assert losses.batch_hard_triplet(feats, jnp.array([0, 1])) == pytest.approx(0.2, abs=1e-5)


def test_equal_features_give_the_margin_and_a_zero_gradient():
    feats = jnp.ones((4, 3))
    value, gradient = jax.value_and_grad(losses.batch_hard_triplet)(feats, PIDS)
    assert value == pytest.approx(0.3, rel=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros((4, 3)))


def test_gradient_of_the_triplet_loss_pulls_the_hardest_positive_and_pushes_the_hardest_negative():
    gradient = jax.grad(losses.batch_hard_triplet)(POINTS, PIDS)
    # The first row: positive of row 1 and of itself (direction -(0.6, 0.8)), negative of row 2 and of itself ((0, 1)).
    np.testing.assert_allclose(gradient[0], [2 * -0.6 / 4, (2 * -0.8 + 2 * 1) / 4], atol=1e-6)


def test_reconstruction_is_the_mean_absolute_error():
    drawn = jnp.array([0.0, 1.0, -1.0, 0.5]).reshape(1, 2, 2, 1)
    texture = jnp.array([0.5, 1.0, 1.0, -0.5]).reshape(1, 2, 2, 1)
    assert losses.reconstruction(drawn, texture) == pytest.approx((0.5 + 0 + 2 + 1) / 4)


def maps_of(values):
    return jnp.broadcast_to(jnp.array(values, jnp.float32)[:, None, None, None], (len(values), 2, 1, 3))


def test_texture_triplets_follow_the_table_of_the_released_code():
    values = np.array([0.0, 1.0, 3.0, 6.0, 2.0, 2.5, 2.0, 9.0, 8.0, 8.5, 7.0, 0.0])  # three pids, four pictures each

    def hinge(positive, negative):
        squares = [(values[a] - values[b]) ** 2 for a, b in (positive, negative)]
        return max(0, squares[0] - squares[1] + 0.3)

    table = [((0, 1), (0, 4)), ((1, 2), (1, 5)), ((2, 3), (2, 6)), ((0, 3), (3, 4))]
    expected = [sum(hinge((i + p[0], i + p[1]), (i + n[0], i + n[1])) for i in (0, 4)) for p, n in table]
    assert expected == pytest.approx([0, 2.05, 8.3 + 24.3, 20.3 + 48.3])
    sums = losses.texture_triplets([maps_of(values)] * 4, instances=4)
    np.testing.assert_allclose(sums, expected, rtol=1e-6)


def test_texture_triplets_with_two_pictures_per_identity_wrap_round_within_the_identity():
    levels = [maps_of([0.0, 2.0, 1.0, 5.0])] * 4
    # (0, 1) against (0, 2), (1, 0) against (1, 3), (0, 1) against (0, 2), (0, 1) against (1, 2), squared.
    expected = [4 - 1 + 0.3, 0.0, 4 - 1 + 0.3, 4 - 1 + 0.3]
    np.testing.assert_allclose(losses.texture_triplets(levels, instances=2), expected, rtol=1e-6)


def test_each_texture_triplet_sum_belongs_to_its_level():
    flat, steep = maps_of([0.0] * 8), maps_of([0.0, 1.0, 0.0, 1.0] * 2)
    sums = losses.texture_triplets([flat, steep, flat, flat], instances=4)
    np.testing.assert_allclose(sums, [0.3, 1.3, 0.3, 0.3], rtol=1e-6)


def test_texture_triplets_of_one_identity_are_zero():
    np.testing.assert_array_equal(losses.texture_triplets([maps_of([0.0, 1.0, 5.0])] * 4, instances=3), np.zeros(4))


def test_texture_triplets_of_bfloat16_maps_are_computed_in_float32():
    levels = [jax.random.normal(jax.random.key(i), (8, 4, 2, 3)).astype(jnp.bfloat16) for i in range(4)]
    sums = losses.texture_triplets(levels, instances=4)
    assert sums.dtype == jnp.float32
    np.testing.assert_array_equal(sums, losses.texture_triplets([m.astype(jnp.float32) for m in levels], instances=4))


def test_levels_may_differ_in_size():
    levels = [jnp.ones((8, 2**i, 2**i, 16 // 2**i)) for i in range(4)]
    np.testing.assert_allclose(losses.texture_triplets(levels, instances=4), np.full(4, 0.3), rtol=1e-6)
