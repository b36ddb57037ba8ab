"""The processes of a run meet at the first one's address before JAX connects them, so that each learns what is wrong.

A client of JAX that cannot connect ends its process with a C++ stack trace, which names neither the address nor the
process that is missing. So each process first connects to the port on which JAX's own service will listen, says who
it is, and waits until all have come; then the first process leaves the port to JAX.
"""

import contextlib
import dataclasses
import errno
import ipaddress
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from san_jax import files
from san_jax.errors import UserError

GREETING = 15.0  # seconds in which the first process answers, which may be busy
HELLO = 2.0  # seconds in which one that has connected says who it is
ATTEMPT = 5.0  # seconds for one attempt to connect
PAUSE = 0.25  # seconds between two attempts
GRACE = 0.3  # seconds for a process to meet the error that has ended another one; JAX ends it after about one
NOTE = 10.0  # seconds after which a waiting process tells what it waits for
LONGEST = 1_000_000  # characters of a message
CAUSES = {
    errno.ECONNREFUSED: "nobody listens on that port",
    errno.ETIMEDOUT: "that host does not answer",
    errno.EHOSTUNREACH: "that host does not answer",
    errno.ENETUNREACH: "no network leads there",
    errno.ECONNRESET: "another program or run listens there",
    errno.EPIPE: "another program or run listens there",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this process stands among those of its run.

    Attributes:
      host: name or address of the host where the first process runs.
      port: a port there, 1 to 65535.
      count: number of processes.
      index: number of this one, from 0.
      given_by: what named the address, for messages.
    """

    host: str
    port: int
    count: int
    index: int
    given_by: str

    @property
    def address(self) -> str:
        """HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def meet(place: Place, *, seconds: float, ended: Callable[[str], None] | None = None) -> str:
    """Waits until all processes of the run have come.

    Args:
      place: that of this process.
      seconds: how long the first process waits for the others, and each of them for the first one.
      ended: called in a thread, with the name of the process, if one ends later without having called `leave`. JAX
        would notice it, too, but some deaths only after minutes, others by ending all processes with its C++ log.

    Returns:
      The address by which the other processes reach this host.

    Raises:
      UserError: the first process is not found, others do not come, or they do not fit together.
    """
    deadline = time.monotonic() + seconds
    if place.index == 0:
        gather(place, seconds, ended)
    link = _found(place, deadline, seconds)
    link.connection.settimeout(seconds + GREETING)  # the first process may have begun to wait later than this one
    answer = link.hear()
    if ended is not None and place.index and answer.get("problem", "") is None:
        Watch({0: (link, {"host": place.host})}, ended).start()
    else:
        link.close()
    if "problem" not in answer:
        raise UserError(f"process 0 at {place.address} ended before all processes had come; start all of them again")
    if answer["problem"]:
        raise UserError(answer["problem"])
    return answer["address"]


class Link:
    """A connection over which dictionaries are sent, a line each."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self._lines: TextIO = connection.makefile("r", encoding="utf-8", errors="replace", newline="\n")

    def say(self, **message: object) -> None:
        """Sends a message."""
        self.connection.sendall((json.dumps({"san_jax": 1} | message) + "\n").encode())

    def hear(self) -> dict:
        """The next message; an empty one if the other side has gone, takes too long, or speaks otherwise."""
        try:
            message = files.parsed_json(self._lines.readline(LONGEST))
        except (OSError, ValueError):
            return {}
        return message if isinstance(message, dict) and message.get("san_jax") == 1 else {}

    def close(self) -> None:
        """Closes the connection."""
        self._lines.close()
        self.connection.close()

    @property
    def is_gone(self) -> bool:
        """Whether the other side has closed the connection; it sends nothing while it waits."""
        self.connection.setblocking(False)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(HELLO)


class Watch:
    """Notices when a process ends: the first one watches all others, and tells them; they watch the first one.

    Args:
      links: to the processes by their index, with what is known of them.
      ended: as in `meet`.
    """

    def __init__(self, links: Mapping[int, tuple[Link, Mapping]], ended: Callable[[str], None]):
        self._links, self._ended = dict(links), ended

    def start(self) -> None:
        """Watches in a thread, until all others have left."""
        global _watch
        _watch = self
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def leave(self, *, failed: bool) -> None:
        """As the function of this name."""
        self._say(**({"failed": True} if failed else {"left": True}))

    def _run(self) -> None:
        with selectors.DefaultSelector() as readable:
            for index, (link, _) in self._links.items():
                link.connection.settimeout(HELLO)
                readable.register(link.connection, selectors.EVENT_READ, index)
            while readable.get_map():
                for key, _ in readable.select():
                    link, who = self._links[key.data]
                    message = link.hear()
                    readable.unregister(link.connection)
                    if message.get("failed"):
                        time.sleep(GRACE)
                    if "left" not in message:
                        self._end(message.get("ended") or f"process {key.data} on {who['host']}")
                        return

    def _end(self, name: str) -> None:
        self._say(ended=name)
        self._ended(name)

    def _say(self, **message: object) -> None:
        for link, _ in self._links.values():
            with contextlib.suppress(OSError):
                link.say(**message)


_watch: Watch | None = None  # of this process


def leave(*, failed: bool = False) -> None:
    """Tells the other processes of the run, if there are any, that this one is about to end.

    Args:
      failed: by an error, which may be theirs, too: each has GRACE seconds to say so itself.
    """
    if _watch is not None:
        _watch.leave(failed=failed)


def gather(place: Place, seconds: float, ended: Callable[[str], None] | None = None) -> None:
    """The first process's part: listens in a thread until all processes have come, or until time is up.

    Raises:
      UserError: the port cannot be listened on.
    """
    listener = _listen(place)
    gathering = Gathering(place, seconds, ended)
    threading.Thread(target=gathering.run, args=(listener,), name="meeting", daemon=True).start()


class Gathering:
    """The processes that have come so far.

    Args:
      place: that of the first process.
      seconds: how long it waits.
      ended: as in `meet`.
    """

    def __init__(self, place: Place, seconds: float, ended: Callable[[str], None] | None = None):
        self._place, self._seconds, self._ended = place, seconds, ended
        self._came: dict[int, tuple[Link, dict]] = {}
        self._refused: list[str] = []

    def run(self, listener: socket.socket) -> None:
        """Waits for all, closes the port, and answers all: with a problem, or with their addresses."""
        begun, noted, problem = time.monotonic(), False, None
        listener.settimeout(PAUSE)
        while problem is None and len(self._came) < self._place.count:
            waited = time.monotonic() - begun
            if waited > self._seconds:
                problem = f"{self._missing()} did not come to {self._place.address} within {self._seconds:g} s; "
                problem += f"start all {self._place.count}{self._why()}"
            elif waited > NOTE and not noted:
                noted = True
                _note(f"process 0 waits for {self._missing()} at {self._place.address}{self._why()}")
            with contextlib.suppress(OSError):  # nobody came, or went again
                problem = problem or self._welcome(Link(listener.accept()[0]))
            self._drop_gone()
        if problem:
            self._turn_away(listener, problem)
        listener.close()
        addresses = self._addresses()
        for index in sorted(self._came, reverse=True):  # this process last, since a problem ends it
            with contextlib.suppress(OSError):
                self._came[index][0].say(problem=problem, address=addresses[index])
        if problem is None and self._ended is not None:
            Watch({index: came for index, came in self._came.items() if index}, self._ended).start()

    def _welcome(self, link: Link) -> str | None:
        """Takes one that has connected among the processes, or sends it away; the problem if nobody can go on."""
        link.connection.settimeout(HELLO)
        who = link.hear()
        if not who.keys() >= {"index", "count", "command", "host", "pid"}:
            link.close()
            return None
        link.say()
        index = who["index"]
        self._drop_gone()
        if misfit := self._misfit(who):
            self._refused.append(misfit)
            link.say(problem=misfit)
            link.close()
            return None
        if index in self._came:
            problem = (
                f"two processes have number {index}, {_name(self._came[index][1])} and {_name(who)}; number them from "
                f"0 to {self._place.count - 1}, as by JAX_PROCESS_ID"
            )
            link.say(problem=problem)
            return problem
        self._came[index] = link, who
        return None

    def _drop_gone(self) -> None:
        """Forgets those that have ended while they waited; they may be started again."""
        self._came = {index: (link, who) for index, (link, who) in self._came.items() if not link.is_gone}

    def _turn_away(self, listener: socket.socket, problem: str) -> None:
        """Tells those that are about to come of a problem, maybe this process itself."""
        until = time.monotonic() + HELLO
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                link = Link(listener.accept()[0])
                link.connection.settimeout(HELLO)
                if link.hear():
                    link.say()
                    link.say(problem=problem)

    def _addresses(self) -> dict[int, str]:
        """By which address the others reach each process's host, which may have another one by its own name."""
        ends = {
            index: [_plain(end) for end in (link.connection.getsockname(), link.connection.getpeername())]
            for index, (link, _) in self._came.items()
        }
        outside = [first for first, _ in ends.values() if not ipaddress.ip_address(first).is_loopback]
        of_first = (outside or [first for first, _ in ends.values()] or [""])[-1]
        local = {index for index, (first, _) in ends.items() if index == 0 or ipaddress.ip_address(first).is_loopback}
        return {index: of_first if index in local else other for index, (_, other) in ends.items()}

    def _misfit(self, who: Mapping) -> str | None:
        """Why a process is none of this run."""
        if who["count"] != self._place.count:
            return (
                f"process {who['index']} on {who['host']} is one of {who['count']}, process 0 at {self._place.address} "
                f"one of {self._place.count}; give all the same number, or another run another port"
            )
        ours, theirs = arguments(sys.argv), who["command"]
        if ours != theirs:
            pairs = (*zip(ours, theirs, strict=False), (f"{len(ours)} arguments", f"{len(theirs)}"))
            one, other = next(pair for pair in pairs if pair[0] != pair[1])
            return (
                f"process {who['index']} on {who['host']} was started with {other}, process 0 at {self._place.address} "
                f"with {one}; start the same command on all hosts, or another run on another port"
            )
        return None

    def _missing(self) -> str:
        missing = [str(index) for index in range(self._place.count) if index not in self._came]
        named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        return f"process{'es' if len(missing) > 1 else ''} {named} of {self._place.count}"

    def _why(self) -> str:
        return f" (refused: {self._refused[-1]})" if self._refused else ""


def _listen(place: Place) -> socket.socket:
    """Listens on the port, at all addresses of this host, as JAX's service will."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", place.port), family=family, dualstack_ipv6=dual, backlog=place.count + 16)
    except PermissionError as error:
        raise UserError(f"{place.given_by}: only root may listen on port {place.port}; give one above 1023") from error
    except OSError as error:
        raise UserError(
            f"{place.given_by}: process 0 cannot listen on port {place.port} of {socket.gethostname()}, where another "
            "program or run does; give all processes of this run another port"
        ) from error


def _found(place: Place, deadline: float, seconds: float) -> Link:
    """A connection to the first process, which has answered."""
    begun, noted = time.monotonic(), False
    while True:
        try:
            return _attempt(place, deadline)
        except OSError as error:
            cause = _cause(error)
        now = time.monotonic()
        if place.index == 0 and (now + PAUSE > deadline or "resolved" not in cause):  # it listens, at another address
            raise UserError(
                f"{place.given_by}: process 0 runs on {socket.gethostname()}, but does not find itself at "
                f"{place.address} ({cause}); give an address of that host"
            )
        if now + PAUSE > deadline:
            raise UserError(
                f"{place.given_by}: process {place.index} on {socket.gethostname()} has not found process 0 at "
                f"{place.address} within {seconds:g} s ({cause}); give the address of its host, and start it too"
            )
        if now > begun + NOTE and not noted:
            noted = True
            _note(f"process {place.index} waits for process 0 at {place.address} ({cause})")
        time.sleep(PAUSE)


def _attempt(place: Place, deadline: float) -> Link:
    wait = max(0.1, min(ATTEMPT, deadline - time.monotonic()))
    link = Link(socket.create_connection((place.host, place.port), timeout=wait))
    link.connection.settimeout(max(0.1, min(GREETING, deadline - time.monotonic())))
    with contextlib.suppress(TimeoutError):
        who = dict(command=arguments(sys.argv), host=socket.gethostname(), pid=os.getpid())
        link.say(index=place.index, count=place.count, **who)
        if link.hear():
            return link
    link.close()
    raise OSError(errno.ECONNRESET, "")


def arguments(words: Sequence[str]) -> list[str]:
    """What the processes of a run must agree on: all arguments but the folders of data, which hosts may have each."""
    return [word for word in words[1:] if "_dir=" not in word]


def _plain(end: tuple) -> str:
    """The IP address of one end of a connection, without its interface."""
    return end[0].partition("%")[0].removeprefix("::ffff:")


def _cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"this name cannot be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return CAUSES[errno.ETIMEDOUT]
    return CAUSES.get(error.errno, error.strerror or str(error))


def _name(who: Mapping) -> str:
    return f"pid {who['pid']} on {who['host']}"


def _note(line: str) -> None:
    print(f"{line} ...", file=sys.stderr, flush=True)
