"""Variables by which processes of this machine join each other, for benchmarks and tests."""

import socket

# Processes and threads that share busy cores may reach a sum more than gloo's 30 s apart.
PATIENT = "--xla_cpu_collective_timeout_seconds=300 --xla_cpu_collective_call_terminate_timeout_seconds=300"


def variables(count: int) -> list[dict[str, str]]:
    """Those of each of several processes, which meet at a port that is free now."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [shared | {"JAX_PROCESS_ID": str(index)} for index in range(count)]
