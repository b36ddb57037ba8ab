"""Finds the pictures of a gallery that are most similar to a given one, by the features of a trained encoder.

    python search.py --checkpoint=runs/san --gallery=shop --query=child.jpg --top=10
    python search.py --checkpoint=runs/san --best --gallery=shop --query=missing --top=20 --sheet=found.png
    python search.py --checkpoint=runs/san --gallery=frames --boxes=gt.txt --by_track --query=child.jpg

A picture should show one person, cropped from head to foot; boxes cut such pictures out of scenes. The first search
embeds the whole gallery; later ones embed only new and changed pictures.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from san_jax import files
from san_jax import model as models
from san_jax.commands import common, own_pictures
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.gallery import embedding, feature_index, finds, tracks
from san_jax.scoring import nearest


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
        "gallery": text(
            "gallery", None,
            "What to search: a folder of pictures, with its subfolders, a list (.csv, .tsv), or, with --boxes, a "
            "folder of frames or a video.",
            required=True,
        ),
        "query": text(
            "query", None, "Picture to search for; or several, as for --gallery, with --query_boxes.", required=True
        ),
        **own_pictures.define_box_flags(of="--gallery"),
        "query_boxes": text("query_boxes", None, "Boxes around people in the frames of --query, as --boxes."),
        "by_track": flags.DEFINE_bool(
            "by_track", False, "Average the features of a track, by the ids of the boxes, and find tracks."
        ),
        "top": number("top", 10, "Pictures or tracks to find for each query.", lower_bound=1),
        "distance": flags.DEFINE_enum(
            "distance", "euclidean", ("euclidean", "cosine"), "Distance between features; euclidean is squared."
        ),
        "sheet": text("sheet", None, "PNG file for the contact sheet. Default: next to the index."),
        "index": text(
            "index", None, "File (.npz) that stores the gallery's features by this model. Default: in RUN/search."
        ),
        "batch_size": number("batch_size", 64, "Pictures at once, over all devices.", lower_bound=1),
        "workers": number("workers", None, "Threads that read pictures. Default: one for each core.", lower_bound=1),
    }  # fmt: skip
    common.run_command(lambda: search({name: holder.value for name, holder in given.items()}), module=__name__)


def search(given: Mapping[str, Any]) -> None:
    """Embeds new pictures, prints the nearest ones, writes the contact sheet, lists unreadable pictures."""
    place, query = Path(given["gallery"]), Path(given["query"])
    own_pictures.check_box_flags(given, "by_track")
    model = models.load(given["checkpoint"], best=given["best"])
    model.check_learnt_people()
    boxes = Path(given["boxes"]) if given["boxes"] else None
    index_file = Path(given["index"] or feature_index.default_place(Path(model.source), place, boxes))
    sheet_file = Path(given["sheet"] or index_file.with_name(f"{query.resolve().stem}_in_{place.resolve().name}.png"))
    check_places(index_file, sheet_file, query=query, gallery=place)
    asked = own_pictures.open_crops(query, given["query_boxes"], given, flag="--query_boxes", one_will_do=True)
    if asked.remarks and jax.process_index() == 0:
        print("\n".join(asked.remarks), flush=True)

    reading = dict(batch_size=given["batch_size"], workers=given["workers"])
    queries, query_feats, unreadable = embedding.embed_all(model, asked, **reading)
    if not queries:
        first, why = next(iter(unreadable.items()))
        others = f", nor any other picture of {query}" if len(asked) > 1 else ""
        raise UserError(f"cannot read {first} ({why}){others}; give another --query")
    gallery = own_pictures.open_crops(place, given["boxes"], given, flag="--boxes")
    index, missing = feature_index.update(index_file, gallery, model, **reading)
    unreadable |= missing
    if not len(index):
        report(unreadable)
        raise UserError(f"no picture of {place} can be read; give another --gallery")
    embedded = set(index.names)
    shown = [crop for crop in gallery.crops if crop.name in embedded]
    queries_as, shown_as = [crop.label for crop in queries], [crop.name for crop in shown]
    feats = index.feats
    if given["by_track"]:
        queries, queries_as, query_feats = tracks.averaged(queries, queries_as, query_feats)
        shown, shown_as, feats = tracks.averaged(shown, shown_as, feats)
    top = min(given["top"], len(shown))
    if top < given["top"] and jax.process_index() == 0:
        kind = "tracks" if given["by_track"] else "readable pictures"
        print(f"{place} has only {len(shown)} {kind}, so {top} are shown, not --top={given['top']}")
    hits = nearest.nearest(query_feats, feats, k=top, distance=given["distance"], mesh=model.mesh)
    distances, rows = (np.asarray(numbers) for numbers in hits)
    if jax.process_index() == 0:
        found = finds.finds(queries, shown, shown_as, rows=rows, distances=distances)
        print(f"\n{finds.table(queries_as, found)}\n", flush=True)
        images = dict(query_image=asked.image, image=gallery.image)
        sheet, num_shown = finds.sheet(queries, found, title=f"{query} in {place}", **images)
        contact_sheet.save(sheet_file, sheet)
        of_all = f" (the first {num_shown} of {len(queries)} queries)" if num_shown < len(queries) else ""
        print(f"contact sheet: {sheet_file}{of_all}")
    if unreadable:
        report(unreadable)
        named, them = ("picture", "it") if len(unreadable) == 1 else (f"{len(unreadable)} pictures", "them")
        raise UserError(f"the {named} named above cannot be read, all others were searched; replace or remove {them}")


def check_places(index_file: Path, sheet_file: Path, *, query: Path, gallery: Path) -> None:
    """Checks that no output overwrites a picture, or lies where the next search would read it as one."""
    if index_file.suffix.lower() != ".npz":
        raise UserError(f"--index is {index_file}, which does not end in .npz; choose another name")
    files.check_place(index_file)
    contact_sheet.check_place(sheet_file, pictures=[gallery, query])


def report(unreadable: dict[str, str]) -> None:
    """Prints the pictures that cannot be read, from the first process only."""
    if jax.process_index() == 0:
        for label, why in unreadable.items():
            print(f"cannot read {label}: {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
