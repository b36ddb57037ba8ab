"""SAN's losses: ID, batch-hard triplet, reconstruction and texture triplets, all in float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int


def id_loss(logits: Float[Array, "B N"], pids: Int[Array, "B"], *, label_smoothing: float = 0.1) -> Float32[Array, ""]:
    """Cross-entropy over the training identities, mean over the batch.

    Args:
      logits: the classifier's output, one column per training identity.
      pids: training labels, 0 .. N-1.
      label_smoothing: share of the target distribution that is spread evenly over all N identities.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    of_target = jnp.take_along_axis(log_probs, pids[:, None], axis=1).mean()
    return -(1 - label_smoothing) * of_target - label_smoothing * log_probs.mean()


def batch_hard_triplet(feats: Float[Array, "B D"], pids: Int[Array, "B"], *, margin: float = 0.3) -> Float32[Array, ""]:
    """Batch-hard triplet loss on Euclidean distances of un-normalised features, mean over the anchors.

    Every picture is an anchor. Its hardest positive may be itself (an identity with one picture: distance about 0). An
    anchor without a negative contributes 0, so the loss of a batch with one identity is 0.

    Args:
      feats: re-ID features.
      pids: labels, any integers.
      margin: in feature distance.

    References:
      Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017.
    """
    distmat = euclidean_distances(feats.astype(jnp.float32))
    same_pid = pids[:, None] == pids[None, :]
    hardest_positive = jnp.where(same_pid, distmat, -jnp.inf).max(axis=1)
    hardest_negative = jnp.where(same_pid, jnp.inf, distmat).min(axis=1)
    return jax.nn.relu(hardest_positive - hardest_negative + margin).mean()


def euclidean_distances(feats: Float32[Array, "B D"]) -> Float32[Array, "B B"]:
    """Distances between all rows. Where the squared distance is below 1e-12, the distance is 1e-6 with gradient 0."""
    squares = jnp.square(feats).sum(axis=1)
    products = jnp.matmul(feats, feats.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sqrt(jnp.maximum(squares[:, None] + squares[None, :] - 2 * products, 1e-12))


def reconstruction(drawn: Float[Array, "B H W C"], texture: Float[Array, "B H W C"]) -> Float32[Array, ""]:
    """Mean absolute error between the decoder's output and the true texture, both in [-1, 1]."""
    return jnp.abs(drawn.astype(jnp.float32) - texture.astype(jnp.float32)).mean()


def texture_triplets(
    levels: Sequence[Float[Array, "B _ _ _"]], *, instances: int, margin: float = 0.3
) -> Float32[Array, "4"]:
    """Hinge per decoder level: maps of one identity must be closer to each other than to those of another identity.

    The distance is the mean squared difference over the whole map. There is one triplet per identity except the last,
    with its negative from the next identity; they are summed over identities, as in the released code. Which pictures
    of the two identities are compared differs by level as in the released code, with offsets modulo `instances`.

    Args:
      levels: the decoder's four maps, coarse to fine; rows in the sampler's order, `instances` consecutive ones per
        identity.
      instances: pictures per identity, K; divides B.
      margin: in squared activation, so it depends on the maps' scale.
    """
    last = instances - 1
    # Offsets from an identity's first row: (positive pair, negative pair); `instances` is the next one's first row.
    pairs = [((i % instances, (i + 1) % instances), (i % instances, instances + i % instances)) for i in range(3)]
    pairs.append(((0, last), (last, instances)))
    sums = []
    for level, (positive, negative) in zip(levels, pairs, strict=True):
        people = level.astype(jnp.float32).reshape(-1, instances, *level.shape[1:])
        hinges = jax.nn.relu(pair_distances(people, *positive) - pair_distances(people, *negative) + margin)
        sums.append(hinges.sum())
    return jnp.stack(sums)


def pair_distances(people: Float32[Array, "P K H W C"], first: int, second: int) -> Float32[Array, "Q"]:
    """Mean squared difference of two pictures' maps, for each of the Q = P - 1 identities that another one follows.

    Args:
      people: maps of P identities, K pictures each.
      first: index of one picture; K and above are pictures of the next identity.
      second: as `first`, of the other picture.
    """
    instances = people.shape[1]

    def maps(picture: int) -> Float32[Array, "Q H W C"]:
        return people[:-1, picture] if picture < instances else people[1:, picture - instances]

    return jnp.square(maps(first) - maps(second)).mean(axis=(1, 2, 3))
