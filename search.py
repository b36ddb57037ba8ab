r"""Finds the pictures of a folder that are most like a given one: the same person, if the encoder has learnt people.

    python search.py --checkpoint=runs/san --gallery=shop --query=child.jpg --top=10
    python search.py --checkpoint=runs/san --best --gallery=shop --query=missing --top=20 --sheet=found.png

Every picture should show one person, cut out from head to foot. The first search embeds the whole gallery; later ones
embed what is new or changed since.
"""

import os
import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

from san_jax import commands, contact_sheet, devices, found_pictures, picture_folder, picture_index, retrieval
from san_jax.errors import UserError
from san_jax.picture_index import PictureEncoder
from san_jax.training import checkpoints

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A run of mode san or baseline, or one of its checkpoints.", required=True
)
BEST = flags.DEFINE_bool("best", False, "The run's best checkpoint in place of its newest.")
GALLERY = flags.DEFINE_string("gallery", None, "Folder of pictures to search in, with its subfolders.", required=True)
QUERY = flags.DEFINE_string("query", None, "Picture to search for, or a folder of such.", required=True)
TOP = flags.DEFINE_integer("top", 10, "Pictures to find for each query.", lower_bound=1)
DISTANCE = flags.DEFINE_enum(
    "distance", "euclidean", ("euclidean", "cosine"), "Between features; euclidean is squared."
)
SHEET = flags.DEFINE_string("sheet", None, "PNG file for the contact sheet. Default: in RUN/search.")
INDEX = flags.DEFINE_string(
    "index", None, "File (.npz) that keeps the gallery's features, of one model. Default: in RUN/search, by gallery."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Pictures at once, over all devices.", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 2, "Threads that read pictures.", lower_bound=1)


def main() -> None:
    """Embeds what is new, prints and draws what is nearest, lists what cannot be read."""
    gallery, query = Path(GALLERY.value), Path(QUERY.value)
    checkpoint = checkpoints.find(Path(CHECKPOINT.value), best=BEST.value)
    index_file = Path(INDEX.value or picture_index.default_place(checkpoint, gallery))
    sheet_file = Path(SHEET.value or index_file.with_name(f"{query.resolve().stem}_in_{gallery.resolve().name}.png"))
    check_places(index_file, sheet_file, query=query, gallery=gallery)
    asked = picture_folder.find(query) if os.path.isdir(query) else [query]

    mesh = devices.make_mesh()
    encoder = PictureEncoder.restore(checkpoint, mesh, batch_size=BATCH_SIZE.value)
    queries, query_feats, unreadable = encoder.embed_all(asked, workers=WORKERS.value)
    if not queries:
        others = f" and the other {len(asked) - 1} pictures of {query}" if len(asked) > 1 else ""
        raise UserError(f"cannot read {asked[0]} ({unreadable[asked[0]]}){others}; give another --query")
    index, missing = picture_index.update(index_file, gallery, encoder, workers=WORKERS.value)
    unreadable |= missing
    if len(index) < TOP.value:
        report(unreadable)
        raise UserError(
            f"--top is {TOP.value}, but {gallery} has only {len(index)} pictures that can be read; ask for fewer"
        )
    nearest = retrieval.nearest(query_feats, index.feats, k=TOP.value, distance=DISTANCE.value, mesh=mesh)
    distances, rows = (np.asarray(numbers) for numbers in nearest)
    if jax.process_index() == 0:
        found = found_pictures.finds(queries, gallery, index.names, rows=rows, distances=distances)
        print(f"\n{found_pictures.table(queries, found)}\n", flush=True)
        sheet, num_shown = found_pictures.sheet(queries, found, title=f"{query} in {gallery}")
        contact_sheet.save(sheet_file, sheet)
        of_all = f", the first {num_shown} of {len(queries)} queries" if num_shown < len(queries) else ""
        print(f"{sheet_file} shows it{of_all}")
    if unreadable:
        report(unreadable)
        raise UserError(
            f"cannot read the pictures named above ({len(unreadable)}), searched all others; replace or remove them"
        )


def check_places(index_file: Path, sheet_file: Path, *, query: Path, gallery: Path) -> None:
    """Sees to it that nothing is written over a picture, or where the next search would take it for one."""
    if index_file.suffix.lower() != ".npz":
        raise UserError(f"--index is {index_file}, which does not end in .npz; choose another name")
    contact_sheet.check_place(sheet_file, pictures=[gallery, query])


def report(unreadable: dict[Path, str]) -> None:
    """Lists pictures that cannot be read, once for all processes."""
    if jax.process_index() == 0:
        for path, why in unreadable.items():
            print(f"cannot read {path}: {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    commands.run(main)
