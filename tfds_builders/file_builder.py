"""Base of the data sets whose pictures are files: reads, checks and stores the rows of a list."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from san_jax.batch import Record
from san_jax.data import crops, picture_folder, threads
from san_jax.errors import UserError
from tfds_builders.people_list import Row
from tfds_builders.record import ReidBuilder, encode_png

STORED_AS_THEY_ARE = ("JPEG", "PNG")


class FileBuilder(ReidBuilder):
    """A data set whose plan consists of rows that name files.

    Pictures are stored as the files are, or, where a viewer would show something else than their plain pixels (rotated
    by EXIF, transparent, grey, of 16 bits) or a box is given, as PNG of what it would show.
    """

    def records(self, items: Sequence[Row], manual_dir: Path | None) -> Iterator[Record]:
        """Reads some pictures of one split, by several threads."""
        with ThreadPoolExecutor(threads.num_threads(None)) as pool:
            pictures = pool.map(lambda row: stored_picture(row.path, row.box), items)
            textures = pool.map(lambda row: stored_picture(row.texture) if row.texture else b"", items)
            for row, image, texture in zip(items, pictures, textures, strict=True):
                labels = {"pid": row.pid, "camid": row.camid, "name": row.name}
                yield {"image": image, "texture": texture, **labels, **self.extra_of(row)}

    def extra_of(self, row: Row) -> dict[str, str]:
        """The values of `extra_features` of a row."""
        return {}


def stored_picture(path: Path, box: tuple[float, float, float, float] | None = None) -> bytes:
    """An encoded picture whose plain pixels are what a viewer shows of a file, or of a box in it.

    Args:
      path: of the picture.
      box: x, y, w, h in pixels of the upright picture; what lies outside the picture is cut off.

    Raises:
      UserError: the file is no readable picture, or the box lies outside it.
    """
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as opened:
            opened.load()
            if box is None and _is_plain(opened):
                return content
            seen = picture_folder.as_seen(opened)
    except Exception as error:  # Pillow fails in many ways on damaged files
        why = getattr(error, "strerror", None) or "it is no picture, or damaged"
        raise UserError(f"{path} cannot be read ({why}); replace it, or take it out of the list") from error
    return encode_png(np.asarray(seen if box is None else seen.crop(_inside(box, seen.size, path))))


def _is_plain(picture: Image.Image) -> bool:
    """Whether a picture's pixels are what viewers show."""
    plain = picture.format in STORED_AS_THEY_ARE and picture.mode == "RGB" and not picture.has_transparency_data
    orientation = picture.getexif().get(picture_folder.EXIF_ORIENTATION, 1)
    return plain and getattr(picture, "n_frames", 1) == 1 and orientation == 1


def _inside(box: tuple[float, float, float, float], size: tuple[int, int], path: Path) -> crops.Box:
    """The pixels that a box touches in a picture of this size."""
    found = crops.inside(box, size)
    if found is None:
        raise UserError(
            f"{path}: the box {','.join(f'{number:g}' for number in box)} lies outside the picture of {size[0]} x "
            f"{size[1]} pixels; correct the list"
        )
    return found
