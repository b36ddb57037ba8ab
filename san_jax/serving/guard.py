"""What stands before every request: whose it is, how large and how slow it may be; and headers of every answer."""

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = 120.0  # for a whole request, its body and its answer included
HERE = ("127.0.0.1", "localhost", "::1")  # names of this machine for itself, which no name server can give away
READING = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Cache-Control": "no-store",  # pictures of people stay out of the browser's files
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(Exception):
    """A request that cannot be answered.

    Attributes:
      status: of HTTP.
      line: why, and the way out.
    """

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status, self.line = status, line


def is_here(host: str) -> bool:
    """Whether an address that is listened at can be reached from this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Guard:
    """ASGI middleware around the whole application.

    Args:
      app: the application.
      host: the address that is listened at.
      token: that a visitor must know; None for none.
      seconds: for a whole request.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None, seconds: float = SECONDS):
        self._app, self._host, self._token, self._seconds = app, host, token, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":  # lifespan; there are no web sockets
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if gives_cookie:
                    headers.append("Set-Cookie", self._cookie(scope))
            await send(message)

        gives_cookie = self._shows_token(scope)
        try:
            self._check(scope, knows_token=gives_cookie)
            async with asyncio.timeout(self._seconds):
                await self._app(scope, receive, send_guarded)
        except Refused as refused:
            await answer(scope, refused)(scope, receive, send_guarded)
        except TimeoutError:
            if not has_begun:
                slow = Refused(408, f"this took more than {self._seconds:g} seconds; try again")
                await answer(scope, slow)(scope, receive, send_guarded)
        except ClientDisconnect:  # the visitor has gone, and nobody waits for an answer
            pass

    def _check(self, scope: Scope, *, knows_token: bool) -> None:
        headers = Headers(scope=scope)
        if not self._is_ours(headers.get("host", "")):
            raise Refused(421, "this address is not one of this server's; open the one that it has printed")
        if not (knows_token or self._has_cookie(scope, headers)):
            raise Refused(401, "open the whole address that the server has printed, with its token")
        self._check_origin(scope, headers)

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuses what another site's page asks for; programs that are no browsers send neither header."""
        foreign = Refused(403, "another site's page asked for this; open this server's own page")
        site = headers.get("sec-fetch-site", "same-origin")
        if scope["path"] != "/" and site not in ("same-origin", "none"):
            raise foreign
        origin = headers.get("origin")
        is_own = origin is None or urlsplit(origin).netloc == headers["host"]
        if scope["method"] not in READING and not (is_own and site == "same-origin"):
            raise foreign

    def _is_ours(self, host: str) -> bool:
        """Whether the header Host names this server: a name that an attacker's name server cannot point here.

        The port may be another one, as where a tunnel forwards it.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if is_here(self._host):
            return name in (*HERE, self._host)
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in ("localhost", self._host.lower(), socket.gethostname().lower(), socket.getfqdn().lower())

    def _shows_token(self, scope: Scope) -> bool:
        """Whether a visit of the page has the token in its address."""
        if self._token is None or scope["path"] != "/":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return self._is_token(given)

    def _has_cookie(self, scope: Scope, headers: Headers) -> bool:
        if self._token is None:
            return True
        # Python's own parser stops at the first cookie that it does not like, which may be another program's.
        return self._is_token(cookie_parser(headers.get("cookie", "")).get(_cookie_name(scope), ""))

    def _is_token(self, given: str) -> bool:
        """Compares in a time that does not tell how much of it is right."""
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _cookie(self, scope: Scope) -> str:
        return f"{_cookie_name(scope)}={self._token}; HttpOnly; SameSite=Strict; Path=/"


def _cookie_name(scope: Scope) -> str:
    """One for each port, which cookies do not tell apart."""
    return f"san_jax_{(scope.get('server') or ('', 0))[1]}"


def answer(scope: Scope, refused: Refused) -> Response:
    """The answer to a request that is refused: JSON, or plain text where a person reads it."""
    headers = {"Connection": "close"} if refused.status in (408, 413) else None  # what is left of it is not read
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": refused.line}, refused.status, headers)
    return PlainTextResponse(f"{refused.line}\n", refused.status, headers)


async def answer_refused(request: Request, refused: Refused) -> Response:
    """As `answer`, for Starlette's table of exceptions."""
    return answer(request.scope, refused)


async def body_of(request: Request, *, most: int) -> bytes:
    """The body of a request.

    Raises:
      Refused: it has more bytes than `most`; it is not read any further.
    """
    too_large = Refused(413, f"this has more than {most / 1e6:g} MB; give a smaller one")
    length: Any = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)
