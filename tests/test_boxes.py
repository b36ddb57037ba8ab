import json

import boxed_frames
import numpy as np
import pytest
from boxed_frames import PEOPLE, write_coco, write_frames, write_mot, write_yolo

from san_jax.data import boxes
from san_jax.data.frames import Folder
from san_jax.errors import UserError


@pytest.fixture
def frames(tmp_path):
    return Folder(write_frames(tmp_path / "frames"))


def flat(found):
    return [(frame.path.stem, one) for frame, of_frame in found for one in of_frame]


@pytest.mark.parametrize(("form", "score"), [("mot", 1.0), ("coco", 0.9), ("yolo", 0.9)])
def test_every_format_gives_the_same_boxes_and_is_recognised(form, score, frames, tmp_path):
    write = {"mot": write_mot, "coco": write_coco, "yolo": write_yolo}[form]
    file = write(tmp_path / {"mot": "gt.txt", "coco": "boxes.json", "yolo": "labels"}[form])
    for asked in (form, "auto"):
        found = flat(boxes.read(file, frames, form=asked))
        assert [name for name, _ in found] == ["000001", "000001", "000002", "000002"]
        assert [one.track for _, one in found] == ["3", "7", "3", "7"]
        np.testing.assert_allclose([one.box for _, one in found], [person[2:6] for person in PEOPLE], atol=1e-9)
        assert {one.score for _, one in found} == {score}
        assert {one.kind for _, one in found} == {""}


@pytest.mark.parametrize(
    ("tail", "score", "visible", "is_person"),
    [
        (",1,1,0.25", 1.0, 0.25, True),  # MOT17's annotations
        (",0,9,0.5", 0.0, 0.5, False),
        (",0.7,-1,-1,-1", 0.7, None, True),  # detections and results
        (",-1,-1,-1,-1", None, None, True),  # results of most trackers
        (",0.7,3.5,8.25,0", 0.7, None, True),  # with a place in the world
        (",0.7", 0.7, None, True),
        ("", None, None, True),
    ],
)
def test_columns_of_mot_are_those_of_annotations_or_of_detections(tail, score, visible, is_person, frames, tmp_path):
    [(_, one), *_] = flat(boxes.read(write_mot(tmp_path / "gt.txt", tail=tail), frames))
    assert (one.score, one.visible, one.kind == "") == (score, visible, is_person)


def test_negative_id_in_mot_is_no_track_and_spaces_separate_as_well(frames, tmp_path):
    (tmp_path / "det.txt").write_text("2 -1 20 20 20 60 0.5\n\n1,3.0,10,20,20,60,0.5\n")
    assert [(name, one.track) for name, one in flat(boxes.read(tmp_path / "det.txt", frames))] == [
        ("000001", "3"),
        ("000002", ""),
    ]


@pytest.mark.parametrize(
    ("numbers", "score", "track"),
    [
        (lambda track: [], None, ""),
        (lambda track: [str(track)], None, "3"),  # tracks without scores
        (lambda track: ["0.25"], 0.25, ""),
        (lambda track: ["1"], 1.0, ""),
        (lambda track: ["0.25", str(track)], 0.25, "3"),
    ],
)
def test_numbers_behind_a_yolo_box_are_score_and_track(numbers, score, track, frames, tmp_path):
    [(_, one), *_] = flat(boxes.read(write_yolo(tmp_path / "labels", numbers=numbers), frames))
    assert (one.score, one.track) == (score, track)


def test_large_ids_stay_apart(frames, tmp_path):
    labels = write_yolo(tmp_path / "labels", numbers=lambda track: ["0.5", str(1234560 + track)])
    assert [one.track for _, one in flat(boxes.read(labels, frames))][:2] == ["1234563", "1234567"]


@pytest.mark.parametrize("name", ["frames/000001.png", "000001.png", "/elsewhere/000001.png"])
def test_file_name_of_coco_may_begin_above_the_folder(name, frames, tmp_path):
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    assert [found for found, _ in flat(boxes.read(tmp_path / "boxes.json", frames))] == ["000001"]


def test_hidden_files_of_yolo_are_skipped(frames, tmp_path):
    labels = write_yolo(tmp_path / "labels")
    (labels / "._000001.txt").write_bytes(b"\0\1")
    assert len(flat(boxes.read(labels, frames))) == 4


def test_other_classes_are_no_people(frames, tmp_path):
    labels = write_yolo(tmp_path / "labels")
    (labels / "000002.txt").write_text("2 0.5 0.5 0.1 0.1\n")
    assert [one.kind == "" for _, one in flat(boxes.read(labels, frames))] == [True, True, False]
    content = json.loads(write_coco(tmp_path / "boxes.json").read_text())
    content["annotations"][0]["category_id"] = 6
    content["annotations"][1]["iscrowd"] = 1
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    found = flat(boxes.read(tmp_path / "boxes.json", frames))
    assert [one.kind == "" for _, one in found] == [False, False, True, True]


@pytest.mark.parametrize(
    ("categories", "kept"), [([1, 1, 1, 1], 4), ([0, 0, 0, 0], 4), ([1, 2, 1, 3], 2), ([None] * 4, 4)]
)
def test_results_of_coco_name_frames_by_number_and_people_by_coco_s_own_category(categories, kept, frames, tmp_path):
    results = [
        {"image_id": number, "bbox": [x, y, w, h], "score": 0.5} | ({} if kind is None else {"category_id": kind})
        for (number, _, x, y, w, h, _), kind in zip(PEOPLE, categories, strict=True)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = flat(boxes.read(tmp_path / "results.json", frames))
    assert [name for name, _ in found] == ["000001", "000001", "000002", "000002"]
    assert sum(one.kind == "" for _, one in found) == kept


FAULTS = {
    "gt.txt": [
        ("1,2,3\n", r"gt\.txt: line 1: it has 3 numbers, not 6 or more; a line of MOT is frame,id,x,y,w,h,score"),
        ("frame,id,x,y,w,h\n", r"gt\.txt: line 1: 'frame,id,x,y,w,h' is no line of numbers"),
        ("1,3,10,20,20,60\n1,3,10,20,0,60\n", r"line 2: the box 10,20,0,60 has no area in a picture"),
        ("1,3,1e308,20,1e308,60\n", r"line 1: the box 1e\+308,20,1e\+308,60 has no area in a picture"),
        ("1,nan,10,20,20,60\n", r"line 1: nan is no number of a track"),
        ("1,3,10,20,nan,60\n", r"line 1: the box 10,20,nan,60 has no area"),
        ("9,3,10,20,20,60\n", r"line 1: .*frames has no frame 9; give the frames that the boxes belong to"),
        ("1.5,3,10,20,20,60\n", r"line 1: 1\.5 is no number of a frame"),
        ("nan,3,10,20,20,60\n", r"line 1: nan is no number of a frame"),
        ("", r"gt\.txt holds no boxes"),
    ],
    "boxes.json": [
        ("{", r"boxes\.json is no JSON"),
        ("{}", r"boxes\.json is not in COCO's format \(no 'images'\)"),
        ("3", r"boxes\.json is not in COCO's format"),
        ("[]", r"boxes\.json holds no boxes"),
        ('[{"image_id": 1}]', r"boxes\.json is not in COCO's format \(no 'bbox'\)"),
        ('[{"image_id": 1, "bbox": [1, 2]}]', r"boxes\.json is not in COCO's format"),
        ('[{"image_id": 1, "bbox": ["a", 2, 3, 4]}]', r"boxes\.json is not in COCO's format"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4, 5]}]', r"boxes\.json is not in COCO's format"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}]}',
            r"none of its categories is person \(dog\); name that of people so",
        ),
        (
            '{"images": [{"id": 1, "file_name": "b/1.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            r"frames has no picture b/1\.png",
        ),
        ('[{"image_id": 8, "bbox": [1, 2, 3, 4]}]', r"annotation 0: .*frames has no frame 8"),
        ('[{"image_id": "x", "bbox": [1, 2, 3, 4]}]', r"annotation 0: .*frames has no picture x"),
        ('{"images": [], "annotations": [{"image_id": 8, "bbox": [1, 2, 3, 4]}]}', r"frames has no frame 8"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            r"frames has no picture a\.jpg",
        ),
    ],
    "labels/000001.txt": [
        ("0 0.5 0.5 0.1\n", r"000001\.txt: line 1: it has 4 numbers, not 5 or more; a line of YOLO is class x y w h"),
        ("0 0.3 0.5 0.4 0.9 0.9 0.8 0.1 0.8\n", r"line 1: it is no box; a line of YOLO is class x y w h"),
        ("0 0.3 0.5 0.4 0.9 0.9 0.8\n", r"line 1: it is no box"),
        ("0 50 50 10 10\n", r"line 1: x, y, w, h are not shares of the picture's size"),
        ("", r"labels holds no boxes"),
    ],
    "labels/other.txt": [("0 0.5 0.5 0.1 0.1\n", r"line 1: .*frames has no picture other")],
    "labels/words.md": [("", r"labels holds no \.txt files")],
}


@pytest.mark.parametrize(
    ("name", "content", "error"), [(name, *fault) for name, faults in FAULTS.items() for fault in faults]
)
def test_what_is_wrong_is_said_with_its_place_in_one_line(name, content, error, frames, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    with pytest.raises(UserError, match=error) as raised:
        boxes.read(file.parent if name.startswith("labels") else file, frames)
    assert "\n" not in str(raised.value)


def test_missing_and_binary_files_and_a_file_for_yolo_are_refused(frames, tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, form, error in (
        ("nothing.txt", "auto", r"nothing\.txt cannot be read \(No such file"),
        ("binary.txt", "auto", r"binary\.txt cannot be read \(it is no text\)"),
        ("binary.txt", "yolo", r"binary\.txt is not a folder; YOLO's boxes are"),
    ):
        with pytest.raises(UserError, match=error):
            boxes.read(tmp_path / name, frames, form=form)


def test_frame_that_two_folders_have_is_refused(tmp_path):
    for camera in ("first", "second"):
        boxed_frames.write_frames(tmp_path / "frames" / camera)
    with pytest.raises(UserError, match=r"frame 1 may be .*first/000001\.png or .*second/000001\.png; give the folder"):
        boxes.read(write_mot(tmp_path / "gt.txt"), Folder(tmp_path / "frames"))
