"""The server: its socket, its connections, which may stall, and its end."""

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from san_jax.errors import UserError
from san_jax.serving import guard

MOST_CONNECTIONS = 128
HEAD_SECONDS = 20.0  # for the head of a request, from the connection or the answer before it
STALLED_SECONDS = 60.0  # in which a visitor must take some of an answer
CHECK_SECONDS = 1.0


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections once the server runs, so that a taken port is noticed before the work.

    Args:
      host: name or address.
      port: 0 for any that is free.

    Raises:
      UserError: the address is not one of this machine, or the port is taken.
    """
    try:
        kind, _, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(kind, socket.SOCK_STREAM, protocol)  # asyncio sends at once what it knows to be TCP
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(MOST_CONNECTIONS)  # without it, another program could still take the port
    except socket.gaierror as error:
        raise UserError(f"--host is {host}, which is no address ({error.strerror}); give another one") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is taken; give another --port, or 0 for any") from error
        raise UserError(f"cannot serve at {host}, port {port} ({error.strerror}); give other ones") from error
    return opened


def address_of(opened: socket.socket, host: str, token: str | None) -> str:
    """What visitors open."""
    host = _own_address() if host in ("0.0.0.0", "::") else host
    name = f"[{host}]" if ":" in host else host
    shown = f"?token={token}" if token else ""
    return f"http://{name}:{opened.getsockname()[1]}/{shown}"


def _own_address() -> str:
    """The address from which this machine would reach others, or else its name; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, contextlib.suppress(OSError):
        asked.connect(("192.0.2.1", 9))
        return asked.getsockname()[0]
    return socket.gethostname()


def new_token(host: str) -> str | None:
    """A token, or None where only this machine reaches the address."""
    return None if guard.is_here(host) else secrets.token_urlsafe(32)


class Connection(H11Protocol):
    """A connection that is cut when its other end stalls."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begins to watch it."""
        super().connection_made(transport)
        self._since, self._unsent = self.loop.time(), 0
        self.loop.call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        if self not in self.connections:
            return
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        answers = self.cycle is not None and not self.cycle.response_complete  # for which the guard has a limit
        if answers or unsent < self._unsent:
            self._since = now
        self._unsent = unsent
        if now - self._since > (STALLED_SECONDS if unsent else HEAD_SECONDS):
            self.transport.abort()
        else:
            self.loop.call_later(CHECK_SECONDS, self._check)

    def data_received(self, data: bytes) -> None:
        """Takes some of a request."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._since = self.loop.time()


class Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def server_of(application: Callable[..., Any]) -> Server:
    """A server for an application; `serve(sockets=[...])` runs it."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # not every request that is no HTTP
    config = uvicorn.Config(
        application,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    return Server(config)


def run(application: Callable[..., Any], opened: socket.socket) -> None:
    """Serves until the process ends."""
    asyncio.run(server_of(application).serve(sockets=[opened]))
