"""Finds the pictures of a gallery that are most similar to a given one, by the features of a trained encoder.

    python search.py --checkpoint=runs/san --gallery=shop --query=child.jpg --top=10
    python search.py --checkpoint=runs/san --best --gallery=shop --query=missing --top=20 --sheet=found.png
    python search.py --checkpoint=runs/san --gallery=frames --boxes=gt.txt --by_track --query=child.jpg
    python search.py --checkpoint=runs/san --gallery=people.csv --query=missing --as_one --output=found.csv
    python search.py --checkpoint=runs/san --forget=shop
    python search.py --checkpoint=runs/san --serve --gallery=shop --gallery=entrance

A picture should show one person, cropped from head to foot; boxes cut such pictures out of scenes. The first search
embeds the whole gallery; later ones embed only new and changed pictures. With --serve the same is a page in the
browser, on this machine alone unless --host says otherwise.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from san_jax import files
from san_jax import model as models
from san_jax.commands import common, own_pictures, serve
from san_jax.data.crops import Crop, Crops
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.gallery import embedding, feature_index, finds, found_files, index_files, tracks
from san_jax.gallery.feature_index import GalleryIndex
from san_jax.gallery.finds import Find
from san_jax.gallery.tracks import Means
from san_jax.model import Model
from san_jax.scoring import nearest, reranking
from san_jax.scoring.evaluation import Search
from san_jax.scoring.gallery_feats import GalleryFeats
from san_jax.weights import pretrained, stored

THRESHOLD = "fpr_1e-3"  # among the thresholds of scores.json
TOP = 10
LONGEST = 64  # letters of a query's name in the name of its contact sheet
NOT_FORGOTTEN = (  # flags that --forget does not take
    *("gallery", "query", "boxes", "query_boxes", "by_track", "as_one", "flip", "half", "rerank", "threshold"),
    *("output", "index", "sheet", "best"),
)


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    given = {
        "checkpoint": text(
            "checkpoint", None,
            "A run of mode san or baseline, one of its checkpoints, a file of weights, or rendered-small.",
            required=True,
        ),
        "best": flags.DEFINE_bool("best", False, "Use the run's best checkpoint, not its newest."),
        "gallery": flags.DEFINE_multi_string(
            "gallery", None,
            "What to search: a folder of pictures, with its subfolders, a list (.csv, .tsv), or, with --boxes, a "
            "folder of frames or a video. With --serve it may be given several times.",
        ),
        "query": text("query", None, "Picture to search for; or several, as for --gallery, with --query_boxes."),
        **own_pictures.define_box_flags(of="--gallery", named_by="--boxes and --query_boxes"),
        "query_boxes": text("query_boxes", None, "Boxes around people in the frames of --query, as --boxes."),
        "by_track": flags.DEFINE_bool(
            "by_track", False, "Average the features of a track, by the ids of the boxes, and find tracks."
        ),
        "top": number("top", None, "Pictures or tracks to find for each query. Default: 10.", lower_bound=1),
        "distance": flags.DEFINE_enum(
            "distance", "euclidean", ("euclidean", "cosine"), "Distance between features; euclidean is squared."
        ),
        "threshold": flags.DEFINE_float(
            "threshold", None,
            "Distance up to which pictures are taken for the same person. Default: that of FPR 1e-3 in the run's "
            "scores.json (eval.py --tpr), if it is of this checkpoint and these distances.",
        ),
        "as_one": flags.DEFINE_bool("as_one", False, "All queries show one person: average their features."),
        "flip": flags.DEFINE_bool("flip", False, "Average the features of each picture and its mirror image."),
        "half": flags.DEFINE_bool(
            "half", False, "Keep the gallery's features in half precision, in half the bytes on disk and in memory."
        ),
        "rerank": flags.DEFINE_bool("rerank", False, "k-reciprocal re-ranking (k1 20, k2 6, lambda 0.3)."),
        "output": text(
            "output", None,
            "File for the results, .csv or .json; or for features: .npz, or .npy of the gallery alone, with a .csv of "
            "its pictures.",
        ),
        "sheet": text("sheet", None, "PNG file for the contact sheet. Default: next to the index."),
        "index": text(
            "index", None, "Folder that stores the gallery's features by this model. Default: in RUN/search."
        ),
        "forget": text("forget", None, "Only delete what is kept of this gallery: features and contact sheets."),
        "batch_size": number(
            "batch_size", None, "Pictures at once, over all devices. Default: 64, and 8 with --serve on CPUs.",
            lower_bound=1,
        ),
        "workers": number("workers", None, "Threads that read pictures. Default: one for each core.", lower_bound=1),
        "serve": flags.DEFINE_bool("serve", False, "Serve a page that searches in the browser."),
        "host": text(
            "host", None, "With --serve: address to listen at, with a token for visitors. Default: 127.0.0.1, without."
        ),
        "port": number("port", None, "With --serve: port to listen at, 0 for any. Default: 8000.", 0, 65_535),
    }  # fmt: skip
    addresses = ("checkpoint",)
    common.run_command(
        lambda: run({name: holder.value for name, holder in given.items()}), module=__name__, remote=addresses
    )


def run(given: Mapping[str, Any]) -> None:
    """Searches once, or serves the page; "gallery" is a list here, and defaults are still missing."""
    if given["serve"]:
        serve.check_flags(given)
        model = models.load(given["checkpoint"], best=given["best"])
        model.check_learnt_people()
        explicit = given["threshold"]
        serve.serve(given, model, threshold=known_threshold(given, model) if explicit is None else explicit)
        return
    if unused := [name for name in serve.ONLY_SERVED if given[name] is not None]:
        raise UserError(f"--{unused[0]} is about the page of --serve; give --serve, too, or leave it out")
    if len(given["gallery"] or ()) > 1:
        raise UserError(f"--gallery is given {len(given['gallery'])} times; give it once, or --serve, too")
    defaults = {"top": given["top"] or TOP, "batch_size": given["batch_size"] or serve.BATCH_SIZE}
    search({**given, **defaults, "gallery": given["gallery"][0] if given["gallery"] else None})


def search(given: Mapping[str, Any]) -> None:
    """Embeds new pictures, prints the nearest ones, writes the contact sheet, lists unreadable pictures."""
    check_flags(given)
    if given["forget"]:
        forget(given)
        return
    model = models.load(given["checkpoint"], best=given["best"])
    model.check_learnt_people()
    places = places_of(given, model)
    reading = {name: given[name] for name in ("batch_size", "workers")}
    asked = own_pictures.open_crops(places.query, given["query_boxes"], given, flag="--query_boxes", one_will_do=True)
    say(*asked.remarks)
    queries, query_feats, unreadable = embedding.embed_all(model, asked, flip=given["flip"], **reading)
    if not queries:
        first, why = next(iter(unreadable.items()))
        others = f", nor any other picture of {places.query}" if len(asked) > 1 else ""
        raise UserError(f"cannot read {first} ({why}){others}; give another --query")
    gallery = own_pictures.open_crops(places.gallery, given["boxes"], given, flag="--boxes")
    check_overwrites(places, [*asked.crops, *gallery.crops])
    index, missing = feature_index.update(places.index, gallery, model, kind=index_files.kind_of(given), **reading)
    unreadable |= missing
    if not len(index):
        report(unreadable)
        raise UserError(f"no picture of {places.gallery} can be read; give another --gallery")
    wanted = means_of_queries(queries, query_feats, given)
    there = group_gallery(gallery, index, given)
    found = compare(wanted, there, given, model)
    if jax.process_index() == 0:
        print(f"\n{finds.table(wanted.titles, found)}\n", flush=True)
        if places.output:
            feats = dict(query_feats=wanted.feats, feats=there.blocks)
            found_files.write(places.output, wanted.crops, there.crops, found, **feats)
            print(f"results: {places.output}")
        pictures = dict(query_thumbnails=asked.thumbnails, thumbnails=gallery.thumbnails)
        sheet, num_shown = finds.sheet(wanted.crops, found, title=f"{places.query} in {places.gallery}", **pictures)
        contact_sheet.save(places.sheet, sheet)
        of_all = f" (the first {num_shown} of {len(found)} queries)" if num_shown < len(found) else ""
        print(f"contact sheet: {places.sheet}{of_all}")
    if unreadable:
        report(unreadable)
        named, them = ("picture", "it") if len(unreadable) == 1 else (f"{len(unreadable)} pictures", "them")
        raise UserError(f"the {named} named above cannot be read, all others were searched; replace or remove {them}")


def means_of_queries(queries: Sequence[Crop], feats: np.ndarray, given: Mapping[str, Any]) -> Means:
    """The queries, or the means of their tracks, or the mean of all of them."""
    labels = [crop.label for crop in queries]
    if given["as_one"]:
        return tracks.averaged(queries, labels, feats, groups=len(queries) * [given["query"]])
    return (tracks.by_track if given["by_track"] else tracks.of_pictures)(queries, labels, feats)


class Gallery(NamedTuple):
    """The readable pictures of the gallery, or its tracks.

    Attributes:
      crops: the picture that is shown for each.
      titles: what tables call them.
      blocks: their features, some rows at a time.
      feats: all of them, in one array.
      ready: makes them ready for searches on a mesh.
    """

    crops: Sequence[Crop]
    titles: Sequence[str]
    blocks: Callable[[], Iterator[np.ndarray]]
    feats: Callable[[], np.ndarray]
    ready: Callable[[Mesh], GalleryFeats]


def group_gallery(gallery: Crops, index: GalleryIndex, given: Mapping[str, Any]) -> Gallery:
    """The readable pictures of the gallery, whose features stay where they are, or the means of their tracks."""
    embedded = set(index.names)
    readable = [crop for crop in gallery.crops if crop.name in embedded]
    names = [crop.name for crop in readable]
    if not given["by_track"]:
        return Gallery(readable, names, index.blocks, lambda: index.feats, index.ready)
    means = tracks.by_track(readable, names, index.feats)
    ready = functools.partial(GalleryFeats, [means.feats])
    return Gallery(means.crops, means.titles, lambda: iter([means.feats]), lambda: means.feats, lambda m: ready(mesh=m))


def check_flags(given: Mapping[str, Any]) -> None:
    """Raises a UserError if a flag has no effect, or excludes another."""
    if given["forget"]:
        if others := [name for name in NOT_FORGOTTEN if given[name]]:
            raise UserError(f"--forget only deletes what is at the default places; leave out --{others[0]}")
        return
    for name, what in (("gallery", "what to search"), ("query", "a picture to search for")):
        if not given[name]:
            raise UserError(f"--{name} is missing; name {what}")
    own_pictures.check_box_flags(given, "by_track")
    if given["threshold"] is not None and not given["threshold"] >= 0:  # NaN, too
        raise UserError(f"--threshold is {given['threshold']}; give a distance of 0 or more")
    Search(distance=given["distance"], rerank=given["rerank"])


def forget(given: Mapping[str, Any]) -> None:
    """Deletes what searches by this run or file of weights have kept of a gallery."""
    source = Path(given["checkpoint"])
    if files.is_remote(source):
        raise UserError(f"--forget needs a local --checkpoint; delete the folder of {given['checkpoint']} below runs")
    is_file = pretrained.is_name(source) or source.is_file()
    home = feature_index.home_of(source if is_file else stored.find(source))
    gone = feature_index.forget(home, Path(given["forget"])) if jax.process_index() == 0 else []
    say(*(f"deleted: {place}" for place in gone))
    if not gone and jax.process_index() == 0:
        raise UserError(f"nothing is kept of {given['forget']} in {home}")


class Places(NamedTuple):
    """What is searched, and the files that are written."""

    gallery: Path
    query: Path
    index: Path
    sheet: Path
    output: Path | None


def places_of(given: Mapping[str, Any], model: Model) -> Places:
    """The places that the flags name, or their defaults.

    Raises:
      UserError: an output would overwrite a picture, or lies where the next search would read it as one.
    """
    gallery, query = Path(given["gallery"]), Path(given["query"])
    boxes = Path(given["boxes"]) if given["boxes"] else None
    default = feature_index.default_place(Path(model.source), gallery, boxes, kind=index_files.kind_of(given))
    index = feature_index.named_place(given["index"]) if given["index"] else default
    files.check_place(index / index_files.ABOUT)
    sheet = Path(given["sheet"] or index.with_name(f"{query.resolve().stem[:LONGEST]}_in_{index.name}.png"))
    contact_sheet.check_place(sheet, pictures=[gallery, query])
    output = Path(given["output"]) if given["output"] else None
    if output:
        query_boxes = Path(given["query_boxes"]) if given["query_boxes"] else None
        found_files.check_place(output, pictures=[*filter(None, (gallery, query, boxes, query_boxes))])
    for name, place in (("sheet", sheet), ("output", output)):
        if place and place.resolve().is_relative_to(index.resolve()):
            raise UserError(f"--{name} is {place}, which lies in the index {index}; choose another place")
    return Places(gallery, query, index, sheet, output)


def check_overwrites(places: Places, crops: Sequence[Crop]) -> None:
    """Raises a UserError if an output is one of the pictures of a list, which may lie anywhere."""
    for name, place in (("sheet", places.sheet), ("output", places.output)):
        if place and place.exists():
            pictures = {crop.frame.path for crop in crops if crop.frame.path.suffix == place.suffix}
            if any(path.exists() and path.samefile(place) for path in pictures):
                raise UserError(f"--{name} is {place}, one of the pictures; choose another place")


def compare(wanted: Means, there: Gallery, given: Mapping[str, Any], model: Model) -> list[list[Find]]:
    """The nearest pictures or tracks of the gallery for every query."""
    top = min(given["top"], len(there.crops))
    if top < given["top"]:
        kind = "tracks" if given["by_track"] else "readable pictures"
        say(f"{given['gallery']} has only {len(there.crops)} {kind}, so {top} are shown, not --top={given['top']}")
    if given["rerank"]:
        feats = wanted.feats, there.feats()
        refinement = reranking.refinement(*feats, mesh=model.mesh)
        how = dict(distance=given["distance"], refinement=refinement, mesh=model.mesh)
        found = nearest.nearest(*feats, k=top, **how)
    else:
        found = there.ready(model.mesh).nearest(wanted.feats, k=top, distance=given["distance"])
    distances, rows = (np.asarray(numbers) for numbers in found)
    threshold = given["threshold"] if given["threshold"] is not None else known_threshold(given, model)
    single = [crop if size == 1 else None for crop, size in zip(wanted.crops, wanted.sizes, strict=True)]
    return finds.finds(single, there.crops, there.titles, rows=rows, distances=distances, threshold=threshold)


def known_threshold(given: Mapping[str, Any], model: Model) -> float | None:
    """The distance of FPR 1e-3 in the run's scores.json; None if it is unknown, or is of other distances."""
    plain = given["distance"] == "euclidean" and not any(given[name] for name in ("rerank", "by_track", "as_one"))
    try:
        known = files.read_json(Path(model.source).parents[1] / "scores.json")
        # The file lies in the run of the model; either may have been named from another folder.
        same = Path(known["checkpoint"]).parts[-2:] == Path(model.source).parts[-2:]
        same &= known.get("flip", False) == given["flip"]
        threshold = float(known["thresholds"][THRESHOLD])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    if not (plain and same):
        return None
    say(f"threshold {threshold:.4f}: below it were 1 in 1000 pairs of different people of {known['data']}")
    return threshold


def say(*lines: str) -> None:
    """Prints lines, from the first process only."""
    if lines and jax.process_index() == 0:
        print("\n".join(lines), flush=True)


def report(unreadable: dict[str, str]) -> None:
    """Prints the pictures that cannot be read, from the first process only."""
    if jax.process_index() == 0:
        for label, why in unreadable.items():
            print(f"cannot read {label}: {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
