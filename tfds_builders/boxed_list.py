"""Writes a list of the people in the frames of a folder, from a file of boxes with ids."""

from pathlib import Path

from san_jax.data import crops, frames
from san_jax.data.crops import Wanted
from san_jax.errors import UserError
from tfds_builders import people_list
from tfds_builders.people_list import Row
from tfds_builders.record import whole_label


def write(output: Path, folder: Path, boxes: Path, *, camid: str = "0", wanted: Wanted = Wanted()) -> list[str]:  # noqa: B008
    """Writes the list; the ids of the boxes are its pids.

    Args:
      output: the list, .csv.
      folder: folder of the frames.
      boxes: file or folder of boxes, in one of the formats of `san_jax.data.boxes`.
      camid: the camera that took the frames.
      wanted: which boxes are listed, and with which margin.

    Returns:
      Lines that say what was written and what was left out.

    Raises:
      UserError: the frames or boxes cannot be read or do not fit each other, a box has no id, or the list exists.
    """
    if output.suffix.lower() != ".csv":
        raise UserError(f"--list is {output}, which does not end in .csv; choose another name")
    if output.exists():
        raise UserError(f"{output} exists; delete it or choose another name")
    if frames.is_video(folder):
        raise UserError(f"{folder} is a video, and lists name files; write its frames into a folder first")
    found = crops.in_boxes(folder, boxes, wanted=wanted)
    if nameless := [crop for crop in found.crops if not crop.track]:
        raise UserError(f"{boxes}: {nameless[0].label} has no id, so who it shows is unknown; give boxes of a tracker")
    camera = whole_label(camid, field="camid", name=str(output))
    rows = [
        Row(
            path=crop.frame.path,
            pid=whole_label(crop.track, field="pid", name=crop.label),
            camid=camera,
            name=crop.name,
            box=tuple(map(float, (left, top, right - left, bottom - top))),
        )
        for crop in found.crops
        for left, top, right, bottom in [crop.box]
    ]
    people_list.write(output, rows)
    people = len({row.pid for row in rows})
    return [*found.remarks, f"{output}: {len(rows)} pictures of {people} people"]
