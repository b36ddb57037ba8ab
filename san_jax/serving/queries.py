"""Pictures that visitors search for: decoded, cut and embedded; the last ones are kept in memory, none on disk."""

import io
import secrets
import threading
import warnings
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageFile

from san_jax.data import picture_folder
from san_jax.data.crops import Box
from san_jax.model import Model
from san_jax.serving.guard import Refused
from san_jax.serving.turns import Turns

MOST_BYTES = 20_000_000  # of an upload
MOST_PIXELS = 50_000_000  # of an upload: 150 MB when it is decoded
MOST_KEPT, MOST_KEPT_BYTES = 200, 300_000_000
PREVIEW = 1600  # pixels; the longest side of what the page shows of an upload
SMALLEST = 8  # pixels; a side of a box
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")  # what cameras and browsers write


class Query(NamedTuple):
    """A picture that is searched for.

    Attributes:
      name: of its file, as the visitor's browser calls it.
      content: of its file.
      size: width and height of the whole picture, upright, in pixels.
      box: the part that shows the person; None for the whole picture.
      preview: the whole picture as JPEG, its longest side at most PREVIEW.
      feats: its features.
    """

    name: str
    content: bytes
    size: tuple[int, int]
    box: Box | None
    preview: bytes
    feats: Float32[np.ndarray, "D"]

    def person(self) -> Image.Image:
        """The part that shows the person, in its own size."""
        picture = _decoded(self.content)
        return picture.crop(self.box) if self.box else picture


class Queries:
    """The last queries, by names that cannot be guessed.

    Args:
      model: computes their features.
      turns: shared with other threads that compute.
      flip: as in `Model.features`.
    """

    def __init__(self, model: Model, turns: Turns, *, flip: bool = False):
        self._model, self._turns, self._flip = model, turns, flip
        self._kept: OrderedDict[str, Query] = OrderedDict()
        self._lock, self._decoding = threading.Lock(), threading.Lock()
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `size_of` refuses smaller ones

    def add(self, content: bytes, *, name: str, box: Box | None = None) -> str:
        """Embeds a picture and returns its name here.

        Args:
          content: of the file.
          name: of the file, for tables and sheets.
          box: in pixels of the upright picture; None for the whole picture.

        Raises:
          Refused: it cannot be read, or is too large, or the box is not in it.
        """
        size = size_of(content)
        with self._decoding:  # one at a time: each takes up to 300 MB
            try:
                picture = _decoded(content)
            except Exception as error:  # Pillow fails in many ways on damaged files
                raise _unreadable(error) from error
            preview = _jpeg(picture, PREVIEW)
            person = picture.crop(_checked(box, size)) if box else picture
            return self._keep(Query(name, content, size, box, preview, self._feats(person)))

    def add_part(self, key: str, box: Box | None) -> str:
        """A query for another part of the picture of a query; arguments, result and errors as of `add` and `get`."""
        whole = self.get(key)
        with self._decoding:
            picture = _decoded(whole.content)
            person = picture.crop(_checked(box, whole.size)) if box else picture
            return self._keep(whole._replace(box=box, feats=self._feats(person)))

    def get(self, key: str) -> Query:
        """A query by its name; raises a Refused if it is not kept any more."""
        with self._lock:
            if key not in self._kept:
                raise Refused(404, "this picture is not kept any more; choose it again")
            self._kept.move_to_end(key)
            return self._kept[key]

    def drop(self, key: str) -> None:
        """Forgets a query, if it is there."""
        with self._lock:
            self._kept.pop(key, None)

    def _feats(self, person):
        with self._turns.first():
            return self._model.features([person], flip=self._flip)[0]

    def _keep(self, query: Query) -> str:
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[key] = query
            while len(self._kept) > MOST_KEPT or self._num_bytes() > MOST_KEPT_BYTES:
                self._kept.popitem(last=False)
        return key

    def _num_bytes(self):
        return sum(len(query.content) + len(query.preview) for query in self._kept.values())


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height of a picture as a viewer shows it, from its header, without decoding it.

    Raises:
      Refused: it is no picture of a kind in FORMATS, or has more than MOST_PIXELS.
    """
    try:
        with _opened(content) as found:
            size = found.size
            is_small = size[0] * size[1] <= MOST_PIXELS
            # Not of a large one: of a PNG file it decodes the picture, behind which EXIF may stand.
            turned = is_small and found.getexif().get(picture_folder.EXIF_ORIENTATION, 1) in picture_folder.TURNED
    except Image.DecompressionBombError:
        is_small = False
    except Exception as error:  # as in `Queries.add`
        raise _unreadable(error) from error
    if not is_small:
        raise Refused(413, f"this picture has more than {MOST_PIXELS // 1_000_000} million pixels; give a smaller one")
    return size[::-1] if turned else size


def _opened(content: bytes) -> ImageFile.ImageFile:
    Image.init()  # the installed Pillow may lack one of the formats
    return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])


def _decoded(content: bytes) -> Image.Image:
    with _opened(content) as picture:
        return picture_folder.as_seen(picture)


def _unreadable(error: Exception) -> Refused:
    return Refused(422, f"this picture cannot be read ({picture_folder.reason(error)}); give another one")


def _checked(box: Box, size: tuple[int, int]) -> Box:
    """The box; raises a Refused if it is not one of a picture of this size."""
    left, top, right, bottom = box
    inside = left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]
    if not inside or right - left < SMALLEST or bottom - top < SMALLEST:
        raise Refused(422, f"the box must lie in the picture and be {SMALLEST} pixels wide and high; draw another one")
    return box


def _jpeg(picture: Image.Image, longest: int) -> bytes:
    """The picture as JPEG, at most `longest` pixels wide and high."""
    small = picture.copy() if max(picture.size) <= longest else picture
    if small is picture:
        share = longest / max(picture.size)
        small = picture.resize([max(1, round(share * side)) for side in picture.size], reducing_gap=2)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=88)
    return encoded.getvalue()
