"""A Slurm of one node with four slots, whose daemons run as long as the context."""

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=all Nodes=ALL Default=YES OverSubscribe=FORCE:4
"""


@contextlib.contextmanager
def running():
    """Starts munged, slurmctld and slurmd with a folder for their files; gives the environment for srun and scancel."""
    with tempfile.TemporaryDirectory(prefix="slurm_", dir="/tmp") as folder:  # munged wants it open to all
        yield from _running_in(Path(folder))


def _running_in(folder):
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONF.format(host=host, ports=free_ports(2), folder=folder))
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    places = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", f"--socket={folder}/munge.socket", *places],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    ]
    with contextlib.ExitStack() as daemons:
        for command in commands:
            log = daemons.enter_context((folder / f"{command[0]}.out").open("w"))
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            daemons.callback(end, daemon)
            time.sleep(1)
        wait_until_idle(environment)
        yield environment


def free_ports(count):
    """Numbers of ports that nobody uses."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_idle(environment, seconds=60):
    """Waits until the node takes jobs."""
    for _ in range(seconds):
        said = subprocess.run(["sinfo", "--noheader", "--format=%t"], env=environment, capture_output=True, text=True)
        if said.stdout.strip() == "idle":
            return
        time.sleep(1)
    raise RuntimeError(f"the node does not become idle: {said.stdout}{said.stderr}")


def end(daemon):
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
