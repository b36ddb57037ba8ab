"""`search.py --serve`: a page in the browser that searches galleries."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from san_jax import files
from san_jax.commands import own_pictures
from san_jax.errors import UserError
from san_jax.gallery import feature_index, index_files
from san_jax.model import PART, Model

NEEDED = ("starlette", "uvicorn")
BATCH_SIZE = 64  # without --serve, and with it on other devices than CPUs
# Flags of search.py without effect on the page -> what has.
ON_THE_PAGE = {
    "query": "choose the picture on the page",
    "query_boxes": "draw boxes on the page",
    "as_one": "mark pictures as right on the page",
    "top": "choose the number on the page",
    "output": "save results from the page",
    "sheet": "save the contact sheet from the page",
    "rerank": "the page shows plain distances",
    "by_track": "the page finds single pictures",
    "forget": "give it without --serve",
}
ONLY_SERVED = ("host", "port")


def check_flags(given: Mapping[str, Any]) -> None:
    """Raises a UserError if a flag has no effect with --serve, or excludes another, or the extra is missing.

    Args:
      given: the flags; "gallery" is a list.
    """
    for name, instead in ON_THE_PAGE.items():
        if given[name] not in (None, False):
            raise UserError(f"--{name} has no effect with --serve; leave it out: {instead}")
    if not all(given["gallery"] or [""]):
        raise UserError("--gallery is missing; name what to search")
    if len(given["gallery"]) > 1 and (several := [name for name in ("boxes", "index") if given[name]]):
        raise UserError(f"--{several[0]} is of one gallery, but --gallery names {len(given['gallery'])}; name one")
    places = [Path(gallery).resolve() for gallery in given["gallery"]]
    if twice := [name for name, place in zip(given["gallery"], places, strict=True) if places.count(place) > 1]:
        raise UserError(f"--gallery names {twice[0]} twice; name each gallery once")
    own_pictures.check_box_flags(given)
    if given["threshold"] is not None and not given["threshold"] >= 0:  # NaN, too
        raise UserError(f"--threshold is {given['threshold']}; give a distance of 0 or more")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"--serve needs {missing[0]}, which is not installed; pip install 'san_jax[serve]'")
    if jax.process_count() > 1:
        raise UserError(f"--serve works in one process, and this run has {jax.process_count()}; start it alone")


def serve(given: Mapping[str, Any], model: Model, *, threshold: float | None) -> None:
    """Serves the page until the process ends.

    Args:
      given: the flags.
      model: computes features.
      threshold: that of --threshold, or the known one.

    Raises:
      UserError: a gallery cannot be read, or the address cannot be served.
    """
    from san_jax.serving import application, finding, gallery_watch, queries, server, turns  # an extra

    host, port = given["host"] or "127.0.0.1", 8000 if given["port"] is None else given["port"]
    opened, token = server.listen(host, port), server.new_token(host)
    sources = [gallery_watch.Source(*places, lister(given, places[0])) for places in places_of(given, model)]
    taking_turns = turns.Turns()
    on_cpu = model.takes_parts  # where smaller batches take no longer, and those who search wait for shorter ones
    batch_size = given["batch_size"] or (PART if on_cpu else BATCH_SIZE)
    how = dict(kind=index_files.kind_of(given), batch_size=batch_size, workers=given["workers"])
    watch = gallery_watch.GalleryWatch(sources, model, taking_turns, distance=given["distance"], **how)
    uploads = queries.Queries(model, taking_turns, flip=given["flip"])
    limit = dict(threshold=threshold, holds_for_means=given["threshold"] is not None)
    finder = finding.Finder(watch, uploads, taking_turns, **limit)
    for source in sources:
        source.open()  # what is wrong with it is an error now, and later a line on the page
    print(f"open {server.address_of(opened, host, token)}   (Ctrl-C ends the server)", flush=True)
    if token:
        print("Whoever has this address sees the galleries; the connection is not encrypted.", flush=True)
    watch.start()
    server.run(application.guarded(finder, uploads, host=host, token=token), opened)


def places_of(given: Mapping[str, Any], model: Model) -> Sequence[tuple[Path, Path]]:
    """Each gallery with the folder of its index.

    Raises:
      UserError: an index cannot be written.
    """
    boxes, found = Path(given["boxes"]) if given["boxes"] else None, []
    for name in given["gallery"]:
        default = feature_index.default_place(Path(model.source), Path(name), boxes, kind=index_files.kind_of(given))
        index = feature_index.named_place(given["index"]) if given["index"] else default
        files.check_place(index / index_files.ABOUT)
        found.append((Path(name), index))
    return found


def lister(given: Mapping[str, Any], place: Path) -> Any:
    """A function that lists a gallery."""
    return lambda: own_pictures.open_crops(place, given["boxes"], given, flag="--boxes")
