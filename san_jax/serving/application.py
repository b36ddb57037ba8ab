"""The routes: the page, and the API that docs/search.md lists."""

import asyncio
import contextlib
import functools
import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from san_jax import files
from san_jax.data import picture_folder
from san_jax.serving import finding, guard, queries
from san_jax.serving.finding import Finder
from san_jax.serving.guard import Refused
from san_jax.serving.queries import Queries

PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"}
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
MOST_JSON = 100_000  # bytes of a request that is no upload
MOST_WAITING = 16  # uploads in memory at a time
HEIGHTS = (32, 1200)  # pixels; of pictures that are shown
MOST_SHOWN_BYTES = 64_000_000  # of pictures that are kept, encoded, for the next look


class Application:
    """The routes and what they need.

    Args:
      finder: searches.
      uploads: pictures of visitors.
    """

    def __init__(self, finder: Finder, uploads: Queries):
        self._finder, self._uploads = finder, uploads
        self._waiting, self._shown = 0, _Encoded()
        self._decoders = asyncio.Semaphore(max(1, len(os.sched_getaffinity(0))))

    def starlette(self) -> Starlette:
        """The application, without its guard."""
        routes = [Route(path, functools.partial(_page, name)) for path, name in PAGE.items()]
        routes += [
            Route("/api/galleries", self.galleries),
            Route("/api/queries", self.add_query, methods=["POST"]),
            Route("/api/queries/{key}", self.query),
            Route("/api/queries/{key}", self.drop_query, methods=["DELETE"]),
            Route("/api/queries/{key}/box", self.box_query, methods=["POST"]),
            Route("/api/search", self.search, methods=["POST"]),
            Route("/api/exports/csv", self.csv, methods=["POST"]),
            Route("/api/exports/sheet", self.sheet, methods=["POST"]),
            Route("/api/pictures/{key}", self.picture),
        ]
        handlers = {Refused: guard.answer_refused, HTTPException: _http_error}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def galleries(self, _: Request) -> Response:
        """How far the galleries are embedded, and their cameras and times."""
        return JSONResponse(await run_in_threadpool(self._finder.progress))

    async def add_query(self, request: Request) -> Response:
        """Takes a picture to search for."""
        with self._one_waiting():
            content = await guard.body_of(request, most=queries.MOST_BYTES)
            name = _name(request.query_params.get("name", ""))
            box = _box([request.query_params[side] for side in "xywh" if side in request.query_params] or None)
            took = _Watch()
            key = await run_in_threadpool(self._uploads.add, content, name=name, box=box)
        return self._described(key, 201, took)

    async def box_query(self, request: Request) -> Response:
        """Searches for another part of the same picture."""
        with self._one_waiting():
            given = await _json_of(request)
            if not isinstance(given, dict) or list(given) != ["box"]:
                raise Refused(400, 'the request is not {"box": [x, y, width, height]}, or {"box": null}; send it')
            box = _box(given["box"])
            took = _Watch()
            key = await run_in_threadpool(self._uploads.add_part, request.path_params["key"], box)
        return self._described(key, 201, took)

    async def query(self, request: Request) -> Response:
        """The whole picture of a query, as JPEG."""
        return Response(self._uploads.get(request.path_params["key"]).preview, media_type="image/jpeg")

    async def drop_query(self, request: Request) -> Response:
        """Forgets a query."""
        self._uploads.drop(request.path_params["key"])
        return Response(status_code=204)

    async def search(self, request: Request) -> Response:
        """The nearest pictures."""
        wanted, took = finding.wanted_of(await _json_of(request)), _Watch()
        found = await run_in_threadpool(self._finder.find, wanted)
        answer = {
            "found": [finding.in_words(hit, found.threshold) for hit in found.hits],
            "searched": found.searched,
            "threshold": found.threshold,
        }
        return JSONResponse(answer, headers=took.headers("search"))

    async def csv(self, request: Request) -> Response:
        """What was found, as CSV."""
        text = await run_in_threadpool(self._finder.csv, finding.wanted_of(await _json_of(request)))
        return _attached(text.encode(errors="backslashreplace"), "text/csv", "found.csv")

    async def sheet(self, request: Request) -> Response:
        """What was found, as a contact sheet."""
        wanted = finding.wanted_of(await _json_of(request))
        async with self._decoders:
            png = await run_in_threadpool(self._finder.sheet, wanted)
        return _attached(png, "image/png", "found.png")

    async def picture(self, request: Request) -> Response:
        """A gallery's picture as JPEG, by its id and not by a path."""
        key, height = (_whole(word) for word in (request.path_params["key"], request.query_params.get("height", "256")))
        if key is None or height is None or not HEIGHTS[0] <= height <= HEIGHTS[1]:
            raise Refused(400, f"ask for a picture by its number, and for a height from {HEIGHTS[0]} to {HEIGHTS[1]}")
        encoded = self._shown.get((key, height))
        if encoded is None:
            async with self._decoders:
                encoded = await run_in_threadpool(self._encoded, key, height)
        return Response(encoded, media_type="image/jpeg")

    def _encoded(self, key: int, height: int) -> bytes:
        _, picture = self._finder.picture(key)
        content = io.BytesIO()
        small = picture_folder.thumbnail(picture, height=min(height, max(HEIGHTS[0], picture.height)))
        Image.fromarray(small).save(content, "JPEG", quality=88)
        return self._shown.keep((key, height), content.getvalue())

    def _described(self, key: str, status: int, took: "_Watch") -> Response:
        query = self._uploads.get(key)
        left, top, right, bottom = query.box or (0, 0, *query.size)
        about = {"id": key, "name": query.name, "width": query.size[0], "height": query.size[1]}
        box = [left, top, right - left, bottom - top] if query.box else None
        return JSONResponse(about | {"box": box}, status, took.headers("embed"))

    @contextlib.contextmanager
    def _one_waiting(self) -> Iterator[None]:
        """Counts an upload while it is in memory."""
        if self._waiting >= MOST_WAITING:
            raise Refused(503, "too many pictures are being uploaded; try again in a moment")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


class _Encoded:
    """The last encoded pictures, up to MOST_SHOWN_BYTES."""

    def __init__(self):
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock, self._size = threading.Lock(), 0

    def get(self, key):
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key, content):
        with self._lock:
            self._size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._size > MOST_SHOWN_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])
        return content


class _Watch:
    """Measures from its making on."""

    def __init__(self):
        self._begin = time.perf_counter()

    def headers(self, what: str) -> dict[str, str]:
        """The header Server-Timing, in milliseconds."""
        return {"Server-Timing": f"{what};dur={1e3 * (time.perf_counter() - self._begin):.2f}"}


def guarded(
    finder: Finder, uploads: Queries, *, host: str, token: str | None, seconds: float = guard.SECONDS
) -> Callable[..., Any]:
    """The whole application; arguments as of `Application` and `Guard`."""
    return guard.Guard(Application(finder, uploads).starlette(), host=host, token=token, seconds=seconds)


async def _page(name: str, _: Request) -> Response:
    return Response(_content(name), media_type=f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")


@functools.cache
def _content(name: str) -> bytes:
    return resources.files("san_jax.serving").joinpath("page", name).read_bytes()


async def _http_error(request: Request, error: HTTPException) -> Response:
    line = {404: "there is nothing at this address", 405: "this address takes another method"}.get(error.status_code)
    return guard.answer(request.scope, Refused(error.status_code, f"{line or error.detail}; see docs/search.md"))


async def _json_of(request: Request) -> Any:
    body = await guard.body_of(request, most=MOST_JSON)
    try:
        return files.parsed_json(body)
    except ValueError as error:
        raise Refused(400, "the request is no JSON; see docs/search.md") from error


def _box(given: Any) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom from x, y, w, h; None for None."""
    if given is None:
        return None
    try:
        x, y, w, h = (int(float(number)) for number in given)
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(400, "a box is four numbers: x, y, width and height in pixels; draw another one") from error
    return x, y, x + w, y + h


def _name(given: str) -> str:
    """A file's name in printable characters, without folders."""
    name = given.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in name if letter.isprintable()).strip()[:100] or "query"


def _whole(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 16 else None


def _attached(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
