"""Boxes around people as trackers, detectors and annotators write them: MOT, COCO and YOLO.

    mot     a text file; a line `frame,id,x,y,w,h,score` for each box, as MOTChallenge's det.txt, gt.txt and results
    coco    a JSON file with `images` and `annotations`, or a list of results
    yolo    a folder with NAME.txt for each picture; a line `class x y w h`, relative to the picture's size and with x
            and y of the box's middle, for each box; then, if given, the score, then the id of its track

Only people are kept: classes 1, 2 and 7 of MOT's annotations, COCO's category `person`, YOLO's class 0. The others are
counted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from san_jax import files
from san_jax.data.frames import Frame, Frames
from san_jax.errors import UserError

FORMATS = ("mot", "coco", "yolo")
MOT_PEOPLE = {1: "pedestrians", 2: "people on vehicles", 7: "people who stand still"}
NOT_PEOPLE = "not people, by their class"
NAMED = 5  # categories that a message names
FARTHEST = 1e9  # pixels; larger numbers are mistakes
PERSON = 1  # COCO's own number, where a file does not name its categories


class Detection(NamedTuple):
    """A box around a person.

    Attributes:
      box: x, y, w, h in pixels, from the frame's left and top.
      score: of the detector; None if unknown.
      track: number or word for the person's track; "" if unknown.
      visible: share of the person that is visible; None if unknown.
      kind: why it is not a box of a person; "" for people.
    """

    box: tuple[float, float, float, float]
    score: float | None = None
    track: str = ""
    visible: float | None = None
    kind: str = ""


def read(file: Path, frames: Frames, *, form: str = "auto") -> list[tuple[Frame, list[Detection]]]:
    """The boxes in each frame, in the order of the frames.

    Args:
      file: the file or, for yolo, folder of boxes.
      frames: the frames to which it refers.
      form: one of FORMATS; or auto: yolo for a folder, coco for .json, else mot.

    Raises:
      UserError: it cannot be read, is not of this format, holds no boxes, or names a frame that does not exist.
    """
    form = _form_of(file) if form == "auto" else form
    found = {"mot": _read_mot, "coco": _read_coco, "yolo": _read_yolo}[form](file, frames)
    if not any(found.values()):
        raise UserError(f"{file} holds no boxes; give a file that does")
    return sorted(found.items())


def _form_of(file: Path) -> str:
    if file.is_dir():
        return "yolo"
    return "coco" if file.suffix.lower() == ".json" else "mot"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"{file} cannot be read ({why}); give a file of boxes") from error


def _numbers(words: Sequence[str], where: str, *, least: int, form: str) -> list[float]:
    """The numbers of a line; a UserError says where it is wrong."""
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise UserError(f"{where}: {','.join(words)[:60]!r} is no line of numbers; {form}") from error
    if len(numbers) < least:
        raise UserError(f"{where}: it has {len(numbers)} numbers, not {least} or more; {form}")
    return numbers


def _box(x: float, y: float, w: float, h: float, where: str) -> tuple[float, float, float, float]:
    if not all(abs(number) < FARTHEST for number in (x, y, w, h)) or w <= 0 or h <= 0:  # NaN, too
        raise UserError(f"{where}: the box {x:g},{y:g},{w:g},{h:g} has no area in a picture; correct or remove it")
    return x, y, w, h


def _frame(found: Frame | None, where: str, what: str, frames: Frames) -> Frame:
    if found is None:
        raise UserError(f"{where}: {frames.title} has no {what}; give the frames that the boxes belong to")
    return found


# ---- MOT


def _read_mot(file: Path, frames: Frames) -> dict[Frame, list[Detection]]:
    form = "a line of MOT is frame,id,x,y,w,h,score"
    found = defaultdict(list)
    for number, line in enumerate(_text(file).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        where = f"{file}: line {number}"
        values = _numbers(words, where, least=6, form=form)
        for word, value, what in zip(words, values[:2], ("a frame", "a track"), strict=False):
            if not value.is_integer():
                raise UserError(f"{where}: {word} is no number of {what}; {form}")
        frame = _frame(frames.numbered(int(values[0])), where, f"frame {words[0]}", frames)
        # Annotations have nine columns: behind the score, which says whether a line counts, the class and the visible
        # share. Detections and results have a place in the world there, ten columns, and mostly -1 for what is unknown.
        annotated = len(values) == 9
        found[frame].append(
            Detection(
                box=_box(*values[2:6], where),
                score=values[6] if len(values) > 6 and values[6] != -1 else None,
                track="" if values[1] < 0 else str(int(values[1])),
                visible=values[8] if annotated else None,
                kind=NOT_PEOPLE if annotated and values[7] not in MOT_PEOPLE else "",
            )
        )
    return found


# ---- COCO


def _read_coco(file: Path, frames: Frames) -> dict[Frame, list[Detection]]:
    try:
        content = files.parsed_json(_text(file))
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); give a file of boxes in COCO's format") from error
    try:
        named, annotations = _coco_parts(content)
        is_person = _coco_people(content, annotations)
        found = defaultdict(list)
        for number, one in enumerate(annotations):
            where = f"{file}: annotation {number}"
            frame = _coco_frame(one["image_id"], named, frames, where)
            track = one.get("track_id", one.get("instance_id"))
            found[frame].append(
                Detection(
                    box=_box(*_four(one["bbox"]), where),
                    score=None if one.get("score") is None else float(one["score"]),
                    track="" if track is None else str(track),
                    kind="" if is_person(one) else NOT_PEOPLE,
                )
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{file} is not in COCO's format ({what}); see docs/search.md") from error
    return found


def _four(bbox: Sequence[Any]) -> tuple[float, float, float, float]:
    x, y, w, h = map(float, bbox)
    return x, y, w, h


def _coco_parts(content: Any) -> tuple[Mapping[Any, str], list[Mapping[str, Any]]]:
    """File names by image_id, and the annotations; a list of results has no file names."""
    if isinstance(content, list):
        return {}, content
    return {image["id"]: image["file_name"] for image in content["images"]}, content["annotations"]


def _coco_people(content: Any, annotations: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], bool]:
    """Tells people from other things: by the name of the category, else by COCO's number, else all are people."""
    categories = content.get("categories") or [] if isinstance(content, Mapping) else []
    people = {one["id"] for one in categories if str(one["name"]).lower() in ("person", "people", "pedestrian")}
    if categories and not people:
        named = ", ".join(str(one["name"]) for one in categories[:NAMED])
        raise UserError(f"none of its categories is person ({named}); name that of people so")
    if not categories and len({one.get("category_id") for one in annotations}) > 1:
        people = {PERSON}
    # `iscrowd` marks boxes around groups.
    return lambda one: (not people or one.get("category_id") in people) and not one.get("iscrowd")


def _coco_frame(image: Any, named: Mapping[Any, str], frames: Frames, where: str) -> Frame:
    """The frame of an image_id: by its file name, or, in results, by the number or name that the id is."""
    if named:
        if image not in named:
            raise UserError(f"{where}: there is no image with the id {image!r}; correct the file")
        name = str(named[image]).replace("\\", "/")
        return _frame(frames.named(name) or _above(name, frames), where, f"picture {name}", frames)
    if isinstance(image, int):
        return _frame(frames.numbered(image), where, f"frame {image}", frames)
    return _frame(frames.named(str(image)), where, f"picture {image}", frames)


def _above(name: str, frames: Frames) -> Frame | None:
    """The frame of a name that begins above their folder: val/a.jpg in the folder val; or of an absolute path."""
    found = frames.named(name.rpartition("/")[2])
    fits = found and (name.startswith("/") or found.path.absolute().as_posix().endswith(f"/{name}"))
    return found if fits else None


# ---- YOLO


def _read_yolo(folder: Path, frames: Frames) -> dict[Frame, list[Detection]]:
    lines = list(_yolo_lines(folder))
    sixth = [values[5] for _, _, values in lines if len(values) == 6]
    # A sixth number alone is the score, or, if the scores were not saved, the track.
    is_track = all(value.is_integer() for value in sixth) and max(sixth, default=0) > 1
    found, sizes = defaultdict(list), {}
    for path, where, values in lines:
        frame = _frame(frames.named(path.stem), where, f"picture {path.stem}", frames)
        if frame not in sizes:
            sizes[frame] = frames.size(frame)
        if sizes[frame] is None:
            raise UserError(f"{frame.path} cannot be read, and its boxes are relative to its size; remove both")
        wide, tall = sizes[frame]
        _, x, y, w, h = values[:5]
        score, track = (None, values[5]) if is_track and len(values) == 6 else (*values[5:7], None, None)[:2]
        found[frame].append(
            Detection(
                box=_box((x - w / 2) * wide, (y - h / 2) * tall, w * wide, h * tall, where),
                score=score,
                track="" if track is None else str(int(track)),
                kind="" if values[0] == 0 else NOT_PEOPLE,
            )
        )
    return found


def _yolo_lines(folder: Path) -> Iterator[tuple[Path, str, list[float]]]:
    """File, place and numbers of every line of the .txt files of a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; YOLO's boxes are a folder of .txt files, one for each picture")
    paths = sorted(path for path in folder.glob("[!.]*.txt") if path.name != "classes.txt")
    if not paths:
        raise UserError(f"{folder} holds no .txt files; YOLO's boxes are a folder of them, one for each picture")
    for path in paths:
        for number, line in enumerate(_text(path).splitlines(), start=1):
            if line.strip():
                where = f"{path}: line {number}"
                values = _numbers(line.split(), where, least=5, form="a line of YOLO is class x y w h")
                if len(values) > 7 or not all(value.is_integer() for value in (values[0], *values[6:])):
                    raise UserError(f"{where}: it is no box; a line of YOLO is class x y w h, then score and id")
                if not all(-0.5 <= value <= 1.5 for value in values[1:5]):
                    raise UserError(f"{where}: x, y, w, h are not shares of the picture's size, 0 to 1; rescale them")
                yield path, where, values
