"""Pictures of a source decoded and resized once, to uint8 arrays that batches are gathered from."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from san_jax.batch import Source
from san_jax.data import threads
from san_jax.data.decoded_store import DecodedStore, key_of
from san_jax.errors import UserError

Rows = Sequence[int | np.integer] | Int[np.ndarray, "n"]
ROWS_AT_ONCE = 32  # pictures that a thread decodes before it asks for more


class Field(NamedTuple):
    """A picture of every record, and the height and width to which it is resized."""

    name: str
    height: int
    width: int


def decode(picture: bytes | UInt8[np.ndarray, "h w 3"], *, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of a record as RGB, resized with Pillow's bilinear filter.

    Raises:
      OSError, SyntaxError or ValueError: it cannot be read.
    """
    with Image.fromarray(picture) if isinstance(picture, np.ndarray) else Image.open(io.BytesIO(picture)) as opened:
        return np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def decode_into(targets: Mapping[str, UInt8[np.ndarray, "n _ _ 3"]], source: Source, rows: Rows) -> None:
    """Fills arrays, by field name, with the pictures of some records.

    Raises:
      UserError: a picture cannot be decoded; names it.
    """
    for place, row in enumerate(rows):
        record = source[int(row)]
        for field, target in targets.items():
            try:
                target[place] = decode(record[field], height=target.shape[1], width=target.shape[2])
            except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
                raise UserError(
                    f"{source.name}: the {field} of {record['name']} cannot be decoded ({error}); "
                    "delete the prepared data set and prepare it again"
                ) from error


def decode_rows(source: Source, fields: Sequence[Field], rows: Rows) -> dict[str, UInt8[np.ndarray, "n _ _ 3"]]:
    """The pictures of some records, by field name; raises as `decode_into`."""
    arrays = {field.name: np.empty((len(rows), field.height, field.width, 3), np.uint8) for field in fields}
    decode_into(arrays, source, rows)
    return arrays


def num_bytes(source: Source, fields: Sequence[Field]) -> int:
    """Size of the arrays of `decode_all`."""
    return sum(math.prod(_shape(source, field)) for field in fields)


def decode_all(
    source: Source, fields: Sequence[Field], *, workers: int | None, store: DecodedStore | None = None
) -> dict[str, UInt8[np.ndarray, "n H W 3"]]:
    """All pictures of a source by field name; read from the store if it has them, else decoded in threads.

    Args:
      source: the pictures.
      fields: what to decode.
      workers: threads, as for `threads.ahead`.
      store: where decoded pictures are kept, if the source has a digest; the arrays are then read-only files mapped
        into memory. Of several processes that share it, one decodes and the others wait.

    Raises:
      UserError: a picture cannot be decoded; names it.
    """
    options = dict(num_bytes=num_bytes(source, fields), workers=workers, store=store)
    return {field.name: _of_field(source, field, **options) for field in fields}


def _of_field(
    source: Source, field: Field, *, num_bytes: int, workers: int | None, store: DecodedStore | None
) -> np.ndarray:
    def fill(target: np.ndarray) -> None:
        _fill(target, source, field.name, workers=workers)

    shape = _shape(source, field)
    if store is not None and source.digest:
        options = dict(num_bytes=num_bytes, about={"source": source.name, "field": field.name}, workers=workers)
        kept = store.kept(key_of(source.digest, field.name, shape), shape, fill, **options)
        if kept is not None:
            return kept
    array = np.empty(shape, np.uint8)
    fill(array)
    return array


def _shape(source: Source, field: Field) -> tuple[int, int, int, int]:
    return (len(source), field.height, field.width, 3)


def _fill(target: np.ndarray, source: Source, field: str, *, workers: int | None) -> None:
    """Decodes one field of all records in threads, with a progress bar on terminals."""
    blocks = [np.arange(first, min(first + ROWS_AT_ONCE, len(target))) for first in range(0, len(target), ROWS_AT_ONCE)]

    def one(rows: Int[np.ndarray, "_"]) -> int:
        decode_into({field: target[rows[0] : rows[-1] + 1]}, source, rows)
        return len(rows)

    hidden = None if jax.process_index() == 0 else True
    title = f"decoding {source.name}, {field}s"
    with tqdm(total=len(target), desc=title, unit=" pictures", dynamic_ncols=True, disable=hidden, leave=False) as bar:
        for done in threads.ahead(one, blocks, workers=workers):
            bar.update(done)
