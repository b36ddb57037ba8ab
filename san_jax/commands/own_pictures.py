"""Pictures that a command is given by path: a file, a folder, a list, or frames with boxes; and the flags for boxes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from san_jax.data import boxes, crops, frames
from san_jax.data.crops import Crop, Crops, Wanted
from san_jax.data.frames import Frame
from san_jax.errors import UserError

LISTS = (".csv", ".tsv")  # as `people_list.SUFFIXES`, whose import would take half a second for folders, too
DEFAULT = Wanted()


def define_box_flags(*, of: str, named_by: str = "--boxes") -> dict[str, flags.FlagHolder]:
    """Defines the flags for boxes; `of` is the flag that names the frames, `named_by` those that name boxes."""
    text, number = flags.DEFINE_string, flags.DEFINE_float
    return {
        "boxes": text(
            "boxes", None, f"Boxes around people in the frames of {of}: a file of MOT or COCO, or YOLO's folder."
        ),
        "boxes_format": flags.DEFINE_enum("boxes_format", "auto", ("auto", *boxes.FORMATS), f"Format of {named_by}."),
        "margin": number(
            "margin", None, f"Added to boxes on every side, as a share of their size. Default: {DEFAULT.margin:g}."
        ),
        "min_score": number("min_score", None, f"Leave out boxes with a lower score. Default: {DEFAULT.min_score:g}."),
        "min_height": number(
            "min_height", None, f"Leave out boxes that are lower, in pixels. Default: {DEFAULT.min_height:g}."
        ),
        "min_visible": number(
            "min_visible", None,
            f"Leave out boxes that show less of the person, where they say so. Default: {DEFAULT.min_visible:g}.",
        ),
    }  # fmt: skip


def check_box_flags(given: Mapping[str, Any], *others: str) -> None:
    """Raises a UserError if a flag for boxes, or one of `others`, is given and nothing names boxes."""
    if any(given.get(name) for name in ("boxes", "query_boxes")):
        wanted_of(given).check()
        return
    for name in (*Wanted._fields, *others):
        if given[name] is not None and given[name] is not False:
            raise UserError(f"--{name} is about boxes, and there are none; give --boxes, too")
    if given["boxes_format"] != "auto":
        raise UserError("--boxes_format is given without --boxes; give --boxes, too")


def wanted_of(given: Mapping[str, Any]) -> Wanted:
    """Which boxes are cut out, by the flags."""
    return Wanted(**{name: given[name] for name in Wanted._fields if given[name] is not None})


def open_crops(
    place: Path, file: str | None, given: Mapping[str, Any], *, flag: str, one_will_do: bool = False
) -> Crops:
    """The pictures at a path.

    Args:
      place: a folder, a list, or, with boxes, a folder of frames or a video.
      file: of boxes; None for whole pictures.
      given: the flags for boxes.
      flag: the one that names the boxes, for messages.
      one_will_do: whether the path may also be that of one picture.

    Raises:
      UserError: it cannot be read, or holds no pictures.
    """
    if file:
        if is_list(place):
            raise UserError(f"{place} is a list, which has its own boxes in the columns x, y, w, h; leave out {flag}")
        return crops.in_boxes(place, Path(file), form=given["boxes_format"], wanted=wanted_of(given))
    if frames.is_video(place):
        raise UserError(f"{place} is a video; say where people are in its frames by {flag}")
    if is_list(place):
        return of_list(place)
    return crops.of_file(place) if one_will_do and not os.path.isdir(place) else crops.in_folder(place)


def is_list(place: Path) -> bool:
    """Whether a path is that of a list, by its suffix."""
    return place.suffix.lower() in LISTS and not os.path.isdir(place)


def of_list(path: Path) -> Crops:
    """The pictures of a list, with their boxes, cameras and times."""
    from tfds_builders import people_list

    listed = people_list.read(path)
    sizes = {picture: crops.size_of(picture) for picture in {row.path for row in listed.rows if row.box}}
    found = []
    for row in listed.rows:
        box = crops.inside(row.box, sizes[row.path]) if row.box else None
        if row.box and not box:
            raise UserError(f"{path}: the box of {row.name} lies outside its picture; correct the list")
        found.append(Crop(Frame(row.path), row.name, box, camid=str(row.camid), time=row.time))
    return Crops(str(path), tuple(found), listed.remarks)
