"""Damaged requests to a running `search.py --serve`: an answer or one line, and nobody else is disturbed."""

import collections
import contextlib
import io
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.case import status_bytes
from benchmarks.faults import mutator
from benchmarks.faults.jobs import ROOT

SLOWEST = 20.0  # seconds in which a whole request must be answered
HELD = 0.3  # seconds for which a client that stops in the middle keeps its connection
MORE_MEMORY = 512  # MB that the server may have more at the end
CHECKED = 10  # after so many damaged requests, a good search must give what it gave before
ANSWERED, REFUSED, CLOSED = "answered", "refused", "closed without an answer"
OUTCOMES = ANSWERED, REFUSED, CLOSED
LONGEST_LINE = 300  # characters of a refusal


class Request(NamedTuple):
    """A good request; `KEY` in it stands for a query that is kept, `PICTURE` for a picture of the gallery."""

    method: str
    path: str
    body: bytes = b""

    def filled(self, values: dict[str, str]) -> "Request":
        """The request with values in place of words."""
        path, body = self.path, self.body
        for word, value in values.items():
            path, body = path.replace(word, value), body.replace(word.encode(), value.encode())
        return self._replace(path=path, body=body)

    def head(self, length: int) -> bytes:
        """The lines before the body."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1:PORT", "Connection: close"]
        lines += [f"Content-Length: {length}", "Content-Type: application/json"] if self.body else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def requests() -> dict[str, Request]:
    """A good request to every endpoint."""
    wanted = b'{"queries": ["KEY"], "right": [PICTURE], "cameras": [], "from": null, "to": null, "top": 3}'
    return {
        "page": Request("GET", "/"),
        "galleries": Request("GET", "/api/galleries"),
        "new query": Request("POST", "/api/queries?name=child.png", picture()),
        "new query with a box": Request("POST", "/api/queries?name=child.png&x=2&y=3&w=20&h=40", picture()),
        "box of a query": Request("POST", "/api/queries/KEY/box", b'{"box": [1, 2, 20, 40]}'),
        "picture of a query": Request("GET", "/api/queries/KEY"),
        "search": Request("POST", "/api/search", wanted),
        "list": Request("POST", "/api/exports/csv", wanted),
        "sheet": Request("POST", "/api/exports/sheet", wanted),
        "picture": Request("GET", "/api/pictures/PICTURE?height=64"),
        "forget a query": Request("DELETE", "/api/queries/KEY"),
    }


def picture() -> bytes:
    """A picture, as PNG."""
    noise, encoded = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(noise).save(encoded, "PNG")
    return encoded.getvalue()


# ---- Ways in which a request is damaged: from head, body and length to bytes, and whether all of it was sent.


def damaged_body(request: Request, rng: random.Random) -> tuple[bytes, bool]:
    """A damaged body of the length that it says."""
    body, _ = mutator.damage(request.body, rng, text=request.body.startswith(b"{"))
    return request.head(len(body)) + body, True


def wrong_length(request: Request, rng: random.Random) -> tuple[bytes, bool]:
    """A length that is another one."""
    length = rng.choice([0, 1, len(request.body) // 2, len(request.body) + 1, 10**6, 10**12])
    return request.head(length) + request.body, length <= len(request.body)


def damaged_head(request: Request, rng: random.Random) -> tuple[bytes, bool]:
    """Damaged first lines."""
    head, _ = mutator.damage(request.head(len(request.body)), rng, text=True)
    return head + request.body, False


def other_path(request: Request, rng: random.Random) -> tuple[bytes, bool]:
    """A path with parts that do not belong there."""
    words = [*mutator.WORDS[:-1], "../" * 8 + "etc/passwd", "%2e%2e%2f", "%00", "0" * 5000, "-1", "*"]
    parts = re.split(r"([/?&=])", request.path)
    place = rng.randrange(0, len(parts), 2)
    parts[place] = rng.choice(words).replace("\x00", "%00").replace(" ", "%20")
    return request._replace(path="".join(parts)).head(len(request.body)) + request.body, False


def cut_off(request: Request, rng: random.Random) -> tuple[bytes, bool]:
    """The beginning of a request."""
    whole = request.head(len(request.body)) + request.body
    return whole[: rng.randrange(1, len(whole))], False


WAYS = (damaged_body, wrong_length, damaged_head, other_path, cut_off)


def measure(out: Path, *, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Sends damaged requests, as many to each endpoint; reports now and then.

    Args:
      out: folder for the gallery, its index and what the server prints.
      seed: of the damage.
      count: number of requests.

    Yields:
      By endpoint, how many had which outcome so far; and every fault.
    """
    good, counts, faults = requests(), collections.defaultdict(collections.Counter), []
    with Server(out) as server:
        before, memory = server.good_search(), server.memory()
        for number in range(count):
            name, rng = list(good)[number % len(good)], random.Random(f"{seed} {number}")
            request = good[name].filled(server.values())
            way = rng.choice([way for way in WAYS if request.body or way not in (damaged_body, wrong_length)])
            sent, is_whole = way(request, rng)
            outcome, said = server.ask(sent, is_whole=is_whole)
            if number % CHECKED == CHECKED - 1 and (why := server.disturbed(before)):
                outcome, said = "others were disturbed", why
            counts[name][outcome] += 1
            if outcome not in OUTCOMES:
                fault = {"kind": name, "number": number, "how": way.__name__, "outcome": outcome, "message": said}
                faults.append(fault)
                print(f"{number}: {name}, {way.__name__}: {outcome}: {said}", flush=True)
            if number % 100 == 99 or number == count - 1:
                if number == count - 1:
                    faults += server.left_over(memory)
                yield {"seed": seed, "endpoints": {key: dict(some) for key, some in counts.items()}, "faults": faults}


class Server:
    """A running server over a small gallery.

    Args:
      out: folder for its gallery, its index and what it prints.
    """

    def __init__(self, out: Path):
        self._out = out

    def __enter__(self) -> "Server":
        """Starts it, and waits until the gallery can be searched."""
        self._gallery = self._out / "endpoints_gallery"
        self._gallery.mkdir(parents=True, exist_ok=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 256, (64, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self._gallery / f"{number}.png")
        self._files = self._content()
        command = ["search.py", "--serve", "--port=0", "--checkpoint=rendered-small", f"--gallery={self._gallery}"]
        command += [f"--index={self._out / 'endpoints_index'}"]
        self._process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.port = self._until(lambda: next(iter(re.findall(r"http://[^/]*:(\d+)/", "".join(self._said))), None))
        self._until(lambda: self._json("GET", "/api/galleries")["galleries"][0]["state"] == "watching")
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._said.append(line)

    @staticmethod
    def _until(what: Any) -> Any:
        for _ in range(600):
            if found := what():
                return found
            time.sleep(0.2)
        raise TimeoutError("the server is not ready after two minutes")

    def _content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._gallery.iterdir()}

    def values(self) -> dict[str, str]:
        """A query that is kept, and a picture of the gallery."""
        return {"KEY": self._key, "PICTURE": str(self._picture)}

    def ask(self, sent: bytes, *, is_whole: bool) -> tuple[str, str]:
        """The outcome of a request, and what was said; a request that is not whole may be closed or held."""
        status, body = self._answer(self._with_port(sent), seconds=SLOWEST if is_whole else HELD)
        if status is None:
            return (CLOSED, "") if not is_whole else ("no answer", f"after {SLOWEST:g} s")
        if status < 400:
            return ANSWERED, ""
        text = body.decode(errors="replace")
        if status >= 500 and status != 503:
            return "error of the server", f"{status} {text[:LONGEST_LINE]}"
        try:
            line = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            line = text.removesuffix("\n")  # what is no request to the API is refused in plain text
        is_line = "\n" not in line and 0 < len(line) <= LONGEST_LINE
        return (REFUSED if is_line else "not one line"), f"{status} {line[:LONGEST_LINE]}"

    def _answer(self, sent: bytes, *, seconds: float) -> tuple[int | None, bytes]:
        """Status and body of the answer; None if there is none."""
        received, end = b"", time.monotonic() + seconds
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        with connection, contextlib.suppress(OSError):  # it may be closed at any time
            connection.sendall(sent)
            while (left := end - time.monotonic()) > 0:
                connection.settimeout(left)
                if not (some := connection.recv(1 << 16)):
                    break
                received += some
        head, _, body = received.partition(b"\r\n\r\n")
        found = re.match(rb"HTTP/1\.1 (\d{3})", head)
        return (int(found[1]) if found else None), body

    def _with_port(self, sent: bytes) -> bytes:
        return sent.replace(b"127.0.0.1:PORT", f"127.0.0.1:{self.port}".encode())

    def _json(self, method: str, path: str, body: bytes = b"") -> Any:
        request = Request(method, path, body)
        status, answer = self._answer(self._with_port(request.head(len(body))) + body, seconds=SLOWEST)
        if status is None or status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {answer[:300].decode(errors='replace')}")
        return json.loads(answer)

    def good_search(self) -> list[tuple[str, float]]:
        """Names and distances that a good request gives; its query is the one that is kept."""
        self._key = self._json("POST", "/api/queries?name=child.png", picture())["id"]
        wanted = json.dumps({"queries": [self._key], "top": 5}).encode()
        found = self._json("POST", "/api/search", wanted)["found"]
        self._picture = found[0]["id"]
        return [(hit["name"], hit["distance"]) for hit in found]

    def disturbed(self, before: list[tuple[str, float]]) -> str:
        """What a good search says now, if that is not what it said before."""
        try:
            now = self.good_search()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        return "" if now == before else f"found {now}, before {before}"

    def memory(self) -> float:
        """Resident memory in MB."""
        return status_bytes("VmRSS", self._process.pid) / 2**20

    def left_over(self, memory: float) -> list[dict[str, Any]]:
        """What is wrong at the end: tracebacks that the server has printed, its memory, a gallery that has changed."""
        faults = []
        if "Traceback" in "".join(self._said):
            faults.append({"outcome": "traceback", "message": "".join(self._said)[-3000:]})
        if (more := self.memory() - memory) > MORE_MEMORY:
            faults.append({"outcome": "too much memory", "message": f"{more:.0f} MB more"})
        if self._content() != self._files:
            faults.append({"outcome": "the gallery has changed", "message": str(sorted(self._content()))})
        return faults
