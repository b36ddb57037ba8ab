import csv
import functools
import json
import shutil

import av
import boxed_frames
import commands
import numpy as np
import pytest
from commands import finish, two_processes
from PIL import Image
from runs import save_run, write_pictures

from san_jax import model as models
from san_jax.commands import search as search_command
from san_jax.commands.search import search as search_pictures
from san_jax.data.crops import Wanted
from san_jax.errors import UserError
from san_jax.gallery import feature_index, finds
from san_jax.gallery.index_files import Kind
from san_jax.scoring import reranking

NAMES = ["a.png", "b.jpg", "c.PNG", "sub/d.e.bmp", "sub/deeper/a.webp"]
start = functools.partial(commands.start, "search.py")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), mode="baseline")


@pytest.fixture
def shop(tmp_path):
    return write_pictures(tmp_path / "shop", NAMES)


def search(*arguments):
    return commands.run("search.py", *arguments)


def hits_of(output):
    """Query -> its hits as (rank, distance, name); each block of the table begins with its query."""
    blocks = [block.splitlines() for block in output.split("\n\n")[1:-1]]
    assert all(lines[1].split() == ["rank", "distance", "picture"] for lines in blocks)
    rows = {query: [line.split(maxsplit=2) for line in lines] for query, _, *lines in blocks}
    return {query: [(int(rank), float(far), name) for rank, far, name in lines] for query, lines in rows.items()}


@pytest.mark.slow
def test_picture_is_found_in_a_folder_and_the_next_search_uses_the_index(workdir, shop, tmp_path):
    """A copy under another name is the nearest; a query that is a gallery file is marked as the same file."""
    shutil.copy(shop / "sub/d.e.bmp", tmp_path / "child.bmp")
    command = [f"--checkpoint={workdir}", f"--gallery={shop}", "--top=5"]
    status, output, errors = search(*command, f"--query={tmp_path / 'child.bmp'}")
    assert (status, errors) == (0, "")
    place = feature_index.default_place(workdir / "checkpoints/3", shop)
    assert output.splitlines()[:2] == [
        f"{shop}: 5 pictures, 0 of them in the index",
        f"{place}: 5 pictures, 5 of them new or changed",
    ]
    [(query, found)] = hits_of(output).items()
    assert query == str(tmp_path / "child.bmp")
    assert found[0] == (1, 0.0, "sub/d.e.bmp")
    assert [rank for rank, _, _ in found] == [1, 2, 3, 4, 5]
    assert sorted(name for _, _, name in found) == sorted(NAMES)
    assert [far for _, far, _ in found] == sorted(far for _, far, _ in found)
    sheet = place.parent / f"child_in_{place.name}.png"
    assert output.endswith(f"\ncontact sheet: {sheet}\n")
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 20

    sheet = tmp_path / "found.png"
    status, output, errors = search(*command, f"--query={shop / 'a.png'}", f"--sheet={sheet}", "--distance=cosine")
    assert (status, errors) == (0, "")
    assert output.splitlines()[0] == f"{shop}: 5 pictures, 5 of them in the index"
    assert hits_of(output)[str(shop / "a.png")][0] == (1, 0.0, "a.png  (the same file)")
    assert sheet.exists()


@pytest.mark.slow
def test_unreadable_pictures_are_listed_and_the_rest_is_searched(workdir, shop, tmp_path):
    queries = write_pictures(tmp_path / "missing", ["x.png", "y.png"])
    (queries / "y.png").write_bytes(b"no picture")
    (shop / "b.jpg").write_bytes(b"")
    command = [f"--checkpoint={workdir}", f"--gallery={shop}", f"--query={queries}", f"--index={tmp_path / 'i'}"]
    status, output, errors = search(*command, "--top=4")
    assert status == 1
    assert list(hits_of(output)) == [str(queries / "x.png")]
    assert errors.splitlines() == [
        f"cannot read {queries / 'y.png'}: it is no picture",
        f"cannot read {shop / 'b.jpg'}: it is no picture",
        "error: the 2 pictures named above cannot be read, all others were searched; replace or remove them",
    ]
    status, output, _ = search(*command, "--top=5")
    assert status == 1
    assert output.splitlines()[:3] == [
        f"{shop}: 5 pictures, 4 of them in the index",
        f"{tmp_path / 'i'}: 4 pictures, 0 of them new or changed",
        f"{shop} has only 4 readable pictures, so 4 are shown, not --top=5",
    ]
    assert len(hits_of(output)[str(queries / "x.png")]) == 4


@pytest.mark.slow
def test_two_processes_share_the_work(workdir, shop, tmp_path):
    (shop / "b.jpg").write_bytes(b"no picture")
    command = [f"--checkpoint={workdir}", f"--gallery={shop}", f"--query={shop / 'a.png'}", "--top=4", "--batch_size=2"]
    alone = search(*command, f"--index={tmp_path / 'alone'}", f"--sheet={tmp_path / 'alone.png'}")
    command += [f"--index={tmp_path / 'both'}", f"--sheet={tmp_path / 'both.png'}"]
    first, second = [start(*command, **own) for own in two_processes()]
    (status, output, errors), (_, said, _) = finish(first), finish(second)
    assert status == 1
    assert f"cannot read {shop / 'b.jpg'}: it is no picture" in errors
    assert "the picture named above cannot be read, all others were searched; replace or remove it\n" in errors
    assert f"{shop}: 5 pictures, 0 of them in the index\n{tmp_path / 'both'}: 4 pictures, 4 of them new" in output
    assert "pictures" not in said
    found, expected = (hits_of(words)[str(shop / "a.png")] for words in (output, alone[1]))
    assert [name for _, _, name in found] == [name for _, _, name in expected]
    np.testing.assert_allclose([far for _, far, _ in found], [far for _, far, _ in expected], atol=1e-4)
    one, both = (np.load(next((tmp_path / name).glob("*.npy"))) for name in ("alone", "both"))
    np.testing.assert_allclose(one, both, rtol=1e-4, atol=1e-6)


def test_number_below_its_bound_is_an_error(workdir, shop):
    status, _, errors = search(f"--checkpoint={workdir}", f"--gallery={shop}", f"--query={shop}", "--top=0")
    assert status == 1
    assert "--top=0" in errors


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"checkpoint": "{tmp}"}, "{tmp} holds no checkpoint; give the workdir of a run"),
        ({"gallery": "{tmp}/nowhere"}, "{tmp}/nowhere cannot be read (No such file or directory)"),
        ({"gallery": "{tmp}/empty"}, "{tmp}/empty holds no pictures"),
        ({"query": "{tmp}/nowhere.png"}, "cannot read {tmp}/nowhere.png (No such file or directory); give another"),
        ({"query": "{tmp}/words.txt"}, "cannot read {tmp}/words.txt (it is no picture); give another --query"),
        ({"query": "{tmp}/broken"}, "broken/a.png (it is no picture), nor any other picture of {tmp}/broken; give "),
        ({"index": "{tmp}/shop/a.png"}, "--index is {tmp}/shop/a.png; name a folder, which is made"),
        ({"index": "."}, "--index is .; name a folder, which is made"),
        ({"index": "/"}, "--index is /; name a folder, which is made"),
        ({"sheet": "{tmp}/index/found.png"}, "--sheet is {tmp}/index/found.png, which lies in the index {tmp}/index"),
        ({"output": "{tmp}/index/found.csv"}, "--output is {tmp}/index/found.csv, which lies in the index"),
        ({"index": "{tmp}/words.txt/i"}, "{tmp}/words.txt is not a folder"),
        ({"index": "{tmp}/shop"}, "{tmp}/shop is not an index, since it has no about.json but a.png"),
        ({"gallery": None}, "--gallery is missing; name what to search"),
        ({"query": None}, "--query is missing; name a picture to search for"),
        ({"sheet": "{tmp}/found.jpg"}, "--sheet is {tmp}/found.jpg, which does not end in .png"),
        ({"sheet": "{tmp}/shop/found.png"}, "{tmp}/shop/found.png would lie among the pictures of {tmp}/shop"),
        ({"sheet": "{tmp}/child.png"}, "the contact sheet {tmp}/child.png would lie among the pictures of"),
    ],
)
def test_invalid_input_is_an_error_of_one_line_and_no_file_changes(arguments, error, workdir, shop, tmp_path, capsys):
    write_pictures(tmp_path, ["child.png"])
    (tmp_path / "words.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "broken" / name).write_text("no picture")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    given = given_for(workdir, tmp_path, gallery=str(shop), query=f"{tmp_path}/child.png")
    with pytest.raises(UserError) as raised:
        search_pictures(given | {name: value and value.format(tmp=tmp_path) for name, value in arguments.items()})
    assert error.format(tmp=tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "rank" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "index").exists()


def given_for(workdir, tmp_path, **given):
    """The flags of a search with their defaults."""
    defaults = {"checkpoint": str(workdir), "best": False, "distance": "euclidean", "batch_size": 64, "workers": 2}
    defaults |= {"index": f"{tmp_path}/index", "sheet": f"{tmp_path}/found.png", "top": 2, "by_track": False}
    defaults |= {"threshold": None, "as_one": False, "flip": False, "half": False, "rerank": False}
    defaults |= {"output": None, "forget": None}
    defaults |= {"boxes": None, "query_boxes": None, "boxes_format": "auto", **dict.fromkeys(Wanted._fields)}
    return defaults | given


@pytest.fixture
def frames(tmp_path):
    """Frames of two people, and their boxes."""
    boxed_frames.write_mot(tmp_path / "gt.txt")
    return boxed_frames.write_frames(tmp_path / "frames")


@pytest.fixture
def red(tmp_path):
    """A picture in the colour of the person with track 3."""
    Image.new("RGB", (20, 60), boxed_frames.PEOPLE[0][-1]).save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def test_people_in_frames_are_found_by_their_boxes(workdir, frames, red, tmp_path, capsys):
    options = dict(gallery=str(frames), boxes=str(tmp_path / "gt.txt"), query=red, top=4, margin=0.0)
    search_pictures(given_for(workdir, tmp_path, **options))
    said = capsys.readouterr().out
    assert f"{frames}: 4 pictures, 0 of them in the index\n{tmp_path}/gt.txt: 4 boxes of 2 tracks in 2 frames" in said
    [(_, found)] = hits_of(said).items()
    assert [name for _, _, name in found[:2]] == ["000001.png-10,20,20,60", "000002.png-20,20,20,60"]
    assert found[0][1] < 1e-6 < found[2][1]
    assert (tmp_path / "found.png").exists()

    search_pictures(given_for(workdir, tmp_path, **options))
    assert f"{frames}: 4 pictures, 4 of them in the index" in capsys.readouterr().out


def test_tracks_are_found_one_row_each_and_query_tracks_are_averaged(workdir, frames, red, tmp_path, capsys):
    options = dict(gallery=str(frames), boxes=str(tmp_path / "gt.txt"), by_track=True, top=4, margin=0.0)
    search_pictures(given_for(workdir, tmp_path, query=red, **options))
    said = capsys.readouterr().out
    assert f"{frames} has only 2 tracks, so 2 are shown, not --top=4" in said
    [(_, found)] = hits_of(said).items()
    assert [name.partition(",")[0] for _, _, name in found] == ["track 3: 2 pictures", "track 7: 2 pictures"]

    search_pictures(given_for(workdir, tmp_path, query=str(frames), query_boxes=str(tmp_path / "gt.txt"), **options))
    first, second = hits_of(capsys.readouterr().out).items()
    assert first[0].startswith(f"track 3: 2 pictures, {frames}/00000")
    assert [hits[0][2].partition(":")[0] for _, hits in (first, second)] == ["track 3", "track 7"]


def test_gallery_may_be_a_video(workdir, red, tmp_path, capsys):
    with av.open(str(tmp_path / "film.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = *boxed_frames.SIZE, "rgb24"
        for number in (1, 2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(boxed_frames.frame(number), format="rgb24")))
        container.mux(stream.encode())
    boxes = str(boxed_frames.write_mot(tmp_path / "gt.txt"))
    given = given_for(workdir, tmp_path, gallery=str(tmp_path / "film.mov"), boxes=boxes, query=red, margin=0.0)
    search_pictures(given | {"output": f"{tmp_path}/found.csv"})
    [(_, found)] = hits_of(capsys.readouterr().out).items()
    assert [name for _, _, name in found] == ["film-000001-10,20,20,60", "film-000002-20,20,20,60"]
    assert found[0][1] < 1e-6
    assert [row["frame"] for row in csv.DictReader((tmp_path / "found.csv").open())] == ["1", "2"]


def test_gallery_may_be_a_list_with_boxes(workdir, frames, red, tmp_path, capsys):
    lines = ["path,pid,x,y,w,h", "frames/000001.png,a,10,20,20,60", "frames/000001.png,b,120,10,30,80"]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    search_pictures(given_for(workdir, tmp_path, gallery=str(tmp_path / "people.csv"), query=red))
    [(_, found)] = hits_of(capsys.readouterr().out).items()
    assert [name for _, _, name in found] == ["frames/000001-10,20,20,60", "frames/000001-120,10,30,80"]
    assert found[0][1] < 1e-6


def test_several_queries_of_one_person_are_averaged(workdir, shop, tmp_path, capsys):
    options = dict(gallery=str(shop), query=str(shop / "sub"), as_one=True, top=5)
    search_pictures(given_for(workdir, tmp_path, **options))
    [(query, found)] = hits_of(capsys.readouterr().out).items()
    assert query.startswith(f"{shop}/sub: 2 pictures, {shop}/sub/")
    model = models.load(workdir)
    feats = model.features([shop / name for name in NAMES])
    mean = model.features([shop / name for name in NAMES[3:]]).mean(axis=0, keepdims=True)
    expected = np.square(feats - mean).sum(axis=1)
    assert {name for _, _, name in found[:2]} == set(NAMES[3:])
    np.testing.assert_allclose([far for _, far, _ in found], np.sort(expected), rtol=1e-3, atol=1e-4)


def test_flipped_features_have_their_own_index(workdir, shop, tmp_path, capsys):
    options = dict(gallery=str(shop), query=str(shop / "a.png"), top=1)
    search_pictures(given_for(workdir, tmp_path, **options))
    capsys.readouterr()
    search_pictures(given_for(workdir, tmp_path, flip=True, **options))
    said = capsys.readouterr().out
    assert "index holds features without --flip: it is now" in said
    model = models.load(workdir)
    expected = model.features([shop / name for name in NAMES], flip=True)
    np.testing.assert_allclose(np.load(next((tmp_path / "index").glob("*.npy"))), expected, rtol=1e-3, atol=1e-5)
    plain, flipped = (feature_index.default_place(workdir, shop, kind=Kind(flip)) for flip in (False, True))
    assert plain != flipped


def test_features_in_half_precision_are_searched_as_they_are_kept(workdir, shop, tmp_path, capsys):
    options = dict(gallery=str(shop), query=str(shop / "a.png"), top=5)
    search_pictures(given_for(workdir, tmp_path, **options))
    capsys.readouterr()
    search_pictures(given_for(workdir, tmp_path, half=True, output=f"{tmp_path}/feats.npy", **options))
    said = capsys.readouterr().out
    assert "index holds features without --half: it is now" in said
    model = models.load(workdir)
    feats = model.features([shop / name for name in NAMES])
    [part] = (tmp_path / "index").glob("0*.npy")
    kept = np.load(part)
    assert (kept.dtype, kept.shape) == (np.float16, (len(NAMES), model.num_feats))
    np.testing.assert_allclose(kept, feats, rtol=1e-3, atol=1e-4)
    expected = np.sort(np.square(feats[:1] - kept.astype(np.float32)).sum(axis=1))
    [(_, found)] = hits_of(said).items()
    np.testing.assert_allclose([far for _, far, _ in found], expected[:5], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "feats.npy"), kept)
    again, plain = (feature_index.default_place(workdir, shop, kind=kind) for kind in (Kind(half=True), Kind()))
    assert again.name == f"{plain.name}_half"
    search_pictures(given_for(workdir, tmp_path, half=True, flip=True, **options))
    assert "index holds features without --flip: it is now" in capsys.readouterr().out
    search_pictures(given_for(workdir, tmp_path, **options))
    assert "index holds features with --flip and with --half: it is now" in capsys.readouterr().out


def test_features_of_the_gallery_are_written_with_a_list_of_its_pictures(workdir, frames, red, tmp_path):
    options = dict(gallery=str(frames), boxes=str(tmp_path / "gt.txt"), query=red, top=3, margin=0.0)
    search_pictures(given_for(workdir, tmp_path, output=f"{tmp_path}/feats.npz", **options))
    search_pictures(given_for(workdir, tmp_path, output=f"{tmp_path}/feats.npy", **options))
    feats = np.load(tmp_path / "feats.npy", mmap_mode="r")
    np.testing.assert_array_equal(feats, np.load(tmp_path / "feats.npz")["feats"])
    rows = list(csv.DictReader((tmp_path / "feats.csv").open()))
    assert list(rows[0]) == ["row", "path", "camid", "time", "frame", "track", "x", "y", "w", "h"]
    assert [row["row"] for row in rows] == ["0", "1", "2", "3"]
    assert (rows[0]["path"], rows[0]["track"], rows[0]["x"]) == (str(frames / "000001.png"), "3", "10")
    listed = {"gallery": f"{tmp_path}/gt.csv", "boxes": None, "margin": None, "output": f"{tmp_path}/gt.npy"}
    with pytest.raises(UserError, match=r"--output is .*gt\.npy, which would overwrite .*gt\.csv, which is searched"):
        search_pictures(given_for(workdir, tmp_path, **options | listed))


def test_reranked_distances_are_those_of_re_ranking(workdir, shop, tmp_path, capsys):
    search_pictures(given_for(workdir, tmp_path, gallery=str(shop), query=str(shop / "a.png"), top=5, rerank=True))
    [(_, found)] = hits_of(capsys.readouterr().out).items()
    model = models.load(workdir)
    feats = model.features([shop / name for name in NAMES])
    expected = np.sort(np.asarray(reranking.distmat(feats[:1], feats, mesh=model.mesh))[0])
    np.testing.assert_allclose([far for _, far, _ in found], expected, atol=2e-3)
    with pytest.raises(UserError, match="re-ranking requires the Euclidean distance"):
        search_pictures(given_for(workdir, tmp_path, gallery=str(shop), query="q", rerank=True, distance="cosine"))


def test_pictures_beyond_the_threshold_stand_below_a_line(workdir, frames, red, tmp_path, capsys):
    options = dict(gallery=str(frames), boxes=str(tmp_path / "gt.txt"), query=red, top=4, margin=0.0)
    search_pictures(given_for(workdir, tmp_path, threshold=1e-4, **options))
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(finds.BEYOND)
    assert [line.split()[0] for line in lines[place - 2 : place + 3]] == ["1", "2", "--------", "3", "4"]
    with pytest.raises(UserError, match="--threshold is nan; give a distance of 0 or more"):
        search_pictures(given_for(workdir, tmp_path, threshold=float("nan"), **options))


def test_threshold_of_the_run_s_scores_holds_for_the_distances_that_it_was_measured_with(workdir, shop, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    model = models.load(run)
    scores = {"checkpoint": model.source, "tpr": True, "data": "some/set", "thresholds": {"fpr_1e-3": 0.125}}
    (run / "scores.json").write_text(json.dumps(scores))
    given = given_for(run, tmp_path, gallery=str(shop), query=str(shop))
    assert search_command.known_threshold(given, model) == 0.125
    for others in ({"distance": "cosine"}, {"rerank": True}, {"flip": True}, {"by_track": True}, {"as_one": True}):
        assert search_command.known_threshold(given | others, model) is None
    for damaged in ("{}", "[]", "no JSON", json.dumps(scores | {"checkpoint": "another"})):
        (run / "scores.json").write_text(damaged)
        assert search_command.known_threshold(given, model) is None


def test_results_are_written_for_other_programs(workdir, frames, red, tmp_path):
    options = dict(gallery=str(frames), boxes=str(tmp_path / "gt.txt"), query=red, top=3, margin=0.0)
    for suffix in ("csv", "json", "npz"):
        search_pictures(given_for(workdir, tmp_path, output=f"{tmp_path}/found.{suffix}", **options))
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert list(rows[0]) == ["query", "rank", "path", "camid", "time", "distance", "frame", "track", "x", "y", "w", "h"]
    assert [(row["rank"], row["track"], row["x"]) for row in rows[:2]] == [("1", "3", "10"), ("2", "3", "20")]
    assert {row["query"] for row in rows} == {red}
    assert rows[0]["path"] == str(frames / "000001.png")
    listed = json.loads((tmp_path / "found.json").read_text())
    assert (listed[0]["rank"], listed[0]["path"], listed[0]["w"]) == (1, str(frames / "000001.png"), 20)
    kept = np.load(tmp_path / "found.npz")
    assert kept["path"].tolist()[0] == f"{frames}/000001.png, box 10,20,20,60"
    dim = models.load(workdir).num_feats
    assert (kept["feats"].shape, kept["query_feats"].shape) == ((4, dim), (1, dim))
    assert kept["query_path"].tolist() == [red]


def test_times_and_cameras_of_a_list_are_in_the_results(workdir, shop, tmp_path):
    lines = ["path,pid,camid,time", "shop/a.png,1,door,2026-11-28T14:03:00", "shop/b.jpg,2,hall,"]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    query = str(shop / "a.png")
    given = given_for(workdir, tmp_path, gallery=f"{tmp_path}/people.csv", query=query, output=f"{tmp_path}/found.csv")
    search_pictures(given)
    first, second = csv.DictReader((tmp_path / "found.csv").open())
    assert list(first) == ["query", "rank", "path", "camid", "time", "distance"]
    assert (first["camid"], first["time"], float(first["distance"])) == ("door", "2026-11-28T14:03:00", 0)
    assert (second["camid"], second["time"]) == ("hall", "")


def test_pictures_and_boxes_are_not_overwritten(workdir, frames, red, tmp_path):
    boxes = boxed_frames.write_coco(tmp_path / "boxes.json")
    given = given_for(workdir, tmp_path, gallery=str(frames), boxes=str(boxes), query=str(frames))
    with pytest.raises(UserError, match=r"--output is .*boxes\.json, which is searched"):
        search_pictures(given | {"query_boxes": str(boxes), "output": str(boxes)})
    (tmp_path / "people.csv").write_text("path,pid\nred.png,1\n")
    before = (tmp_path / "red.png").read_bytes()
    (tmp_path / "link.png").symlink_to("red.png")
    for sheet in ("red.png", "link.png"):
        given = given_for(workdir, tmp_path, gallery=f"{tmp_path}/people.csv", query=str(frames))
        with pytest.raises(UserError, match=rf"--sheet is .*{sheet}, one of the pictures; choose another place"):
            search_pictures(given | {"sheet": str(tmp_path / sheet)})
    assert (tmp_path / "red.png").read_bytes() == before


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("{tmp}/found.txt", r"--output is .*found\.txt, which does not end in \.csv, \.json, \.npz, \.npy"),
        ("{tmp}/people.csv", r"--output is .*people\.csv, which is searched; choose another name"),
        ("{tmp}/gt.txt/found.csv", r"gt\.txt is not a folder"),
    ],
)
def test_results_are_not_written_over_other_files(output, error, workdir, frames, red, tmp_path):
    (tmp_path / "people.csv").write_text("path,pid\nred.png,1\n")
    gallery = f"{tmp_path}/people.csv"
    given = given_for(workdir, tmp_path, gallery=gallery, query=red, output=output.format(tmp=tmp_path))
    with pytest.raises(UserError, match=error):
        search_pictures(given)


def test_what_is_kept_of_a_gallery_is_forgotten_on_request(workdir, shop, tmp_path, capsys):
    run = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("search"))
    given = given_for(run, tmp_path, gallery=str(shop), query=str(shop / "a.png"), index=None, sheet=None)
    search_pictures(given)
    kept = sorted((run / "search").iterdir())
    assert [path.name.partition("shop")[0] for path in kept] == ["a_in_", ""], "the sheet and the features"
    kept.reverse()
    capsys.readouterr()
    search_pictures(given | {"forget": str(shop), "gallery": None, "query": None})
    assert capsys.readouterr().out.splitlines() == [f"deleted: {path}" for path in kept]
    assert not list((run / "search").iterdir())
    with pytest.raises(UserError, match=f"nothing is kept of {shop} in "):
        search_pictures(given | {"forget": str(shop), "gallery": None, "query": None})
    with pytest.raises(UserError, match="--forget only deletes what is at the default places; leave out --gallery"):
        search_pictures(given | {"forget": str(shop)})


def test_box_of_one_frame_that_cannot_be_read_does_not_hide_the_others(workdir, frames, red, tmp_path, capsys):
    (frames / "000002.png").write_bytes(b"no picture")
    options = dict(gallery=str(frames), boxes=str(tmp_path / "gt.txt"), query=red, margin=0.0)
    with pytest.raises(UserError, match="the 2 pictures named above cannot be read, all others were searched"):
        search_pictures(given_for(workdir, tmp_path, **options))
    said = capsys.readouterr()
    assert f"cannot read {frames}/000002.png, box 20,20,20,60: it is no picture" in said.err
    assert [name for _, _, name in hits_of(said.out)[red]] == ["000001.png-10,20,20,60", "000001.png-120,10,30,80"]


@pytest.mark.slow
def test_texture_generator_is_refused(shop, tmp_path):
    run = save_run(tmp_path / "run", mode="san_pg")
    status, output, errors = search(f"--checkpoint={run}", f"--gallery={shop}", f"--query={shop / 'a.png'}")
    assert (status, output) == (1, "")
    assert errors.startswith(f"error: {run}/checkpoints/3 is a texture generator")


def test_what_is_kept_of_a_run_in_an_object_store_is_deleted_by_hand():
    with pytest.raises(UserError, match=r"--forget needs a local --checkpoint; delete the folder of s3://bucket/run"):
        search_command.forget({"checkpoint": "s3://bucket/run", "forget": "shop"})
