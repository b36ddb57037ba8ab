r"""Generates a pseudo texture for every picture, a PNG of 256 x 256 pixels with the picture's name.

Started again, it generates only the textures that are missing.

    python generate_textures.py --checkpoint=runs/san_pg --input=pictures --output=textures --sheet=textures.png
    python generate_textures.py --checkpoint=runs/san_pg --input=tfds:cuhk03/labeled --manual_dir=RELEASE \
        --output=RELEASE/cuhk03/texture_cuhk03_labeled        # for cuhk03/labeled_texture
    python generate_textures.py --checkpoint=rendered-small-pg --input=frames --boxes=gt.txt --output=textures
    python generate_textures.py --checkpoint=rendered-small-pg --input=people.csv --output=textures
    python train.py --config=configs/san.py --config.data.train=textures/people_textures.csv
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from absl import flags

from san_jax import model as models
from san_jax.commands import common, own_pictures
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.gallery import pseudo_textures
from san_jax.gallery.pseudo_textures import Pictures

if TYPE_CHECKING:
    from tfds_builders import TexturedList

TFDS = "tfds:"


def main() -> None:
    """Runs the command; defines its flags here, so that importing this module does not define them."""
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    given = {
        "checkpoint": text(
            "checkpoint", None,
            "A run of mode san_pg or san, one of its checkpoints, a file of weights, or rendered-small-pg.",
            required=True,
        ),
        "best": flags.DEFINE_bool("best", False, "Use the run's best checkpoint, not its newest."),
        "input": text(
            "input", None,
            "A folder of pictures, a list (.csv, .tsv), tfds:NAME, or, with --boxes, a folder of frames or a video.",
            required=True,
        ),
        "output": text("output", None, "Folder for the textures.", required=True),
        **own_pictures.define_box_flags(of="--input"),
        "split": text("split", "train", "Split of tfds:NAME or of the list."),
        "data_dir": text("data_dir", "data", "Folder of the prepared data sets, for tfds:NAME and lists."),
        "manual_dir": text("manual_dir", "", "Folder of the release; needed only to prepare a data set."),
        "pattern": text("pattern", "", "Of the names of pictures, for tfds:FOLDER."),
        "sheet": text("sheet", None, "PNG file for a contact sheet of some pictures and their textures."),
        "batch_size": number("batch_size", 64, "Pictures at once, over all devices.", lower_bound=1),
        "workers": number(
            "workers", None, "Threads that read pictures and write textures. Default: one for each core.", lower_bound=1
        ),
    }  # fmt: skip
    addresses = ("checkpoint", "data_dir")
    common.run_command(
        lambda: draw({name: holder.value for name, holder in given.items()}), module=__name__, remote=addresses
    )


def draw(given: Mapping[str, Any]) -> None:
    """Generates missing textures, lists unreadable pictures."""
    own_pictures.check_box_flags(given)
    output, sheet_file = Path(given["output"]), Path(given["sheet"]) if given["sheet"] else None
    if sheet_file:
        folders = [output] if is_data_set(given["input"]) else [output, Path(given["input"])]
        contact_sheet.check_place(sheet_file, pictures=folders)
    generator = models.load(given["checkpoint"], best=given["best"])
    generator.check_draws()
    pictures = open_pictures(given)
    listed = list_of(given, output)  # before anything is drawn: the folder may belong to another list
    unreadable = pseudo_textures.write_textures(
        generator, pictures, output, batch_size=given["batch_size"], workers=given["workers"]
    )
    if sheet_file and jax.process_index() == 0:
        sheet = pseudo_textures.sheet_of(generator, pictures, output)
        if sheet is not None:
            contact_sheet.save(sheet_file, sheet)
    if unreadable:
        if jax.process_index() == 0:
            lines = [f"cannot read {label}: {reason}" for label, reason in unreadable.items()]
            print("\n".join(lines), file=sys.stderr, flush=True)
        raise UserError(
            f"{len(unreadable)} of {len(pictures.names)} pictures cannot be read and have no texture, all others have "
            "one; replace or remove them and start again"
        )
    if listed is not None and jax.process_index() == 0:
        listed.write()
        print(f"{listed.path}: the pictures with their textures, for --config.data.train", flush=True)


def is_data_set(name: str) -> bool:
    """Whether --input is a data set, tfds:NAME or a list, rather than a folder of pictures."""
    return name.startswith(TFDS) or own_pictures.is_list(Path(name))


def list_of(given: Mapping[str, Any], output: Path) -> "TexturedList | None":
    """A list with the textures to be drawn, if --input is a list, or a folder that is used as a data set.

    Raises:
      UserError: as of `tfds_builders.list_with_textures`.
    """
    if not is_data_set(given["input"]):
        return None
    import tfds_builders  # here, since it takes half a second and folders of pictures need none of it

    place, options = given["input"].removeprefix(TFDS), {name: given[name] for name in ("split", "pattern")}
    return tfds_builders.list_with_textures(place, output, **options) if tfds_builders.is_own(place) else None


def open_pictures(given: Mapping[str, Any]) -> Pictures:
    """Opens the pictures that --input names."""
    name, split = given["input"], given["split"]
    if not is_data_set(name):
        crops = own_pictures.open_crops(Path(name), given["boxes"], given, flag="--boxes")
        return Pictures.of_crops(crops, output=Path(given["output"]))
    if given["boxes"]:
        raise UserError(f"{name} is a data set, whose pictures show one person each; leave out --boxes")
    folders = {name: given[name] for name in ("data_dir", "manual_dir", "pattern")}
    return Pictures.of_source(common.open_source(name.removeprefix(TFDS), split, **folders), split=split)


if __name__ == "__main__":
    main()
