import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from runs import save_run
from served import person, png

from san_jax import model as models
from san_jax.serving import queries
from san_jax.serving.guard import Refused
from san_jax.serving.queries import Queries
from san_jax.serving.turns import Turns


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.load(save_run(tmp_path_factory.mktemp("run"), mode="baseline"))


@pytest.fixture
def kept(model):
    return Queries(model, Turns())


def bomb(width, height):
    """A small PNG file that claims this size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_features_are_those_of_the_network(model, kept):
    picture = person("red")
    query = kept.get(kept.add(png(picture), name="red.png"))
    np.testing.assert_array_equal(query.feats, model.features([picture])[0])
    assert (query.name, query.size, query.box) == ("red.png", (16, 32), None)


def test_box_is_cut_out_and_can_be_drawn_anew(model, kept):
    picture = Image.new("RGB", (80, 60), "grey")
    picture.paste(person("red"), (10, 20))
    first = kept.add(png(picture), name="street.png", box=(10, 20, 26, 52))
    np.testing.assert_array_equal(kept.get(first).feats, model.features([person("red")])[0])
    whole = kept.add_part(first, None)
    np.testing.assert_array_equal(kept.get(whole).feats, model.features([picture])[0])
    assert kept.get(whole).size == (80, 60)
    assert kept.get(first).person().size == (16, 32)


def test_picture_is_upright_as_its_exif_says(kept):
    encoded, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    person("red").save(encoded, "JPEG", exif=exif)
    query = kept.get(kept.add(encoded.getvalue(), name="turned.jpg", box=(0, 0, 32, 16)))
    assert query.size == query.person().size == (32, 16)
    with Image.open(io.BytesIO(query.preview)) as preview:
        assert preview.size == (32, 16)


def test_preview_of_a_large_picture_is_small(kept):
    query = kept.get(kept.add(png(Image.new("RGB", (3200, 800))), name="wide.png"))
    with Image.open(io.BytesIO(query.preview)) as preview:
        assert preview.size == (1600, 400)


@pytest.mark.parametrize("box", [(-1, 0, 10, 10), (0, 0, 17, 10), (0, 0, 10, 33), (0, 0, 7, 20), (5, 9, 2, 30)])
def test_box_that_is_not_in_the_picture_is_refused(box, kept):
    with pytest.raises(Refused, match="the box must lie in the picture") as refused:
        kept.add(png(person("red")), name="red.png", box=box)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", r"this picture cannot be read \(it is no picture\); give another one"),
        (b"words", r"cannot be read \(it is no picture\)"),
        (png(person("red"))[:200], r"cannot be read \("),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"cannot be read \(it is no picture\)"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(content, line, kept):
    with pytest.raises(Refused, match=line) as refused:
        kept.add(content, name="x.png")
    assert refused.value.status == 422
    assert "\n" not in refused.value.line


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)])
def test_picture_with_too_many_pixels_is_refused_before_it_is_decoded(size, kept, monkeypatch):
    monkeypatch.setattr(queries, "_decoded", None)  # would fail if it were called
    with pytest.raises(Refused, match="has more than 50 million pixels; give a smaller one") as refused:
        kept.add(bomb(*size), name="bomb.png")
    assert refused.value.status == 413


def test_only_the_last_ones_are_kept(kept, monkeypatch):
    monkeypatch.setattr(queries, "MOST_KEPT", 2)
    first, second = (kept.add(png(person("red", seed=seed)), name=f"{seed}.png") for seed in range(2))
    kept.get(first)  # was used last
    kept.add(png(person("blue")), name="blue.png")
    assert kept.get(first).name == "0.png"
    with pytest.raises(Refused, match="not kept any more; choose it again") as refused:
        kept.get(second)
    assert refused.value.status == 404


def test_their_bytes_are_bounded_together(kept, monkeypatch):
    content = png(person("red"))
    monkeypatch.setattr(queries, "MOST_KEPT_BYTES", int(3.5 * len(content)))
    keys = [kept.add(content, name=f"{number}.png") for number in range(4)]
    kept.get(keys[-1])
    with pytest.raises(Refused):
        kept.get(keys[0])


def test_a_dropped_query_is_gone(kept):
    key = kept.add(png(person("red")), name="red.png")
    kept.drop(key)
    kept.drop(key)
    with pytest.raises(Refused):
        kept.get(key)
