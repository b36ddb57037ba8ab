import io

import numpy as np
import pytest
from array_source import encoded
from PIL import Image

from san_jax.data import decoded, picture_folder
from san_jax.errors import UserError

ORIENTATION = 0x0112  # EXIF


def write(folder, names, content=b""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def names_in(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_pictures_of_a_tree_are_listed_in_order_and_other_files_apart(tmp_path):
    pictures = ["a.png", "b.JPG", "c.tif", "d.gif", "e.webp", "f.avif", "sub/c.jpeg", "sub/deep/d.bmp"]
    others = ["clip.mpg", "f.npy", "g.png.part", "notes.txt", "png", "print.eps"]
    write(tmp_path, [*pictures, *others])
    (tmp_path / "folder.png").mkdir()
    listing = picture_folder.list_files(tmp_path)
    assert names_in(tmp_path, listing.pictures) == pictures
    assert names_in(tmp_path, listing.others) == others
    assert listing.remark(tmp_path) == (
        f"{tmp_path}: 6 files are ignored, not being pictures: "
        "clip.mpg, f.npy, g.png.part, notes.txt, png and 1 more"
    )


def test_picture_without_a_suffix_is_recognised_by_its_content(tmp_path):
    write(tmp_path, ["IMG_0001"], encoded(np.zeros((4, 2, 3), np.uint8)))
    write(tmp_path, ["README"], b"P1 is a place")
    listing = picture_folder.list_files(tmp_path)
    assert names_in(tmp_path, listing.pictures) == ["IMG_0001"]
    assert listing.remark(tmp_path).endswith(": 1 file is ignored, not being pictures: README")


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.ppm", "a.webp", "a.jp2", "a.tga", "a.bmp"])
def test_lossless_formats_decode_to_the_same_pixels(name, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 10, 3), np.uint8) // 64 * 85  # 64 colours fit a GIF
    options = {".webp": {"lossless": True}, ".jp2": {"irreversible": False}}.get(name[1:], {})
    Image.fromarray(picture).save(tmp_path / name, **options)
    [path] = picture_folder.list_files(tmp_path).pictures
    np.testing.assert_array_equal(picture_folder.decode(path.read_bytes(), height=20, width=10), picture)


def test_hidden_files_and_folders_are_ignored(tmp_path):
    names = ["a.png", "._a.png", ".DS_Store.png", ".ipynb_checkpoints/a.png", "sub/.c.jpg", "sub/c.jpg", ".x/y/z.png"]
    folder = write(tmp_path / ".hidden", names)
    listing = picture_folder.list_files(folder)
    assert names_in(folder, listing.pictures) == ["a.png", "sub/c.jpg"]
    assert listing.others == []
    assert listing.remark(folder) == ""
    with pytest.raises(UserError, match="holds no pictures"):
        picture_folder.list_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere", r"nowhere cannot be read .No such file or directory.; give a folder of pictures"),
        ("file", r"file cannot be read .Not a directory.; give a folder of pictures"),
        ("empty", r"empty holds no pictures .* like.; give a folder that does"),
    ],
)
def test_path_that_is_no_folder_of_pictures_is_named(name, error, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=error):
        picture_folder.list_files(tmp_path / name)


def test_picture_is_decoded_as_the_data_sets_are():
    picture = np.random.default_rng(0).integers(0, 256, (50, 21, 3), np.uint8)
    expected = decoded.decode(encoded(picture), height=32, width=16)
    np.testing.assert_array_equal(picture_folder.decode(encoded(picture), height=32, width=16), expected)


def turned(picture):
    """PNG as a phone held sideways stores it: rotated pixels and the EXIF orientation that undoes the rotation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 6
    Image.fromarray(np.rot90(picture).copy()).save(file, "PNG", exif=exif)
    return file.getvalue()


def test_exif_orientation_is_applied():
    picture = np.zeros((40, 20, 3), np.uint8)
    picture[:20] = 255
    np.testing.assert_array_equal(picture_folder.decode(turned(picture), height=40, width=20), picture)
    np.testing.assert_array_equal(picture_folder.thumbnail(picture_folder.upright(turned(picture)), height=40), picture)


def test_array_is_filled_or_the_reason_returned_in_one_line(tmp_path):
    whole = encoded(np.full((4, 2, 3), 7, np.uint8))
    into = np.zeros((8, 4, 3), np.uint8)
    assert picture_folder.decode_into(lambda: b"no picture", into) == "it is no picture"
    assert picture_folder.decode_into((tmp_path / "a.png").read_bytes, into) == "No such file or directory"
    assert not into.any()
    cut = picture_folder.decode_into(lambda: whole[:-20], into)
    assert cut
    assert "\n" not in cut
    assert picture_folder.decode_into(lambda: whole, into) == ""
    assert (into == 7).all()


def test_damaged_data_set_raises_instead_of_returning_a_reason():
    def damaged():
        raise UserError("prepare it again")

    with pytest.raises(UserError, match="prepare it again"):
        picture_folder.decode_into(damaged, np.zeros((8, 4, 3), np.uint8))


@pytest.mark.parametrize(("size", "width"), [((40, 20), 5), ((20, 40), 20), ((10, 500), 20), ((500, 1), 1)])
def test_thumbnail_keeps_proportions_up_to_twice_as_wide_as_high(size, width):
    found = picture_folder.thumbnail(Image.fromarray(np.full((*size, 3), 9, np.uint8)), height=10)
    assert found.shape == (10, width, 3)
    assert (found == 9).all()


def test_thumbnail_of_an_unreadable_file_is_grey():
    assert np.unique(picture_folder.thumbnail(None, height=10)).tolist() == [200]


def test_size_is_that_of_the_upright_picture_and_none_of_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(turned(np.zeros((40, 20, 3), np.uint8)))
    (tmp_path / "b.png").write_bytes(encoded(np.zeros((40, 20, 3), np.uint8)))
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert picture_folder.size_of(tmp_path / "a.png") == picture_folder.size_of(tmp_path / "b.png") == (20, 40)
    assert picture_folder.size_of(tmp_path / "c.png") is None


def encoded_as(picture, suffix, **options):
    content = io.BytesIO()
    picture.save(content, suffix, **options)
    return content.getvalue()


RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)


@pytest.mark.parametrize(
    "encoded",
    [
        encoded_as(Image.fromarray(RAMP), "PNG"),
        encoded_as(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        encoded_as(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        encoded_as(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
        encoded_as(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        encoded_as(Image.fromarray(RAMP).convert("P"), "GIF"),
        encoded_as(Image.fromarray(RAMP).convert("RGBA"), "PNG"),
        encoded_as(Image.fromarray(RAMP).convert("LA"), "PNG"),
    ],
    ids=["L", "16 bits", "32-bit integers", "floats to 1", "floats to 255", "palette", "RGBA", "LA"],
)
def test_picture_of_any_mode_is_read_as_a_viewer_shows_it(encoded):
    found = picture_folder.decode(encoded, height=8, width=8)
    np.testing.assert_allclose(found, np.repeat(RAMP[..., None], 3, axis=2), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(mode):
    layers = np.zeros((8, 8, 4), np.uint8)
    layers[:4, :, 3] = 255  # black above, transparent below
    picture = Image.fromarray(layers)
    found = picture_folder.decode(encoded_as(picture.convert(mode), "PNG"), height=8, width=8)
    assert (found[:4] == 0).all()
    assert (found[4:] == 255).all()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_time_of_a_picture_is_that_of_its_exif(suffix, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:28 14:03:05"
    Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}", exif=exif)
    assert picture_folder.time_of(tmp_path / f"a{suffix}") == "2026-11-28T14:03:05"


@pytest.mark.parametrize("taken", ["    :  :     :  :  ", "0000:00:00 00:00:00", "yesterday", ""])
def test_picture_whose_camera_has_no_clock_has_no_time(taken, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = taken
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_folder.time_of(tmp_path / "a.jpg") == ""


def test_files_without_exif_have_no_time_and_are_not_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    monkeypatch.setattr(Image.Image, "load", None)
    names = ("a.png", "b.jpg", "nowhere.jpg")
    assert [picture_folder.time_of(tmp_path / name) for name in names] == ["", "", ""]
