r"""Generates a pseudo texture for every picture, a PNG of 256 x 256 pixels with the picture's name.

Started again, it generates only the textures that are missing.

    python generate_textures.py --checkpoint=runs/san_pg --input=pictures --output=textures --sheet=textures.png
    python generate_textures.py --checkpoint=runs/san_pg --input=tfds:cuhk03/labeled --manual_dir=RELEASE \
        --output=RELEASE/cuhk03/texture_cuhk03_labeled        # for cuhk03/labeled_texture
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

from san_jax import model as models
from san_jax.commands import common
from san_jax.drawing import contact_sheet
from san_jax.errors import UserError
from san_jax.gallery import pseudo_textures
from san_jax.gallery.pseudo_textures import Pictures

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
        "input": text("input", None, "A folder of pictures, or tfds:NAME for a data set.", required=True),
        "output": text("output", None, "Folder for the textures.", required=True),
        "split": text("split", "train", "Split of tfds:NAME."),
        "data_dir": text("data_dir", "data", "Folder of the prepared data sets, for tfds:NAME."),
        "manual_dir": text("manual_dir", "", "Folder of the release; needed only to prepare a data set."),
        "sheet": text("sheet", None, "PNG file for a contact sheet of some pictures and their textures."),
        "batch_size": number("batch_size", 64, "Pictures at once, over all devices.", lower_bound=1),
        "workers": number(
            "workers", None, "Threads that read pictures and write textures. Default: one for each core.", lower_bound=1
        ),
    }  # fmt: skip
    common.run_command(lambda: draw({name: holder.value for name, holder in given.items()}), module=__name__)


def draw(given: Mapping[str, Any]) -> None:
    """Generates missing textures, lists unreadable pictures."""
    output, sheet_file = Path(given["output"]), Path(given["sheet"]) if given["sheet"] else None
    if sheet_file:
        folders = [output] if given["input"].startswith(TFDS) else [output, Path(given["input"])]
        contact_sheet.check_place(sheet_file, pictures=folders)
    generator = models.load(given["checkpoint"], best=given["best"])
    generator.check_draws()
    pictures = open_pictures(given)
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


def open_pictures(given: Mapping[str, Any]) -> Pictures:
    """Opens the pictures that --input names."""
    name, split = given["input"], given["split"]
    if not name.startswith(TFDS):
        return Pictures.in_folder(Path(name), output=Path(given["output"]))
    folders = dict(data_dir=given["data_dir"], manual_dir=given["manual_dir"])
    return Pictures.of_source(common.open_source(name.removeprefix(TFDS), split, **folders), split=split)


if __name__ == "__main__":
    main()
