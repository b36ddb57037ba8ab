"""Pseudo textures: textures that a trained generator (SAN-PG) decodes from the pictures of a folder or data set.

Each texture is a PNG file. If killed, a second call keeps complete files and generates missing or damaged ones.
"""

import dataclasses
import functools
import io
import itertools
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int, UInt8
from PIL import Image
from tqdm import tqdm

from san_jax import devices, files
from san_jax.batch import Source
from san_jax.data import decoded, picture_batches, picture_folder, threads
from san_jax.data.crops import Crop, Crops
from san_jax.data.picture_batches import PictureBatch, Reader
from san_jax.drawing import contact_sheet
from san_jax.drawing.contact_sheet import Cell
from san_jax.errors import UserError
from san_jax.model import Model, Weights, as_pixels, drawn_by
from san_jax.networks.architecture import Architecture

SIDE = 256  # pixels; size of the released textures and of all those written here, whatever the decoder's output size
DRAWN_BY = "drawn_by.json"  # names the generator of a folder's textures
PNG_END = b"IEND\xaeB`\x82"
PAIRS_IN_A_ROW = 4  # in the contact sheet


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures to generate textures for.

    Attributes:
      title: description of the whole set, for messages.
      names: unique name of each picture, without suffix; its texture is NAME.png, where slashes separate folders.
      labels: what messages call each picture.
      readers: fill an array with each picture, or return why they cannot; called from several threads.
      remarks: lines about what is left out.
    """

    title: str
    names: Sequence[str]
    labels: Sequence[str]
    readers: Sequence[Reader]
    remarks: Sequence[str] = ()

    @classmethod
    def of_source(cls, source: Source, *, split: str) -> "Pictures":
        """The pictures of one split of a data set, by their stored names."""
        encoded = [functools.partial(_encoded, source, row) for row in range(len(source))]
        readers = [functools.partial(picture_folder.decode_into, one) for one in encoded]
        return cls(f"{source.name} ({split})", source.names, source.names, readers)

    @classmethod
    def of_crops(cls, crops: Crops, *, output: Path) -> "Pictures":
        """The pictures of a folder, or boxes in its frames, by their relative paths and boxes.

        Args:
          crops: as `crops.in_folder` or `crops.in_boxes` returns them.
          output: folder for the textures; must be outside the folder of the pictures, or the next call would read them
            as pictures.

        Raises:
          UserError: two pictures have the same name, or `output` lies among the pictures.
        """
        by_name: dict[str, Crop] = {}
        for crop in crops.crops:
            name = crop.name if crop.box else PurePosixPath(crop.name).with_suffix("").as_posix()
            if (first := by_name.setdefault(name, crop)) is not crop:
                raise UserError(f"{first.label} and {crop.label} would share one texture file; rename one of them")
        if crops.folder and output.resolve().is_relative_to(crops.folder.resolve()):
            raise UserError(f"{output} lies in {crops.folder}, whose pictures are read; write the textures elsewhere")
        return cls(crops.title, list(by_name), [crop.label for crop in crops.crops], crops.readers(), crops.remarks)


def _encoded(source: Source, row: int) -> bytes:
    return source[row]["image"]


def textures(
    weights: Weights, images: UInt8[Array, "B H W 3"], *, architecture: Architecture, compute_dtype: str
) -> UInt8[Array, "B 256 256 3"]:
    """Textures decoded from pictures, with running statistics; resized bilinearly if the decoder's size differs."""
    drawn = drawn_by(weights, images, architecture=architecture, compute_dtype=compute_dtype)
    drawn = jax.image.resize(jnp.clip(drawn, -1, 1), (len(images), SIDE, SIDE, 3), "linear")
    return as_pixels(drawn)


def write_textures(
    generator: Model, pictures: Pictures, output: Path, *, batch_size: int = 64, workers: int | None = None
) -> dict[str, str]:
    """Writes the textures that are missing, each PNG atomically; shows the progress.

    Args:
      generator: model with a decoder.
      pictures: its input.
      output: folder for the textures of this generator only, shared by all processes.
      batch_size: pictures at once, over all devices; rounded up to a multiple of the number of devices.
      workers: threads that read pictures and write textures; None = one for each core.

    Returns:
      Label -> reason for every picture that cannot be read and gets no texture. The same on all processes.

    Raises:
      UserError: `output` cannot be written or holds another generator's textures; a prepared data set is damaged.
    """
    generator.check_draws()
    claim(output, generator)
    if jax.process_index() == 0:
        files.delete_abandoned(output)
    paths = [output / f"{name}.png" for name in pictures.names]
    failed: dict[int, str] = {}
    with ThreadPoolExecutor(threads.num_threads(workers)) as pool:
        # The first process decides which exist: others may look later and find textures that were written meanwhile.
        there = multihost_utils.broadcast_one_to_all(np.array(list(pool.map(is_whole, paths)), bool))
        _say(f"{pictures.title}: {len(there)} pictures, {there.sum()} have their textures")
        for remark in pictures.remarks:
            _say(remark)
        todo = np.flatnonzero(~there)
        with _bar(there) as bar:
            for rows, reasons, drawn in drawn_batches(generator, pictures, todo, batch_size=batch_size, pool=pool):
                failed |= reasons
                readable = [place for place, row in enumerate(rows) if row not in reasons]
                list(pool.map(_write, [paths[rows[place]] for place in readable], drawn[readable]))
                bar.update(min(devices.rounded_up(generator.mesh, batch_size), bar.total - bar.n))
    failed = of_all_processes(failed, pictures)
    _say(f"{output}: {len(there) - len(failed)} textures, {len(there) - there.sum() - len(failed)} of them new")
    return {pictures.labels[row]: why for row, why in failed.items()}


def of_all_processes(failed: dict[int, str], pictures: Pictures) -> dict[int, str]:
    """Row -> reason for the pictures that some process could not read; waits for all processes."""
    here = np.isin(np.arange(len(pictures.names)), list(failed))
    anywhere = np.flatnonzero(multihost_utils.process_allgather(here).reshape(-1, len(here)).any(axis=0)).tolist()
    # Processes exchange flags, not texts: a picture that another one could not read is read again for the reason.
    return {row: failed.get(row) or pictures.readers[row](np.empty((1, 1, 3), np.uint8)) or "?" for row in anywhere}


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)


def drawn_batches(
    generator: Model, pictures: Pictures, rows: Int[np.ndarray, "n"], *, batch_size: int, pool: Executor
) -> Iterator[tuple[Int[np.ndarray, "local"], dict[int, str], UInt8[np.ndarray, "local 256 256 3"]]]:
    """Textures of some pictures in batches; of each batch, the part that this process has read.

    Args:
      generator: model with a decoder.
      pictures: its input.
      rows: rows of the pictures.
      batch_size: pictures at once, over all devices.
      pool: threads that read and decode.

    Yields:
      The rows that this process was to read, row -> reason for those that it could not read, and the textures; those
      of unreadable pictures are decoded from black pictures.
    """
    readers = [pictures.readers[row] for row in rows.tolist()]
    architecture, total = generator.architecture, len(pictures.names)  # a call that was killed ends with the same bits
    size = dict(height=architecture.height, width=architecture.width, batch_size=batch_size, total=total)
    read: deque[PictureBatch] = deque()

    def images() -> Iterator[tuple[Array]]:
        for batch in picture_batches.batches(readers, mesh=generator.mesh, pool=pool, **size):
            read.append(batch._replace(images=None))
            yield (batch.images,)

    for drawn in generator.over(textures, images()):
        batch = read.popleft()
        local = devices.local_rows(generator.mesh, len(drawn))
        local = local[batch.start + local < len(rows)]
        reasons = {int(rows[number]): why for number, why in batch.reasons.items()}
        yield rows[batch.start + local], reasons, drawn[local]


def _write(path: Path, texture: np.ndarray) -> None:
    """Writes a PNG at the compression level that takes a fifth of the default's time for a sixth more bytes."""
    png = io.BytesIO()
    Image.fromarray(texture).save(png, "PNG", compress_level=1)
    files.write(path, png.getvalue())


def _bar(there: np.ndarray) -> tqdm:
    """A progress bar on terminals; counts existing textures."""
    hidden = None if jax.process_index() == 0 else True
    return tqdm(total=len(there), initial=int(there.sum()), unit=" pictures", dynamic_ncols=True, disable=hidden)


def is_whole(path: Path) -> bool:
    """Whether a file is a complete and undamaged texture image, by its size, checksums and end."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
            return (image.format, image.mode, image.size) == ("PNG", "RGB", (SIDE, SIDE)) and content.endswith(PNG_END)
    except Exception:  # Pillow fails in many ways on damaged files
        return False


def claim(output: Path, generator: Model) -> None:
    """Records in a folder which generator its textures come from.

    Raises:
      UserError: the folder cannot be written, or holds textures of another origin, which would be kept as complete.
    """
    path, digest = output / DRAWN_BY, generator.digest(*generator.weights)
    try:
        found = files.read_json(path)
        if found["weights"] != digest:
            raise UserError(
                f"{output} holds textures by {found['checkpoint']}, not by {generator.source}; "
                "delete that folder, or write the textures somewhere else"
            )
    except (FileNotFoundError, NotADirectoryError):
        if (stranger := next(output.rglob("[!.]*.png"), None)) is not None:
            raise UserError(
                f"{output} holds {stranger.relative_to(output)} but no {DRAWN_BY}: this PNG is of another origin and "
                "would be kept as a texture; write the textures somewhere else"
            ) from None
        if jax.process_index() == 0:
            found = {"checkpoint": str(generator.source), "weights": digest}
            files.write(path, json.dumps(found, indent=2) + "\n")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); write the textures somewhere else") from error


def sheet_of(
    generator: Model, pictures: Pictures, output: Path, *, count: int = 24, seed: int = 0
) -> UInt8[np.ndarray, "H W 3"] | None:
    """A contact sheet of some pictures at network size, each next to its texture; None if there is no texture.

    Args:
      generator: the model that generated the textures.
      pictures: its input.
      output: folder of the textures.
      count: number of pictures on the sheet.
      seed: seed of their random choice.
    """
    drawn = np.random.default_rng(seed).permutation(len(pictures.names))
    drawn = list(itertools.islice((row for row in drawn if is_whole(output / f"{pictures.names[row]}.png")), count))
    cells = []
    for row in sorted(drawn):  # a video is read once, from its start
        path = output / f"{pictures.names[row]}.png"
        picture = np.empty((generator.architecture.height, generator.architecture.width, 3), np.uint8)
        if not pictures.readers[row](picture):
            texture = decoded.decode(path.read_bytes(), height=SIDE, width=SIDE)
            cells += [Cell(picture), Cell(texture, caption=pictures.names[row])]
    wide = 2 * PAIRS_IN_A_ROW
    rows = [cells[start : start + wide] for start in range(0, len(cells), wide)]
    return contact_sheet.compose(rows, title=f"{pictures.title}: pictures and their textures") if rows else None
