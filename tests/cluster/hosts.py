"""Network namespaces of Linux that stand for hosts: each with an address of its own on one bridge. Needs root."""

import contextlib
import os
import subprocess

NETWORK = "10.77.0"


def address(number):
    """The address of a host."""
    return f"{NETWORK}.{number + 1}"


@contextlib.contextmanager
def running(count):
    """Makes hosts; gives for each the words before a command that runs there. They are removed whatever happens."""
    bridge = f"san{os.getpid()}"
    names = [f"{bridge}-{number}" for number in range(count)]
    with contextlib.ExitStack() as made:
        ip("link", "add", bridge, "type", "bridge")
        made.callback(ip, "link", "del", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            made.callback(ip, "netns", "del", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            made.callback(ip, "link", "del", name)  # a namespace is kept, with its interface, by what still runs there
            ip("link", "set", name, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]


def ip(*words):
    subprocess.run(["ip", *words], check=True)
