"""The rows of every batch, and where epochs begin: tables determined by (seed, epoch) alone."""

import dataclasses

import numpy as np
from jaxtyping import Int, Int32

from san_jax.data import streams


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows for every step of a run; the step number alone is the position in the data.

    Attributes:
      rows: rows of the training set, by step.
      epoch_starts: first step of every epoch, followed by the total number of steps. Epochs differ in length, since an
        epoch ends when fewer than P identities have groups of pictures left.
    """

    rows: Int32[np.ndarray, "steps B"]
    epoch_starts: Int[np.ndarray, "_"]

    @property
    def num_steps(self) -> int:
        """Number of steps of all epochs."""
        return len(self.rows)


def identity_plan(pids: Int[np.ndarray, "n"], *, identities: int, instances: int, epochs: int, seed: int) -> Plan:
    """P x K batches (RandomIdentitySampler of the released code): `identities`, each with `instances` adjacent rows.

    A picture occurs at most once per epoch, except for identities with fewer than `instances` pictures, which are
    sampled with replacement. Pictures that do not fill a group, and groups left when fewer than `identities` identities
    have any, are dropped.
    """
    rows = [
        identity_epoch(pids, identities=identities, instances=instances, rng=streams.generator(seed, "people", epoch))
        for epoch in range(epochs)
    ]
    starts = np.cumsum([0] + [len(epoch) for epoch in rows])
    return Plan(np.concatenate([np.empty((0, identities * instances), np.int32), *rows]), starts)


def identity_epoch(
    pids: Int[np.ndarray, "n"], *, identities: int, instances: int, rng: np.random.Generator
) -> Int32[np.ndarray, "steps PK"]:
    """The batches of one epoch."""
    groups = [_groups(rows, instances, rng) for rows in rows_of_people(pids)]
    left = np.array([len(group) for group in groups])
    batches = []
    while (has_groups := np.flatnonzero(left)).size >= identities:
        people = rng.choice(has_groups, identities, replace=False)
        left[people] -= 1
        batches.append(np.concatenate([groups[person][left[person]] for person in people]))
    return np.array(batches, np.int32).reshape(-1, identities * instances)


def rows_of_people(pids: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "_"]]:
    """The rows of each identity's pictures, in the order of the pids."""
    by_person = np.argsort(pids, kind="stable")
    return np.split(by_person, np.flatnonzero(np.diff(pids[by_person])) + 1)


def _groups(rows: np.ndarray, instances: int, rng: np.random.Generator) -> np.ndarray:
    """One identity's rows, shuffled and split into groups [groups, instances]."""
    sampled = rng.choice(rows, instances) if len(rows) < instances else rng.permutation(rows)
    return sampled[: len(sampled) // instances * instances].reshape(-1, instances)


def shuffled_plan(num_rows: int, *, batch_size: int, epochs: int, seed: int, stream: str = "people") -> Plan:
    """Batches from a new permutation of all rows every epoch; rows that do not fill a batch are dropped.

    `stream` is one of `streams.STREAMS`: "people" for the training set, "pairs" for the pairs added to it.
    """
    steps = num_rows // batch_size
    rows = [
        streams.generator(seed, stream, epoch).permutation(num_rows)[: steps * batch_size] for epoch in range(epochs)
    ]
    return Plan(np.array(rows, np.int32).reshape(-1, batch_size), steps * np.arange(epochs + 1))


def with_pairs(plan: Plan, *, num_rows: int, first_row: int, pictures: int, seed: int) -> Plan:
    """Appends pairs to the rows of every step, from a new permutation whenever they are used up.

    Args:
      plan: plan of the training set.
      num_rows: number of pairs.
      first_row: row of the first pair in the joined source, which is the length of the training set.
      pictures: pairs per step, at most `num_rows`; 0 leaves the plan unchanged.
      seed: seed of the permutations.
    """
    if not pictures:
        return plan
    epochs = -(-plan.num_steps // (num_rows // pictures))
    pairs = shuffled_plan(num_rows, batch_size=pictures, epochs=epochs, seed=seed, stream="pairs")
    rows = np.concatenate([plan.rows, first_row + pairs.rows[: plan.num_steps]], axis=1, dtype=np.int32)
    return dataclasses.replace(plan, rows=rows)
