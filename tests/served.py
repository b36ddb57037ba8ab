"""Galleries, applications and servers of the page, for tests."""

import contextlib
import io
import threading

import httpx
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from san_jax.data import crops
from san_jax.serving import application, finding, gallery_watch, queries, server, turns

COLOURS = {"red": (250, 0, 0), "blue": (0, 0, 250), "green": (0, 200, 0), "grey": (90, 90, 90)}
OWN = "http://127.0.0.1:8000"


def person(colour, *, seed=0, size=(16, 32)):
    """A picture in one colour, with some noise."""
    noise = np.random.default_rng(seed).integers(-20, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def png(picture):
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def write_shop(folder, *, colours=("red", "blue", "green"), each=3):
    """Pictures red_0.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, colour in enumerate(colours):
        for number in range(each):
            person(colour, seed=10 * place + number).save(folder / f"{colour}_{number}.png")
    return folder


class Served:
    """Watched galleries with everything that a request needs, without a server.

    Args:
      model: computes features.
      folder: for the indexes.
      sources: folders or functions that list a gallery.
      token: as of `application.guarded`.
      host: as of `application.guarded`.
    """

    def __init__(self, model, folder, *sources, token=None, host="127.0.0.1", seconds=30.0, **limits):
        self.turns = turns.Turns()
        listed = [
            gallery_watch.Source(place, folder / f"index{number}", lambda place=place: crops.in_folder(place))
            if not isinstance(place, tuple)
            else gallery_watch.Source(place[0], folder / f"index{number}", place[1])
            for number, place in enumerate(sources)
        ]
        self.watch = gallery_watch.GalleryWatch(listed, model, self.turns, batch_size=2, workers=1)
        self.queries = queries.Queries(model, self.turns)
        self.finder = finding.Finder(self.watch, self.queries, self.turns, **limits)
        self.application = application.guarded(self.finder, self.queries, host=host, token=token, seconds=seconds)

    def look(self):
        """Brings all galleries up to date, in this thread."""
        for gallery in self.watch.galleries:
            self.watch.look(gallery)
        return self

    def client(self, **options):
        return TestClient(self.application, **{"base_url": OWN, **options})


def ask(client, content, **options):
    """The id of a new query."""
    answer = client.post("/api/queries", content=content, **options)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def names_of(client, **wanted):
    """Names of the pictures that a search finds."""
    answer = client.post("/api/search", json=wanted)
    assert answer.status_code == 200, answer.text
    return [hit["name"] for hit in answer.json()["found"]]


@contextlib.contextmanager
def running(built, *, watches=False):
    """A real server in a thread; gives its socket's address."""
    opened = server.listen("127.0.0.1", 0)
    served = server.server_of(built.application)

    def run():
        import asyncio

        asyncio.run(served.serve(sockets=[opened]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if watches:
        built.watch.start()
    try:
        yield opened.getsockname()
    finally:
        if watches:
            built.watch.stop()
        served.should_exit = True
        thread.join(20)


def get(address, path):
    """An answer of a real server."""
    return httpx.get(f"http://{address[0]}:{address[1]}{path}", timeout=20)
