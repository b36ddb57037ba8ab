"""One mesh over all devices of all processes, and the shardings on it: batches split by rows, replicated state."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree, Shaped

from san_jax.process import memory

DATA_AXIS = "data"
ONEDNN = "xla_cpu_experimental_onednn_custom_call"


def make_mesh() -> Mesh:
    """All devices along one axis, over which batches are split."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows split over all devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the train state: the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rounded_up(mesh: Mesh, num_rows: int) -> int:
    """`num_rows` rounded up to a multiple of the number of devices, so that the rows can be split over them."""
    return -(-num_rows // mesh.size) * mesh.size


def free_memory(mesh: Mesh) -> int:
    """Bytes that can be allocated on each of this process's devices; CPU devices share the memory of the process."""
    local = mesh.local_devices
    stats = [device.memory_stats() for device in local]
    if all(stats):
        return min(of_device["bytes_limit"] - of_device["bytes_in_use"] for of_device in stats)
    return memory.available() // len(local)


def local_rows(mesh: Mesh, num_rows: int) -> np.ndarray:
    """Rows of a global batch that this process must load, ascending, int64. All of them if it runs alone."""
    index = by_rows(mesh).addressable_devices_indices_map((num_rows,))
    return np.unique(np.concatenate([np.arange(num_rows)[rows] for rows in index.values()]))


def put_rows(mesh: Mesh, rows: Shaped[np.ndarray, "local ..."], *, num_rows: int) -> jax.Array:
    """The global batch [num_rows, ...] from every process's `local_rows` of it."""
    with _meant():
        return jax.make_array_from_process_local_data(by_rows(mesh), rows, (num_rows, *rows.shape[1:]))


def put(array: Shaped[np.ndarray, "..."] | jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    """Places an array that every process holds on the devices of a sharding; global arrays are resharded.

    With several processes, `jax.device_put` would first gather the copies of all of them to compare them, and reject
    arrays with NaN as different.
    """
    if jax.process_count() == 1 or (isinstance(array, jax.Array) and not array.is_fully_addressable):
        return jax.device_put(array, sharding)
    with _meant():
        return jax.make_array_from_callback(array.shape, sharding, np.asarray(array).__getitem__)


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """Rows that the devices of a mesh share: each has an equal part, in order. No process holds those of the others.

    Attributes:
      array: the rows, split over the devices; after the last one, rows of zeros make the parts equal.
      num_rows: number of rows without these.
    """

    array: jax.Array
    num_rows: int

    def __len__(self):
        return self.num_rows

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all rows."""
        return (self.num_rows, *self.array.shape[1:])


def split_rows(mesh: Mesh, rows: Shaped[np.ndarray, "n ..."] | jax.Array | SplitRows) -> SplitRows:
    """Rows that every process holds whole, split over the devices; rows that are split already as they are."""
    if isinstance(rows, SplitRows):
        return rows
    num_rows, sharding = len(rows), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    total = rounded_up(mesh, num_rows)
    if total == num_rows or isinstance(rows, jax.Array):
        room = [(0, total - num_rows)] + [(0, 0)] * (rows.ndim - 1)
        return SplitRows(put(rows if total == num_rows else jnp.pad(rows, room), sharding), num_rows)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        """The rows of one device; only the last parts are copied, to be padded."""
        start, stop, _ = index[0].indices(total)
        room = [(0, max(stop, num_rows) - max(start, num_rows))] + [(0, 0)] * (rows.ndim - 1)
        return np.pad(rows[start:stop], room) if stop > num_rows else rows[start:stop]

    with _meant():
        return SplitRows(jax.make_array_from_callback((total, *rows.shape[1:]), sharding, part), num_rows)


def shares(mesh: Mesh, num_rows: int) -> dict[jax.Device, slice]:
    """Which rows each of this process's devices has in SplitRows of `num_rows`, in order; the last may lack some."""
    total = rounded_up(mesh, num_rows)
    index = by_rows(mesh).addressable_devices_indices_map((total,))
    found = {device: slice(*rows.indices(total)[:2]) for device, (rows,) in index.items()}
    return dict(sorted(found.items(), key=lambda item: item[1].start))


def local_part(array: jax.Array) -> np.ndarray:
    """The rows of an array, split by rows, that this process's devices have, in order."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([jax.device_get(shard.data) for shard in shards])


def put_everywhere(mesh: Mesh, array: Shaped[np.ndarray, "..."]) -> jax.Array:
    """Replicates an array, which every process holds whole, on all devices."""
    with _meant():
        return jax.make_array_from_callback(array.shape, replicated(mesh), array.__getitem__)


def _meant() -> contextlib.AbstractContextManager:
    """Around copies to the devices that are meant, which `jax.transfer_guard` takes for accidental ones."""
    return jax.transfer_guard_host_to_device("allow")


def of_first_process(numbers: Sequence[int]) -> list[int]:
    """The numbers (or booleans) of process 0, on every process; all processes must call it together."""
    if jax.process_count() == 1:
        return list(numbers)
    return multihost_utils.broadcast_one_to_all(np.asarray(numbers)).tolist()


def of_all_processes(number: int) -> list[int]:
    """The numbers of all processes, by their index, on every process; all processes must call it together."""
    if jax.process_count() == 1:
        return [number]
    return multihost_utils.process_allgather(np.asarray(number)).tolist()


def platform_of(mesh: Mesh) -> str:
    """What the devices are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def compiler_options(mesh: Mesh, *, onednn: bool, deterministic: bool = False) -> dict[str, bool]:
    """Options with which programs for these devices are compiled.

    Args:
      mesh: the devices.
      onednn: whether CPUs may use oneDNN's kernels, an experiment of XLA (used from JAX 0.11 on).
      deterministic: whether GPUs use only kernels with a fixed order of summation, chosen without timing them, so that
        two runs give the same bits.
    """
    if platform_of(mesh) == "gpu":
        return {"xla_gpu_deterministic_ops": True} if deterministic else {}
    return {ONEDNN: True} if onednn and platform_of(mesh) == "cpu" and is_known(ONEDNN) else {}


@functools.cache
def is_known(option: str) -> bool:
    """Whether this version of XLA has a compiler option, which is true or false."""
    try:
        jax.jit(lambda x: x + 1, compiler_options={option: True}).lower(np.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of XLA says that a device has no memory left."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def with_sharding(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Shapes and dtypes of the leaves as abstract arrays with this sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
