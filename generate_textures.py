r"""Draws a pseudo texture of every picture, PNG of 256 x 256 under the picture's name; start it again and it goes on.

    python generate_textures.py --checkpoint=runs/san_pg --input=pictures --output=textures --sheet=textures.png
    python generate_textures.py --checkpoint=runs/san_pg --input=tfds:cuhk03/labeled --manual_dir=RELEASE \
        --output=RELEASE/cuhk03/texture_cuhk03_labeled        # for cuhk03/labeled_texture
"""

import sys
from pathlib import Path

import jax
from absl import flags

import tfds_builders
from san_jax import commands, contact_sheet, devices, pseudo_textures
from san_jax.errors import UserError
from san_jax.pseudo_textures import Generator, Pictures
from san_jax.training import checkpoints

TFDS = "tfds:"

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A run of mode san_pg or san, or one of its checkpoints.", required=True
)
BEST = flags.DEFINE_bool("best", False, "The run's best checkpoint in place of its newest.")
INPUT = flags.DEFINE_string("input", None, "A folder of pictures, or tfds:NAME for a data set.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the textures.", required=True)
SPLIT = flags.DEFINE_string("split", "train", "Which split of tfds:NAME.")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Prepared data sets, for tfds:NAME.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", "", "Folder of the release; needed only to prepare a data set.")
SHEET = flags.DEFINE_string("sheet", None, "PNG file for a contact sheet of some pictures beside their textures.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Pictures at once, over all devices.", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 2, "Threads that read pictures and write textures.", lower_bound=1)


def main() -> None:
    """Draws what is missing, lists what cannot be read."""
    output = Path(OUTPUT.value)
    if SHEET.value:
        folders = [output] if INPUT.value.startswith(TFDS) else [output, Path(INPUT.value)]
        contact_sheet.check_place(Path(SHEET.value), pictures=folders)
    generator = Generator.restore(checkpoints.find(Path(CHECKPOINT.value), best=BEST.value), devices.make_mesh())
    pictures = open_pictures(INPUT.value, output=output)
    unreadable = pseudo_textures.write_textures(
        generator, pictures, output, batch_size=BATCH_SIZE.value, workers=WORKERS.value
    )
    if SHEET.value and jax.process_index() == 0:
        sheet = pseudo_textures.sheet_of(generator, pictures, output)
        if sheet is not None:
            contact_sheet.save(Path(SHEET.value), sheet)
    if unreadable:
        if jax.process_index() == 0:
            lines = [f"cannot read {label}: {reason}" for label, reason in unreadable.items()]
            print("\n".join(lines), file=sys.stderr, flush=True)
        raise UserError(
            f"{len(unreadable)} of {len(pictures.names)} pictures cannot be read and have no texture, the others do; "
            "replace or remove them and start again"
        )


def open_pictures(name: str, *, output: Path) -> Pictures:
    """The pictures that --input names."""
    if not name.startswith(TFDS):
        return Pictures.in_folder(Path(name), output=output)
    source = tfds_builders.open_source(
        name.removeprefix(TFDS), SPLIT.value, data_dir=DATA_DIR.value, manual_dir=MANUAL_DIR.value
    )
    return Pictures.of_source(source, split=SPLIT.value)


if __name__ == "__main__":
    commands.run(main)
