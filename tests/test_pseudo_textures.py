import dataclasses
import functools
import io
import os
import signal
import time

import boxed_frames
import commands
import jax
import numpy as np
import pytest
from array_source import ArraySource, encoded
from commands import finish, two_processes, xla_flags
from cuhk03_release import write_release
from flax import nnx
from PIL import Image
from runs import save_run, write_pictures
from small_networks import SHAPE

from san_jax import devices, model
from san_jax.data import augmentation, crops, decoded
from san_jax.data.crops import Wanted
from san_jax.errors import UserError
from san_jax.gallery import pseudo_textures
from san_jax.gallery.pseudo_textures import DRAWN_BY, Pictures
from san_jax.weights import stored
from tfds_builders import open_source

start = functools.partial(commands.start, "generate_textures.py")
generate = functools.partial(commands.run, "generate_textures.py")
TALL = dataclasses.replace(SHAPE, height=256, width=128)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"))


@functools.cache
def generator_of(workdir):
    return model.of_checkpoint(stored.find(workdir), devices.make_mesh())


@pytest.fixture
def generator(workdir):
    return generator_of(workdir)


@pytest.fixture
def folder(tmp_path):
    names = ["a.png", "b.jpg", "c.PNG", "f.JPEG", "sub/d.e.bmp", "sub/deeper/a.webp"]
    return write_pictures(tmp_path / "pictures", names)


NAMES = ["a", "b", "c", "f", "sub/d.e", "sub/deeper/a"]


def draw(generator, folder, output, **options):
    pictures = Pictures.of_crops(crops.in_folder(folder), output=output)
    return pseudo_textures.write_textures(generator, pictures, output, **options)


def contents(output):
    """PNG bytes of each texture by name; the folder holds nothing else but DRAWN_BY."""
    paths = [path for path in output.rglob("*") if path.is_file() and path.name != DRAWN_BY]
    assert {path.suffix for path in paths} <= {".png"}
    return {path.relative_to(output).with_suffix("").as_posix(): path.read_bytes() for path in paths}


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 256))
        return np.asarray(image).astype(int)


def reference_texture(generator, encoded_picture):
    """Texture of one picture by the networks in eval mode: levels 0 to 255, not rounded, float [H H 3]."""
    shape, weights = generator.architecture, generator.weights
    picture = decoded.decode(encoded_picture, height=shape.height, width=shape.width)

    def drawn(weights, images):
        parts = []
        for name, new in (("encoder", shape.new_encoder), ("decoder", shape.new_decoder)):
            model = new(nnx.Rngs(0))
            nnx.update(model, weights[name], weights[f"{name}_stats"])
            model.eval()
            parts.append(model)
        encoder, decoder = parts
        return decoder(encoder(augmentation.normalise(images)).stages).texture[0]

    texture = jax.jit(drawn)(weights, picture[None])
    return 255 * (np.clip(texture, -1, 1) + 1) / 2


def test_every_picture_of_the_tree_gets_a_texture_under_its_name(generator, folder, tmp_path):
    assert draw(generator, folder, tmp_path / "out") == {}
    found = contents(tmp_path / "out")
    assert sorted(found) == NAMES
    assert len({pixels(png).tobytes() for png in found.values()}) == len(NAMES)


def test_files_that_are_no_pictures_are_ignored(generator, folder, tmp_path):
    for name in ("notes.txt", "a.npy", "jpg", "g.pdf", "sub/a.png.part"):
        (folder / name).write_text("no picture")
    assert draw(generator, folder, tmp_path / "out") == {}
    assert sorted(contents(tmp_path / "out")) == NAMES


@pytest.mark.slow
def test_texture_of_256_pixels_is_the_networks_output(tmp_path):
    generator = generator_of(save_run(tmp_path / "run", TALL))
    folder = write_pictures(tmp_path / "pictures", ["a.png"])
    draw(generator, folder, tmp_path / "out")
    expected = reference_texture(generator, (folder / "a.png").read_bytes())
    assert expected.std() > 20
    np.testing.assert_allclose(pixels(contents(tmp_path / "out")["a"]), expected, atol=0.51)


def test_smaller_texture_is_clipped_and_enlarged_bilinearly(generator, folder, tmp_path):
    draw(generator, folder, tmp_path / "out")
    is_cut = []
    for name in ("a.png", "sub/deeper/a.webp"):
        expected = reference_texture(generator, (folder / name).read_bytes())
        assert expected.shape == (32, 32, 3)
        assert expected.std() > 20
        is_cut += [expected.min() == 0 or expected.max() == 255]
        found = contents(tmp_path / "out")[name.split(".")[0]]
        np.testing.assert_allclose(pixels(found), jax.image.resize(expected, (256, 256, 3), "linear"), atol=0.6)
    assert sorted(is_cut) == [False, True], "one of each"


def test_textures_do_not_depend_on_the_batch(generator, folder, tmp_path):
    draw(generator, folder, tmp_path / "one", batch_size=100)
    draw(generator, folder, tmp_path / "other", batch_size=4, workers=1)
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    for name in NAMES:
        np.testing.assert_allclose(pixels(one[name]), pixels(other[name]), atol=1)


def test_what_is_left_to_draw_is_drawn_in_batches_of_the_same_size(generator, folder, tmp_path, batch_sizes):
    draw(generator, folder, tmp_path / "out", batch_size=5)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "c.png").unlink()
    draw(generator, folder, tmp_path / "out", batch_size=5)
    draw(generator, folder, tmp_path / "out", batch_size=5)  # nothing is left
    assert batch_sizes == [devices.rounded_up(generator.mesh, 5)] * 3
    assert contents(tmp_path / "out") == whole


def test_complete_textures_are_kept_and_damaged_ones_are_drawn_again(generator, folder, tmp_path):
    output = tmp_path / "out"
    draw(generator, folder, output)
    whole = contents(output)
    torn = {
        "a": b"",
        "b": whole["b"][: len(whole["b"]) // 2],
        "c": whole["c"][:-1],
        "f": whole["f"][:-100] + bytes(100),
        "sub/d.e": encoded(np.zeros((128, 128, 3), np.uint8)),
    }
    for name, content in torn.items():
        (output / f"{name}.png").write_bytes(content)
    kept = output / "sub/deeper/a.png"
    before = kept.stat().st_mtime_ns
    assert draw(generator, folder, output) == {}
    assert contents(output) == whole
    assert kept.stat().st_mtime_ns == before


def test_flipped_bit_anywhere_is_detected(generator, folder, tmp_path):
    draw(generator, folder, tmp_path / "out")
    whole, path = (tmp_path / "out/a.png").read_bytes(), tmp_path / "broken.png"
    path.write_bytes(whole)
    assert pseudo_textures.is_whole(path)
    for place in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert not pseudo_textures.is_whole(path), f"byte {place} of {len(whole)}"


def test_unreadable_pictures_are_named_with_the_reason_and_the_rest_is_drawn(generator, folder, tmp_path):
    whole = (folder / "a.png").read_bytes()
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "sub/cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "huge.png").write_bytes(encoded(np.zeros((1, 1, 3), np.uint8)).replace(b"\0\0\0\1", b"\0\7\0\1"))
    unreadable = draw(generator, folder, tmp_path / "out", batch_size=2)
    reasons = {"b.jpg": "it is no picture", "gone.png": "No such file or directory"}
    assert set(unreadable) == {str(folder / name) for name in (*reasons, "sub/cut.png", "huge.png")}
    assert {name: unreadable[str(folder / name)] for name in reasons} == reasons
    assert all(why and "\n" not in why for why in unreadable.values())
    assert sorted(contents(tmp_path / "out")) == [name for name in NAMES if name != "b"]

    write_pictures(folder, ["b.jpg"])
    assert set(draw(generator, folder, tmp_path / "out")) == set(unreadable) - {str(folder / "b.jpg")}
    assert "b" in contents(tmp_path / "out")


def test_damaged_record_of_a_data_set_is_an_error(generator, tmp_path):
    class Damaged(ArraySource):
        def __getitem__(self, row):
            raise UserError("delete the prepared data set")

    pictures = Pictures.of_source(Damaged([0, 1]), split="train")
    with pytest.raises(UserError, match="delete the prepared"):
        pseudo_textures.write_textures(generator, pictures, tmp_path)


def test_textures_of_a_set_can_be_read_by_its_textured_set(generator, tmp_path):
    """`cuhk03/labeled` to `cuhk03/labeled_texture`: the folder, the names and the pictures match."""
    release = write_release(tmp_path / "release", textures=False)
    source = open_source("cuhk03/labeled", "train", data_dir=tmp_path / "data", manual_dir=release)
    output = release / "cuhk03" / "texture_cuhk03_labeled"
    pictures = Pictures.of_source(source, split="train")
    assert pseudo_textures.write_textures(generator, pictures, output) == {}
    textured = open_source("cuhk03/labeled_texture", "train", data_dir=tmp_path / "data", manual_dir=release)
    assert textured.has_textures
    assert textured.names == source.names
    expected = reference_texture(generator, source[5]["image"])
    expected = jax.image.resize(expected, (256, 256, 3), "linear")
    np.testing.assert_allclose(pixels(textured[5]["texture"]), expected, atol=0.6)


def test_folder_accepts_textures_of_one_generator_only(generator, folder, tmp_path):
    output = tmp_path / "out"
    draw(generator, folder, output)
    before = contents(output)
    other = generator_of(save_run(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match=rf"{output} holds textures by {generator.source}, not by {tmp_path}"):
        draw(other, folder, output)
    assert contents(output) == before
    elsewhere = dataclasses.replace(generator, source=str(tmp_path / "moved"))
    assert draw(elsewhere, folder, output) == {}, "the same weights in another place"
    (output / DRAWN_BY).write_text("{}")
    with pytest.raises(UserError, match=f"{DRAWN_BY} cannot be read"):
        draw(generator, folder, output)


def test_folder_with_textures_of_unknown_origin_is_refused(generator, folder, tmp_path):
    output = tmp_path / "released"
    (output / "sub").mkdir(parents=True)
    (output / "sub" / "a.png").write_bytes(b"somebody's")
    with pytest.raises(UserError, match=rf"{output} holds sub/a.png but no {DRAWN_BY}: this PNG is of another origin"):
        draw(generator, folder, output)
    assert [path.name for path in output.iterdir()] == ["sub"]


def test_checkpoint_without_a_decoder_says_what_to_give(tmp_path):
    generator = generator_of(save_run(tmp_path / "run", mode="baseline"))
    pictures = Pictures("none", [], [], [])
    with pytest.raises(UserError, match=r"has no decoder.*; give a network of mode san or san_pg"):
        pseudo_textures.write_textures(generator, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "output", "error"),
    [
        ([], "out", "pictures holds no pictures"),
        (["a.txt"], "out", "pictures holds no pictures"),
        (None, "out", "pictures cannot be read .No such file"),
        (["a.png", "a.JPG"], "out", r"a\.JPG and .*a\.png would share one texture file"),
        (["a.png"], "pictures", "pictures lies in "),
        (["a.png"], "pictures/textures", "textures lies in "),
        (["a.png"], "file", r"cannot write .*file/drawn_by\.json .*choose another place"),
    ],
)
def test_invalid_input_or_output_is_an_error_before_anything_is_written(files, output, error, generator, tmp_path):
    folder = tmp_path / "pictures"
    (tmp_path / "file").write_text("")
    if files is not None:
        folder.mkdir()
    for name in files or ():
        (folder / name).write_bytes(encoded(np.zeros((50, 20, 3), np.uint8)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=error):
        draw(generator, folder, tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


def test_sheet_shows_chosen_pictures_beside_their_textures(generator, folder, tmp_path):
    output = tmp_path / "out"
    pictures = Pictures.of_crops(crops.in_folder(folder), output=output)
    assert pseudo_textures.sheet_of(generator, pictures, output) is None
    pseudo_textures.write_textures(generator, pictures, output)
    (folder / "a.png").write_bytes(b"broken since")
    sheet = pseudo_textures.sheet_of(generator, pictures, output, count=3)
    np.testing.assert_array_equal(pseudo_textures.sheet_of(generator, pictures, output, count=3), sheet)
    assert not np.array_equal(pseudo_textures.sheet_of(generator, pictures, output, count=3, seed=1), sheet)
    every = pseudo_textures.sheet_of(generator, pictures, output)
    assert every.shape[0] > 1.7 * sheet.shape[0], "two rows of four and one"
    found = contents(output)
    assert [name for name in NAMES if holds(every, shown(found[name]))] == NAMES[1:], "a is broken"


def shown(png):
    texture = Image.fromarray(pixels(png).astype(np.uint8))
    return np.asarray(texture.resize((192, 192), Image.Resampling.BICUBIC))


def holds(sheet, picture):
    """Whether the sheet contains the picture, pixel for pixel."""
    height, width = picture.shape[:2]
    tops, lefts = np.nonzero((sheet[: -height + 1, : -width + 1] == picture[0, 0]).all(axis=2))
    places = zip(tops, lefts, strict=True)
    return any(np.array_equal(sheet[top : top + height, left : left + width], picture) for top, left in places)


@pytest.mark.slow
def test_killed_and_restarted_drawing_has_the_bits_of_an_unbroken_one_on_two_devices(workdir, tmp_path):
    """SIGKILL at three arbitrary moments; textures complete by then are not drawn again."""
    folder = write_pictures(tmp_path / "pictures", [f"{place // 100}/{place:03d}.png" for place in range(300)])
    command = [f"--checkpoint={workdir}", f"--input={folder}", "--batch_size=5"]
    two = {"XLA_FLAGS": xla_flags("--xla_force_host_platform_device_count=2")}
    assert finish(start(*command, f"--output={tmp_path / 'unbroken'}", **two))[0] == 0
    output, kills, count = tmp_path / "out", 0, 0
    while True:
        process = start(*command, f"--output={output}", **two)
        while kills < 3 and process.poll() is None:
            if len(list(output.rglob("*.png"))) > count + 10:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                whole = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
                count = len(whole)
            time.sleep(0.002)
        status, _, errors = finish(process)
        if status != -signal.SIGKILL:
            break
    assert status == 0, errors
    assert kills == 3, "the drawing ended before it could be killed"
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert contents(output) == contents(tmp_path / "unbroken")


@pytest.mark.slow
def test_two_processes_share_the_work(workdir, generator, folder, tmp_path):
    draw(generator, folder, tmp_path / "alone")
    (folder / "b.jpg").write_bytes(b"no picture")
    command = [f"--checkpoint={workdir}", f"--input={folder}", f"--output={tmp_path / 'out'}", "--batch_size=4"]
    processes = [start(*command, **own) for own in two_processes()]
    ended = [finish(process) for process in processes]
    assert all(status for status, *_ in ended), ended
    expected = contents(tmp_path / "alone")
    del expected["b"]
    found = contents(tmp_path / "out")
    assert set(found) == set(expected)
    for name, png in found.items():
        np.testing.assert_allclose(pixels(png), pixels(expected[name]), atol=1)
    _, said, errors = ended[0]
    assert "6 pictures, 0 have their textures" in said
    assert "5 textures, 5 of them new" in said
    assert f"cannot read {folder / 'b.jpg'}: it is no picture\nerror: 1 of 6 pictures" in errors
    assert not any(line in ended[1][1] for line in said.splitlines() if "textures" in line)


@pytest.mark.slow
def test_command_lists_unreadable_pictures_and_exits_with_1(workdir, folder, tmp_path):
    (folder / "b.jpg").write_bytes(b"no picture")
    command = [f"--checkpoint={workdir}", f"--input={folder}", f"--output={tmp_path / 'out'}"]
    status, output, errors = generate(*command, f"--sheet={tmp_path / 'sheet.png'}")
    assert status == 1
    listed, error = errors.splitlines()
    assert listed == f"cannot read {folder / 'b.jpg'}: it is no picture"
    assert error.startswith("error: 1 of 6 pictures cannot be read")
    assert output.splitlines() == [
        f"{folder}: 6 pictures, 0 have their textures",
        f"{tmp_path / 'out'}: 5 textures, 5 of them new",
    ]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 200
    (folder / "b.jpg").unlink()
    assert generate(*command)[::2] == (0, "")


def test_every_box_in_a_frame_gets_a_texture(generator, tmp_path):
    folder = boxed_frames.write_frames(tmp_path / "frames")
    found = crops.in_boxes(folder, boxed_frames.write_mot(tmp_path / "gt.txt"), wanted=Wanted(margin=0.0))
    pictures = Pictures.of_crops(found, output=tmp_path / "textures")
    assert pseudo_textures.write_textures(generator, pictures, tmp_path / "textures") == {}
    drawn = sorted((tmp_path / "textures").glob("*.png"))
    assert [path.stem for path in drawn] == sorted(crop.name for crop in found.crops)
    alone = Image.new("RGB", (20, 60), boxed_frames.PEOPLE[0][-1])
    shape = generator.architecture
    expected = generator.textures([np.asarray(alone.resize((shape.width, shape.height)))])[0]
    small = Image.open(drawn[0]).resize((shape.height, shape.height), Image.Resampling.BOX)
    assert np.abs(np.asarray(small, int) - expected).mean() < 2
    with pytest.raises(UserError, match=r"frames/textures lies in .*frames, whose pictures are read"):
        Pictures.of_crops(found, output=folder / "textures")



@pytest.mark.slow
def test_command_reads_a_data_set_by_name_and_split(workdir, tmp_path):
    release = write_release(tmp_path / "release", textures=False)
    command = [f"--checkpoint={workdir}", "--input=tfds:cuhk03/labeled", f"--output={tmp_path / 'out'}"]
    command += [f"--data_dir={tmp_path / 'data'}", f"--manual_dir={release}"]
    status, output, errors = generate(*command, "--split=query")
    assert status == 0, errors
    assert output.startswith("cuhk03/labeled (query): 8 pictures")
    source = open_source("cuhk03/labeled", "query", data_dir=tmp_path / "data")
    assert sorted(contents(tmp_path / "out")) == sorted(source.names)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--checkpoint={tmp}", "--input={tmp}"], "holds no checkpoint; give the workdir of a run"),
        (["--checkpoint={run}", "--input=tfds:market1502"], "there is no data set market1502"),
    ],
)
def test_command_reports_an_error_in_one_line(arguments, error, workdir, tmp_path):
    arguments = [argument.format(tmp=tmp_path, run=workdir) for argument in arguments]
    status, output, errors = generate(*arguments, f"--output={tmp_path / 'out'}")
    assert (status, output) == (1, "")
    assert errors.startswith("error: ")
    assert error in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()
