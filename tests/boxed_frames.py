"""Frames with coloured people in them, and the boxes around these in each format."""

import json

import numpy as np
from PIL import Image

SIZE = WIDE, TALL = 200, 100
# frame, track, x, y, w, h, colour: two people, who come nearer from frame to frame
PEOPLE = [
    (1, 3, 10, 20, 20, 60, (250, 0, 0)),
    (1, 7, 120, 10, 30, 80, (0, 0, 250)),
    (2, 3, 20, 20, 20, 60, (250, 0, 0)),
    (2, 7, 110, 10, 30, 80, (0, 0, 250)),
]


def write_frames(folder, *, suffix=".png", people=PEOPLE):
    """Writes 000001.png and so on: people are rectangles in their colours on grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in sorted({number for number, *_ in people}):
        Image.fromarray(frame(number, people=people)).save(folder / f"{number:06d}{suffix}")
    return folder


def frame(number, *, people=PEOPLE):
    picture = np.full((TALL, WIDE, 3), 100, np.uint8)
    for shown, _, x, y, w, h, colour in people:
        if shown == number:
            picture[y : y + h, x : x + w] = colour
    return picture


def write_mot(path, *, tail=",1,1,1"):
    lines = [f"{number},{track},{x},{y},{w},{h}{tail}" for number, track, x, y, w, h, _ in PEOPLE]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_coco(path):
    images = [{"id": 10 + number, "file_name": f"{number:06d}.png"} for number in (1, 2)]
    annotations = [
        {"image_id": 10 + number, "category_id": 5, "bbox": [x, y, w, h], "track_id": track, "score": 0.9}
        for number, track, x, y, w, h, _ in PEOPLE
    ]
    people = [{"id": 5, "name": "person"}, {"id": 6, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": people}))
    return path


def write_yolo(folder, *, numbers=lambda track: ["0.9", str(track)]):
    """`numbers`: what follows the box in a line, by the track."""
    folder.mkdir()
    for number, track, x, y, w, h, _ in PEOPLE:
        box = [(x + w / 2) / WIDE, (y + h / 2) / TALL, w / WIDE, h / TALL]
        with open(folder / f"{number:06d}.txt", "a") as file:
            file.write(" ".join(["0", *map(str, box), *numbers(track)]) + "\n")
    return folder
