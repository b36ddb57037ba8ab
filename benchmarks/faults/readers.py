"""Every kind of file that the product reads: how a good one is made, and a digest of what is read from it."""

import dataclasses
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.faults import mutator
from benchmarks.faults.jobs import ROOT, digest

sys.path.insert(0, str(ROOT / "tests"))

import boxed_frames
import cuhk03_release
import runs
import torch_saves

import tfds_builders
from configs import baseline
from san_jax import files, model
from san_jax.data import boxes, crops, frames
from san_jax.data.decoded_store import DecodedStore
from san_jax.errors import UserError
from san_jax.gallery import feature_index, index_files
from san_jax.report import event_files
from san_jax.training import run_config
from san_jax.training.curves import Curves
from san_jax.weights import torch_files
from tfds_builders import people_list

CUHK03 = "cuhk03/labeled"
STORED_SHAPE = 40, 32, 16, 3


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
      make: writes a good one into an empty folder; a file has its name in there.
      read: the digest of what is read from the folder; raises what the product raises.
      damaged: glob pattern of the files that are damaged.
      guarded: whether the format or the product has checksums, so that no damage may go unnoticed. Without them, a
        damaged file may be a good one with other content.
      command: the words of a command that reads it, after `python`, for the folder and a second one for output.
      change: damages a file.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], str]
    damaged: str
    guarded: bool
    command: Callable[[Path, Path], Sequence[str]]
    change: Callable[[Path, random.Random], str] = mutator.change

    def copy(self, good: Path, to: Path, rng: random.Random) -> str:
        """Copies a good folder and damages one of its files; returns which, and how."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(good, to)
        victims = sorted(path for path in to.rglob(self.damaged) if path.is_file() and path.stat().st_size)
        victim = rng.choice(victims)
        return f"{victim.relative_to(to)}: {self.change(victim, rng)}"


# ---- sets of pictures


def make_prepared(folder: Path) -> None:
    """A prepared set."""
    with tempfile.TemporaryDirectory() as release:
        cuhk03_release.write_release(Path(release))
        tfds_builders.prepare(CUHK03, data_dir=folder, manual_dir=release)


def read_release(folder: Path) -> str:
    """All records of CUHK03, prepared from its release."""
    with tempfile.TemporaryDirectory() as data:
        return records_of(Path(data), manual_dir=folder)


def records_of(data_dir: Path, *, manual_dir: Path | str = "") -> str:
    """All records of CUHK03 in a data_dir."""
    found = []
    for split in ("train", "query", "gallery"):
        source = tfds_builders.open_source(CUHK03, split, data_dir=data_dir, manual_dir=manual_dir)
        for row in range(len(source)):
            record = source[row]
            found.append([split, *(digest(repr(record[name]).encode()) for name in sorted(record))])
    return digest(json.dumps(found).encode())


def read_pictures(folder: Path) -> str:
    """The pictures of a folder, decoded; an unreadable one is an error, as when it is a query."""
    found = crops.in_folder(folder)
    pixels = np.zeros((len(found), 64, 32, 3), np.uint8)
    for crop, read, into in zip(found.crops, found.readers(), pixels, strict=True):
        if why := read(into):
            raise UserError(f"cannot read {crop.name} ({why}); give another --query")
    return digest(pixels.tobytes())


def make_pictures(suffix: str) -> Callable[[Path], None]:
    """Writes three pictures in a format."""
    return lambda folder: runs.write_pictures(folder, [f"{name}{suffix}" for name in "abc"]) and None


def read_store(folder: Path) -> str:
    """The entry of a store of decoded pictures, which is decoded again if it is damaged."""
    kept = DecodedStore(folder, max_bytes=1 << 30).kept(
        "a" * 32, STORED_SHAPE, fill_store, num_bytes=int(np.prod(STORED_SHAPE)), about={"source": "test"}, workers=1
    )
    return digest(np.asarray(kept).tobytes())


def fill_store(into: np.ndarray) -> None:
    """What decoding would give."""
    into[:] = np.random.default_rng(0).integers(0, 256, STORED_SHAPE)


# ---- networks


def make_run(folder: Path) -> None:
    """A run with one checkpoint, its config, and the set that this names."""
    runs.save_run(folder, mode="san")
    make_prepared(folder / "data")
    config = baseline.get_config("small")
    config.data.train, config.data.data_dir = CUHK03, str(folder / "data")
    files.write(folder / run_config.NAME, config.to_json(indent=2) + "\n")


def make_weights(name: str) -> Callable[[Path], None]:
    """Exports a network to a file."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as run:
            made = model.load(runs.save_run(Path(run), mode="san"))
            made.save(folder / ("net.pth" if name == "net.legacy" else name))
        if name == "net.legacy":
            tensors = torch_files.read_tensors_file(folder / "net.pth")
            tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items() if np.ndim(value)}
            torch_saves.save_stream(folder / name, torch_saves.as_saved(tensors))
            (folder / "net.pth").unlink()

    return make


def read_weights(name: str) -> Callable[[Path], str]:
    """The tensors of a file, and its networks if it describes them."""

    def read(folder: Path) -> str:
        if name == "net.legacy":
            tensors = torch_files.read_tensors_file(folder / name)
            return digest_of(tensors)
        return digest_of(model.load(folder / name).weights)

    return read


def read_run(folder: Path) -> str:
    """The networks of a run."""
    return digest_of(model.load(folder).weights)


def digest_of(tree: object) -> str:
    """The digest of the arrays in a tree, and of what else is in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return digest(repr([(jax.tree_util.keystr(path), np.asarray(leaf).tobytes()) for path, leaf in leaves]).encode())


# ---- galleries


def gallery() -> Path:
    """Pictures to search and to draw textures for, in a place that all processes share."""
    place = Path(tempfile.gettempdir()) / "faults_gallery"
    if not place.exists():
        runs.write_pictures(place, [f"{number}.png" for number in range(12)])
    return place


def read_index(kind: index_files.Kind) -> Callable[[Path], str]:
    """The features of a gallery by an index, which is built again where it is damaged, and what a search finds."""

    def read(folder: Path) -> str:
        loaded = model.load("rendered-small")
        index, _ = feature_index.update(folder / "index", crops.in_folder(gallery()), loaded, kind=kind)
        found = index.ready(loaded.mesh).nearest(index.feats[:1], k=3)
        return digest(repr((index.names, found.rows.tolist())).encode() + index.feats.tobytes())

    return read


# ---- texts


def make_list(folder: Path) -> None:
    """A list of pictures."""
    runs.write_pictures(folder, [f"{pid}_{camid}.png" for pid in range(6) for camid in range(2)])
    lines = [f"{pid}_{camid}.png,{pid},{camid},2026-01-01T12:00:0{pid}" for pid in range(6) for camid in range(2)]
    (folder / "people.csv").write_text("\n".join(["path,pid,camid,time", *lines]) + "\n")


def make_boxes(form: str) -> Callable[[Path], None]:
    """Frames, and the boxes of the people in them."""

    def make(folder: Path) -> None:
        boxed_frames.write_frames(folder / "frames")
        writers = {"mot.txt": boxed_frames.write_mot, "coco.json": boxed_frames.write_coco}
        writers.get(form, boxed_frames.write_yolo)(folder / form)

    return make


def read_boxes(form: str) -> Callable[[Path], str]:
    """The boxes in frames."""
    return lambda folder: repr(boxes.read(folder / form, frames.open_frames(folder / "frames")))


def make_events(folder: Path) -> None:
    """The curves of a run."""
    curves = Curves(folder, start=0, say=print)
    for step in range(200):
        curves.scalar("loss/id", 1 / (step + 1), step)
    curves.close()


def searching(*words: str) -> list[str]:
    """A search with the network in the package."""
    return ["search.py", "--checkpoint=rendered-small", "--top=3", *words]


def searched(out: Path, *words: str) -> list[str]:
    """A search for one picture of a gallery, with an index of its own."""
    query = gallery() / "0.png"
    return searching(f"--query={query}", f"--index={out / 'index'}", f"--sheet={out / 'sheet.png'}", *words)


def drawing(folder: Path, out: Path, name: str) -> list[str]:
    """Textures by a network."""
    return ["generate_textures.py", f"--checkpoint={folder / name}", f"--input={gallery()}", f"--output={out}"]


def prepared_by(folder: Path, out: Path) -> list[str]:
    """Preparation of CUHK03."""
    return ["-m", "tfds_builders", CUHK03, f"--manual_dir={folder}", f"--data_dir={out}"]


def scoring(folder: Path, out: Path) -> list[str]:
    """The scores of the network in the package on a prepared set."""
    words = f"--data={CUHK03}", f"--data_dir={folder}", f"--output={out / 'scores.json'}"
    return ["eval.py", "--checkpoint=rendered-small", *words]


def boxed(form: str) -> Callable[[Path, Path], Sequence[str]]:
    """A search in frames."""
    return lambda folder, out: searched(
        out, f"--gallery={folder / 'frames'}", f"--boxes={folder / form}"
    )


def picture_kind(suffix: str) -> Kind:
    """Pictures of a format; neither Pillow nor the formats themselves notice all damage."""
    return Kind(
        make_pictures(suffix), read_pictures, f"*{suffix}", False,
        lambda folder, out: searched(out, f"--gallery={folder}"),
    )  # fmt: skip


def weights_kind(name: str, *, guarded: bool, change: Callable = mutator.change) -> Kind:
    """A file of weights."""
    return Kind(
        make_weights(name), read_weights(name), name, guarded, lambda folder, out: drawing(folder, out, name), change
    )


def boxes_kind(form: str, damaged: str) -> Kind:
    """Boxes of a format."""
    return Kind(make_boxes(form), read_boxes(form), damaged, False, boxed(form))


def index_kind(*words: str) -> Kind:
    """An index, with flags of search.py."""
    read = read_index(index_files.Kind(**dict.fromkeys(words, True)))
    return Kind(
        lambda folder: read(folder) and None, read, "index/*", True,
        lambda folder, out: searching(
            f"--query={gallery() / '0.png'}", f"--gallery={gallery()}", f"--index={folder / 'index'}",
            f"--sheet={out / 'sheet.png'}", *(f"--{word}" for word in words),
        ),
    )  # fmt: skip


def write_release(folder: Path) -> None:
    """A stand-in for CUHK03."""
    cuhk03_release.write_release(folder)


KINDS = {
    "cuhk-03.mat": Kind(write_release, read_release, "cuhk-03.mat", False, prepared_by),
    "protocol .mat": Kind(write_release, read_release, "*labeled.mat", False, prepared_by),
    "prepared records": Kind(
        make_prepared, records_of, "*array_record*", True,
        scoring,
    ),
    "a prepared set's descriptions": Kind(
        make_prepared, records_of, "*.json", False,
        scoring,
    ),
    "PNG": picture_kind(".png"),
    "JPEG": picture_kind(".jpg"),
    "WebP": picture_kind(".webp"),
    ".pth, archive": weights_kind("net.pth", guarded=True),
    ".pth, archive with new checksums": weights_kind("net.pth", guarded=False, change=mutator.change_entry),
    ".pth, older stream": weights_kind("net.legacy", guarded=False),
    ".safetensors": weights_kind("net.safetensors", guarded=False),
    "checkpoint": Kind(
        make_run, read_run, "checkpoints/**/*", True, lambda folder, out: drawing(folder, out, ""),
    ),
    "config.json": Kind(
        make_run, lambda folder: digest(run_config.read(folder).to_json().encode()), run_config.NAME, False,
        lambda folder, out: ["eval.py", f"--workdir={folder}"],
    ),
    "index": index_kind(),
    "index in half precision": index_kind("half"),
    "decoded pictures": Kind(lambda folder: read_store(folder) and None, read_store, "*", True, None),
    "list": Kind(
        make_list, lambda folder: repr(people_list.read(folder / "people.csv").rows), "people.csv", False,
        lambda folder, out: ["-m", "tfds_builders", str(folder / "people.csv"), f"--data_dir={out}"],
    ),
    "boxes, MOT": boxes_kind("mot.txt", "mot.txt"),
    "boxes, COCO": boxes_kind("coco.json", "coco.json"),
    "boxes, YOLO": boxes_kind("yolo", "yolo/*.txt"),
    "curves": Kind(make_events, lambda folder: repr(event_files.read_scalars(folder)), "*tfevents*", False, None),
}  # fmt: skip


def make_all(place: Path) -> Iterable[tuple[str, Path]]:
    """Good inputs of every kind, each in a folder of its own: names and folders."""
    for number, (name, kind) in enumerate(KINDS.items()):
        folder = place / f"{number:02d}"
        if not folder.exists():
            folder.mkdir(parents=True)
            kind.make(folder)
        yield name, folder
