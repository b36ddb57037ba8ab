"""One mesh over all devices of all processes, and what lies where on it: batches cut by rows, state on every device."""

import os
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree, Shaped

from san_jax.errors import UserError
from san_jax.process import stopping

DATA_AXIS = "data"


SWITCH = "SAN_JAX_DISTRIBUTED"
BY_HAND = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def starts_on_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several.

    It is where SAN_JAX_DISTRIBUTED is 1, and is not where that is 0. Else by JAX's own variables, by those of a Slurm
    or Open MPI job step or of several TPU slices, or on a TPU pod. Other clusters that JAX knows, such as Kubernetes,
    need the 1: JAX takes a lonely pod for a part of one.

    Raises:
      UserError: a variable holds something else than a number.
    """
    if environment.get(SWITCH):
        return _number(environment, SWITCH) > 0
    tasks = max(_number(environment, name) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "") or _number(environment, "MEGASCALE_NUM_SLICES") > 1
    return "JAX_COORDINATOR_ADDRESS" in environment or tasks > 1 or pod or tpu_hosts() > 1


def _number(environment: Mapping[str, str], name: str) -> int:
    """A variable that is a number; 1 where it is not set."""
    try:
        return int(environment.get(name) or 1)
    except ValueError as error:
        raise UserError(f"the variable {name} is {environment[name]!r}, which is no number; unset it") from error


def tpu_hosts() -> int:
    """Hosts of the TPU pod that JAX finds, by its metadata server where no variable tells; 1 where there is none."""
    try:
        kinds = [kind for kind in ClusterEnv._cluster_types if kind.name.endswith("tpu")]
        found = next((kind for kind in kinds if kind.is_env_present()), None)
        return found.get_process_count() if found else 1
    except Exception:  # in a container JAX may take itself to be on a TPU host whose metadata server cannot be asked
        return 1


def join_cluster() -> None:
    """Connects this process to the others of its run, where there are any. Before anything else touches JAX.

    Besides the clusters that JAX knows by itself, three variables start a run by hand: JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UserError: a variable is wrong, or the others cannot be reached.
    """
    if not starts_on_cluster():
        return
    count, index = (_number(os.environ, name) if os.environ.get(name) else None for name in BY_HAND)
    try:
        with stopping.keeping_sigterm():
            jax.distributed.initialize(num_processes=count, process_id=index)
    except Exception as error:  # each kind of cluster fails in its own way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"cannot join the other processes of this run ({reason}); set JAX_COORDINATOR_ADDRESS, "
            f"{' and '.join(BY_HAND)} by hand, or {SWITCH}=0 if this process is to work alone"
        ) from error


def make_mesh() -> Mesh:
    """All devices in a row, along the axis over which a batch is cut."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows cut over all devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the train state: the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rounded_up(mesh: Mesh, num_rows: int) -> int:
    """The smallest number of rows, at least so many, that can be cut over all devices."""
    return -(-num_rows // mesh.size) * mesh.size


def local_rows(mesh: Mesh, num_rows: int) -> np.ndarray:
    """Which rows of a global batch this process has to load, ascending, int64. All of them if it runs alone."""
    index = by_rows(mesh).addressable_devices_indices_map((num_rows,))
    return np.unique(np.concatenate([np.arange(num_rows)[rows] for rows in index.values()]))


def put_rows(mesh: Mesh, rows: Shaped[np.ndarray, "local ..."], *, num_rows: int) -> jax.Array:
    """The global batch [num_rows, ...] from every process's `local_rows` of it."""
    return jax.make_array_from_process_local_data(by_rows(mesh), rows, (num_rows, *rows.shape[1:]))


def put(array: Shaped[np.ndarray, "..."] | jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has, laid out over all devices; global arrays are laid out anew.

    On several processes `jax.device_put` would first gather the array of each of them, to compare them, and call NaNs
    different.
    """
    if jax.process_count() == 1 or (isinstance(array, jax.Array) and not array.is_fully_addressable):
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, np.asarray(array).__getitem__)


def put_everywhere(mesh: Mesh, array: Shaped[np.ndarray, "..."]) -> jax.Array:
    """The array on every device; every process has the whole of it."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), array.__getitem__)


def of_first_process(numbers: Sequence[int]) -> list[int]:
    """The numbers (or truth values) of process 0, on every process; all processes must call it together."""
    if jax.process_count() == 1:
        return list(numbers)
    return multihost_utils.broadcast_one_to_all(np.asarray(numbers)).tolist()


def of_all_processes(number: int) -> list[int]:
    """The numbers of all processes, by their index, on every process; all processes must call it together."""
    if jax.process_count() == 1:
        return [number]
    return multihost_utils.process_allgather(np.asarray(number)).tolist()


def with_sharding(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Shapes and dtypes of the leaves, with the sharding they shall have."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
