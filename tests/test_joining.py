"""How a process finds out that it is one of several, and what is said if it cannot join the others."""

import os
import re
import signal
import socket

import pytest
from commands import Running, start_alone, two_processes

from san_jax.errors import UserError
from san_jax.process import joining

BY_HAND = {"JAX_COORDINATOR_ADDRESS": "host0:1234", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMIX_NAMESPACE": "prterun-login-7-5000@1",
}


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"JAX_COORDINATOR_ADDRESS": "host:1234"}, True),
        ({"JAX_PROCESS_ID": "0"}, True),
        ({"JAX_COORDINATOR_ADDRESS": ""}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"SAN_JAX_DISTRIBUTED": "1"}, True),
        ({"SAN_JAX_DISTRIBUTED": "0", "SLURM_STEP_NUM_TASKS": "4", "JAX_COORDINATOR_ADDRESS": "host:1"}, False),
    ],
)
def test_cluster_is_detected_from_the_environment(environment, several):
    assert joining.starts_on_cluster(environment) == several


def test_tpu_pod_is_detected_by_jax_itself(monkeypatch):
    """JAX asks the metadata server of Google's machines; no environment variable replaces that."""

    class Pod:
        name, hosts = "gcetpu", 4

        @classmethod
        def is_env_present(cls):
            return True

        @classmethod
        def get_process_count(cls):
            return cls.hosts

    monkeypatch.setattr(joining.ClusterEnv, "_cluster_types", [Pod])
    assert joining.starts_on_cluster({})
    Pod.hosts = 1
    assert not joining.starts_on_cluster({})

    def unreachable():
        raise RuntimeError("Getting metadata failed for 6 tries")

    monkeypatch.setattr(Pod, "is_env_present", unreachable)
    assert not joining.starts_on_cluster({})



def place_of(environment, monkeypatch):
    """What `joining` and JAX read from these variables and no others."""
    for name in list(os.environ):
        if name.startswith(("JAX_COORD", "JAX_NUM_P", "JAX_PROCESS_", "OMPI_", "PMIX_", "SLURM_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    place, local_devices = joining.place_of(os.environ, 1)
    return place.address, place.count, place.index, local_devices


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        (BY_HAND, ("host0:1234", 3, 2, None)),
        (BY_HAND | {"JAX_COORDINATOR_ADDRESS": "[fd00::1]:80"}, ("[fd00::1]:80", 3, 2, None)),
        (OPEN_MPI_5, ("login-7:66441", 4, 3, [1])),
        (OPEN_MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, ("localhost:66441", 4, 3, [1])),
        (OPEN_MPI_5 | {"JAX_COORDINATOR_PORT": "99"}, ("login-7:99", 4, 3, [1])),
        (OPEN_MPI_5 | {"JAX_COORDINATOR_ADDRESS": "node1:5"}, ("node1:5", 4, 3, [1])),
        (OPEN_MPI_5 | {"JAX_LOCAL_DEVICE_IDS": "0,1"}, ("login-7:66441", 4, 3, None)),
        (
            OPEN_MPI_5 | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"},
            ("10.96.0.1:62624", 4, 3, [1]),
        ),
        (
            {
                **{"SLURM_JOB_ID": "8193", "SLURM_STEP_NODELIST": "node[07-09],login", "SLURM_NTASKS": "6"},
                **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "3"},
            },
            ("node07:61441", 6, 5, [1]),
        ),
    ],
)
def test_place_is_read_from_the_variables_of_each_launcher(environment, place, monkeypatch):
    place = (place[0].replace("66441", str(61440 + 5001 % 4096)), *place[1:])
    assert place_of(environment, monkeypatch) == place


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "host0"}, "JAX_COORDINATOR_ADDRESS=host0 lacks the host or the port; give"),
        ({"JAX_COORDINATOR_ADDRESS": ":1234"}, "JAX_COORDINATOR_ADDRESS=:1234 lacks the host or the port; give"),
        ({"JAX_COORDINATOR_ADDRESS": "host0:"}, "JAX_COORDINATOR_ADDRESS=host0: has the port ''; give a number"),
        ({"JAX_COORDINATOR_ADDRESS": "host0:http"}, "=host0:http has the port 'http'; give a number from 1"),
        ({"JAX_COORDINATOR_ADDRESS": "host0:65536"}, "=host0:65536 has the port '65536'; give a number from 1"),
        ({"JAX_COORDINATOR_ADDRESS": "fd00::1:80"}, "=fd00::1:80 is an IPv6 address without brackets; give ["),
        ({"JAX_PROCESS_ID": "3"}, "JAX_PROCESS_ID is 3 and JAX_NUM_PROCESSES 3; processes are numbered from"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID is -1 and JAX_NUM_PROCESSES 3; processes are numbered from"),
        ({"JAX_PROCESS_ID": "two"}, "the variable JAX_PROCESS_ID is 'two', which is not a number; unset it"),
        ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID is not set; set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and"),
        ({"JAX_COORDINATOR_ADDRESS": "", "JAX_NUM_PROCESSES": ""}, "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES are"),
        ({"SAN_JAX_JOIN_SECONDS": "soon"}, "the variable SAN_JAX_JOIN_SECONDS is 'soon', which is not a number"),
        ({"SAN_JAX_DISTRIBUTED": "yes"}, "the variable SAN_JAX_DISTRIBUTED is 'yes', which is not a number; unset it"),
        ({"SLURM_STEP_NUM_TASKS": "4(x2)"}, "the variable SLURM_STEP_NUM_TASKS is '4(x2)', which is not a number"),
    ],
)
def test_wrong_variables_are_named_in_one_line(variables, line, monkeypatch):
    for name, value in (BY_HAND | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(line)) as error:
        joining.join_cluster()
    assert "\n" not in str(error.value)


def test_cluster_that_tells_nothing_is_reported_with_the_way_out(monkeypatch):
    monkeypatch.setenv("SAN_JAX_DISTRIBUTED", "1")
    line = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID are not set; set .* or SAN_JAX_DISTRIBUTED=0"
    with pytest.raises(UserError, match=line):
        joining.join_cluster()


def test_launcher_whose_variables_cannot_be_read_is_reported_in_one_line(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1.0;usock")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"cannot read where the processes of this run are \(Could not parse .*; set"):
        joining.join_cluster()


def ends(environment):
    """Exit statuses and outputs of `train.py` in processes with these variables."""
    processes = [
        Running("train.py", "--workdir=nowhere", environment=own | {"SAN_JAX_JOIN_SECONDS": "2"}, together=True)
        for own in environment
    ]
    return [process.finish() for process in processes]


@pytest.mark.slow
def test_process_that_never_comes_ends_the_others_with_one_line():
    found = ends([own | {"JAX_NUM_PROCESSES": "3"} for own in two_processes()])
    [(_, line), _] = found
    assert found == [(1, line)] * 2
    assert re.fullmatch(r"error: process 2 of 3 did not come to localhost:\d+ within 2 s; start all 3\n", line)


@pytest.mark.slow
def test_process_without_a_first_one_ends_with_one_line():
    [(status, line)] = ends(two_processes()[1:])
    assert status == 1
    assert re.fullmatch(
        r"error: JAX_COORDINATOR_ADDRESS=localhost:\d+: process 1 on \S+ has not found process 0 at localhost:\d+ "
        r"within 2 s \(nobody listens on that port\); give the address of its host, and start it too\n",
        line,
    )


@pytest.mark.slow
def test_signal_ends_a_process_that_waits_for_the_others():
    code = "from san_jax.process import joining, stopping; stopping.end_on_signals(); joining.join_cluster()"
    first, _ = two_processes()
    process = start_alone("-c", f"import os; os.environ.update({first}); {code}")
    host, _, port = first["JAX_COORDINATOR_ADDRESS"].partition(":")
    while socket.socket().connect_ex((host, int(port))):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (143, "stopped by SIGTERM; start the same command again to go on\n")


@pytest.mark.slow
def test_processes_join_past_a_proxy():
    """gRPC would ask the proxy for process 0."""
    code = "from san_jax.process import joining; joining.join_cluster(); import jax; print(jax.process_count())"
    proxies = {"http_proxy": "http://127.0.0.1:9"}
    processes = [
        start_alone("-c", f"import os; os.environ.update({own | proxies}); {code}") for own in two_processes()
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output.splitlines()[-1] == "2"
        assert "proxy" not in output
