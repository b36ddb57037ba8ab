"""One mesh over all devices of all processes, and what lies where on it: batches cut by rows, state on every device."""

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree, Shaped

DATA_AXIS = "data"


def starts_on_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several: by JAX's own variables, a Slurm or Open MPI job step, or a TPU pod."""
    tasks = max(int(environment.get(name) or 1) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    return "JAX_COORDINATOR_ADDRESS" in environment or tasks > 1 or pod


def join_cluster() -> None:
    """Connects this process to the others of its run, where there are any. Before anything else touches JAX.

    Besides the clusters that JAX knows by itself, three variables start a run by hand: JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    if starts_on_cluster():
        by_hand = "JAX_NUM_PROCESSES" in os.environ
        jax.distributed.initialize(
            num_processes=int(os.environ["JAX_NUM_PROCESSES"]) if by_hand else None,
            process_id=int(os.environ["JAX_PROCESS_ID"]) if by_hand else None,
        )


def make_mesh() -> Mesh:
    """All devices in a row, along the axis over which a batch is cut."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows cut over all devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the train state: the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, num_rows: int) -> np.ndarray:
    """Which rows of a global batch this process has to load, ascending, int64. All of them if it runs alone."""
    index = by_rows(mesh).addressable_devices_indices_map((num_rows,))
    return np.unique(np.concatenate([np.arange(num_rows)[rows] for rows in index.values()]))


def put_rows(mesh: Mesh, rows: Shaped[np.ndarray, "local ..."], *, num_rows: int) -> jax.Array:
    """The global batch [num_rows, ...] from every process's `local_rows` of it."""
    return jax.make_array_from_process_local_data(by_rows(mesh), rows, (num_rows, *rows.shape[1:]))


def put_everywhere(mesh: Mesh, array: Shaped[np.ndarray, "..."]) -> jax.Array:
    """The array on every device; every process has the whole of it."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), array.__getitem__)


def with_sharding(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Shapes and dtypes of the leaves, with the sharding they shall have."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
