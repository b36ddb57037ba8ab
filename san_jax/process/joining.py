"""Joins this process to the others of its run: which launcher started it, where the first process is, and JAX."""

import functools
import os
import re
import warnings
from collections.abc import Mapping

import jax
from jax._src.clusters import ClusterEnv
from jax._src.lib import _jax

from san_jax.errors import UserError
from san_jax.process import meeting, stopping

SWITCH = "SAN_JAX_DISTRIBUTED"
SECONDS = "SAN_JAX_JOIN_SECONDS"
PATIENCE = 300  # seconds, as JAX's own
CONNECTING = 60  # seconds for JAX, when all processes are there
ADDRESS = "JAX_COORDINATOR_ADDRESS"
BY_HAND = (ADDRESS, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
WAY_OUT = f"set {', '.join(BY_HAND[:2])} and {BY_HAND[2]} by hand, or {SWITCH}=0 if this process is to work alone"


def starts_on_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several.

    SAN_JAX_DISTRIBUTED decides: 1 is yes, 0 is no. Without it, yes if JAX's own variables are set, or those of a Slurm
    or Open MPI job step or of several TPU slices, or on a TPU pod. Other clusters that JAX detects, such as Kubernetes,
    need the 1, since JAX takes even a single pod for part of a cluster.

    Raises:
      UserError: a variable is not a number.
    """
    if environment.get(SWITCH):
        return _number(environment, SWITCH) > 0
    tasks = max(_number(environment, name) or 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    slices = _number(environment, "MEGASCALE_NUM_SLICES") or 1
    pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "") or slices > 1
    return any(environment.get(name) for name in BY_HAND) or tasks > 1 or pod or tpu_hosts() > 1


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """The value of a numeric variable; None if it is not set."""
    try:
        return int(environment[name]) if environment.get(name) else None
    except ValueError as error:
        raise UserError(f"the variable {name} is {environment[name]!r}, which is not a number; unset it") from error


def tpu_hosts() -> int:
    """Hosts of the TPU pod that JAX detects, from variables or else the metadata server; 1 if there is none."""
    try:
        kinds = [kind for kind in ClusterEnv._cluster_types if kind.name.endswith("tpu")]
        found = next((kind for kind in kinds if kind.is_env_present()), None)
        return found.get_process_count() if found else 1
    except Exception:  # in a container JAX may take itself to be on a TPU host whose metadata server cannot be asked
        return 1


def join_cluster() -> None:
    """Connects this process to the others of its run, if there are any. To be called before anything else uses JAX.

    Besides the clusters that JAX detects, three variables configure a run by hand: JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. SAN_JAX_JOIN_SECONDS is how long processes wait for
    each other, 300 by default.

    Raises:
      UserError: a variable is wrong, or the processes do not find each other.
    """
    if not starts_on_cluster():
        return
    seconds = _number(os.environ, SECONDS) or PATIENCE
    place, local_devices = place_of(os.environ, seconds)
    own_address = meeting.meet(place, seconds=float(seconds), ended=_end)
    _reach_directly(place.host)
    # By itself gloo takes the address that this host's name has here, which may be 127.0.1.1.
    gloo = functools.partial(_jax.make_gloo_tcp_collectives, hostname=own_address)
    _jax.make_gloo_tcp_collectives = gloo
    try:
        with stopping.keeping_sigterm():
            jax.distributed.initialize(
                place.address,
                place.count,
                place.index,
                local_devices,
                cluster_detection_method="deactivate",
                initialization_timeout=CONNECTING,
            )
    except Exception as error:  # JAX's errors are of many kinds
        raise UserError(f"cannot join the other processes of this run ({_first_line(error)}); {WAY_OUT}") from error


def _end(name: str) -> None:
    """Ends this process, since another one has ended."""
    stopping.end(f"error: {name} has ended, by a signal or an error; start the same command on all hosts", 1)


def place_of(environment: Mapping[str, str], seconds: int) -> tuple[meeting.Place, list[int] | None]:
    """Where this process stands among those of its run, and its devices by their numbers, None if JAX decides.

    Args:
      environment: this process's variables, which JAX reads too.
      seconds: how long JAX may wait for a launcher's answers.

    Raises:
      UserError: variables are missing or wrong, or the launcher's cannot be read.
    """
    address, count, index = environment.get(ADDRESS) or None, *(_number(environment, name) for name in BY_HAND[1:])
    given_by = f"{ADDRESS}={address}" if address else "the launcher's variables"
    address, count, index, local_devices = _of_open_mpi_5(environment, address, count, index)
    try:
        with warnings.catch_warnings(action="ignore"):  # of Kubernetes without its package, at length
            address, count, index, local_devices = ClusterEnv.auto_detect_unset_distributed_params(
                address, count, index, local_devices, None, seconds
            )
    except Exception as error:  # each kind of cluster fails in its own way
        raise UserError(f"cannot read where the processes of this run are ({_first_line(error)}); {WAY_OUT}") from error
    missing = [name for name, value in zip(BY_HAND, (address, count, index), strict=True) if value is None]
    if missing:
        raise UserError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set; {WAY_OUT}")
    if not 0 <= index < count:
        raise UserError(
            f"{BY_HAND[2]} is {index} and {BY_HAND[1]} {count}; processes are numbered from 0 to the number less one"
        )
    host, port = _split(address, given_by)
    devices = None if environment.get("JAX_LOCAL_DEVICE_IDS") else local_devices
    return meeting.Place(host, port, count, index, given_by), devices


def _of_open_mpi_5(environment, address, count, index):
    """Fills in what Open MPI's variables say from version 5 on, which JAX cannot read, or only by mpi4py.

    The first process is taken to run on the host where mpirun does, which is in the job's name, prterun-HOST-PID@1.
    """
    if "OMPI_COMM_WORLD_RANK" not in environment or "OMPI_MCA_orte_hnp_uri" in environment:
        return address, count, index, None
    size, rank, local, here = (
        _number(environment, f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE")
    )
    job = re.fullmatch(r"[a-z]+-(.+)-(\d+)@(\d+)", environment.get("PMIX_NAMESPACE", ""))
    if address is None and job:
        host = "localhost" if here == size else job[1]
        # As JAX does for other launchers: in the range of ephemeral ports, another one for each job.
        port = environment.get("JAX_COORDINATOR_PORT") or 61440 + (int(job[2]) + int(job[3])) % 4096
        address = f"{host}:{port}"
    return address, size if count is None else count, rank if index is None else index, [local]


def _split(address: str, given_by: str) -> tuple[str, int]:
    """Host and port of an address."""
    host, _, port = address.rpartition(":")
    if ":" in host and not host.startswith("["):
        raise UserError(f"{given_by} is an IPv6 address without brackets; give [ADDRESS]:PORT, such as [fd00::1]:1234")
    if not host:
        example = f"{address.strip(':')}:1234" if address.strip(":").isalpha() else "host0:1234"
        raise UserError(f"{given_by} lacks the host or the port; give HOST:PORT, such as {example}")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"{given_by} has the port {port!r}; give a number from 1 to 65535, such as {host}:1234")
    return host.strip("[]"), int(port)


def _reach_directly(host: str) -> None:
    """Keeps gRPC from asking a proxy for the first process, which has just been reached without."""
    before = [os.environ[name] for name in ("no_grpc_proxy", "no_proxy") if os.environ.get(name)][:1]
    os.environ.update(no_grpc_proxy=",".join([*before, host]))
    jax.config.update("jax_check_proxy_envs", False)  # its warning


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
