import jax
import numpy as np
import pytest
from commands import call_on_devices

from san_jax.errors import UserError
from san_jax.scoring import gallery_feats, nearest
from san_jax.scoring.gallery_feats import GalleryFeats


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    use_small_chunks(monkeypatch.setattr)


def use_small_chunks(setattr):
    """Chunks of 1,024 rows in blocks of 64, nine queries at a time, so that small galleries have many."""
    for name, value in [("CHUNK", 1024), ("BLOCK", 64), ("QUERIES", 9)]:
        setattr(gallery_feats, name, value)
    jax.clear_caches()


def whole_numbers(seed, count, *, length=5):
    """Features of small whole numbers: distances are exact, and many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, (count, length)).astype(np.float32)


def plain_nearest(query_feats, feats, k, allowed=None):
    """Sorts the whole gallery for every query."""
    distmat = np.sum((query_feats[:, None].astype(np.float64) - feats.astype(np.float64)) ** 2, axis=2)
    if allowed is not None:
        distmat[:, ~allowed] = np.inf
    rows = np.argsort(distmat, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distmat, rows, axis=1), rows


def check(found, expected):
    np.testing.assert_array_equal(found.rows, expected[1])
    np.testing.assert_array_equal(found.distances, expected[0])


def mapped(path, feats):
    np.save(path, feats)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize(("num_query", "num_gallery", "k"), [(1, 1, 1), (5, 70, 70), (30, 1024, 3), (23, 5003, 7)])
def test_nearest_are_the_first_of_a_stable_sort(num_query, num_gallery, k, dtype, in_file, tmp_path):
    query_feats, feats = whole_numbers(0, num_query), whole_numbers(1, num_gallery).astype(dtype)
    parts = [mapped(tmp_path / "feats.npy", feats) if in_file else feats]
    check(GalleryFeats(parts).nearest(query_feats, k=k), plain_nearest(query_feats, feats, k))


def test_they_are_those_of_all_distances_at_once():
    rng = np.random.default_rng(0)
    query_feats, feats = (rng.standard_normal((count, 64), dtype=np.float32) for count in (20, 3000))
    for distance in ("euclidean", "cosine"):
        found = GalleryFeats([feats]).nearest(query_feats, k=9, distance=distance)
        expected = nearest.nearest(query_feats, feats, k=9, distance=distance)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5, atol=1e-5)


def test_parts_with_rows_anywhere_and_unused_ones_are_one_gallery(tmp_path):
    feats = whole_numbers(2, 4000)
    order = np.random.default_rng(3).permutation(4000)
    places = [order[:700], np.sort(order[700:2900]), order[2900:]]
    parts, rows = [], []
    for number, place in enumerate(places):
        # Every eighth row of a part is of a picture that is gone; it would be the nearest of all.
        rest = np.zeros((len(place) * 8 // 7 + 1, 5), np.float32)
        of_part = np.full(len(rest), gallery_feats.UNUSED)
        used = np.flatnonzero(np.arange(len(rest)) % 8)[: len(place)]
        rest[used], of_part[used] = feats[place], place
        parts.append(mapped(tmp_path / f"{number}.npy", rest))
        rows.append(of_part)
    gallery = GalleryFeats(parts, rows)
    assert (len(gallery), gallery.shape) == (4000, (4000, 5))
    query_feats = whole_numbers(4, 12)
    check(gallery.nearest(query_feats, k=6), plain_nearest(query_feats, feats, 6))


def test_only_allowed_pictures_are_found():
    query_feats, feats = whole_numbers(0, 10), whole_numbers(1, 3000)
    allowed = np.arange(3000) % 7 == 3
    gallery = GalleryFeats([feats])
    check(gallery.nearest(query_feats, k=9, allowed=allowed), plain_nearest(query_feats, feats, 9, allowed))
    found = gallery.nearest(query_feats, k=3, allowed=np.isin(np.arange(3000), [5, 2999]))
    assert (np.sort(found.rows, axis=1) == [5, 2999, gallery_feats.NOWHERE]).all()
    assert np.isinf(found.distances[:, 2]).all()


def test_chunks_of_a_mapped_file_are_used_in_place(tmp_path):
    feats = mapped(tmp_path / "feats.npy", np.ones((2 * 1024 + 5, 16), np.float16))
    first, second, rest = (chunk.feats for chunk in GalleryFeats([feats])._here())
    assert first.unsafe_buffer_pointer() == feats.ctypes.data
    assert second.unsafe_buffer_pointer() == feats.ctypes.data + feats[:1024].nbytes
    assert (first.dtype, rest.shape) == (np.float16, (1024, 16))


def test_equal_pictures_have_equal_distances_wherever_they_are_stored(tmp_path):
    rng = np.random.default_rng(5)
    feats = rng.standard_normal((2500, 64)).astype(np.float16)
    copies = [3, 700, 1023, 1024, 2047, 2048, 2499]
    feats[copies] = feats[3]
    parts = [mapped(tmp_path / "feats.npy", feats[:2100]), feats[2100:]]
    query_feats = feats[3:4].astype(np.float32) + 0.01 * rng.standard_normal((20, 64), dtype=np.float32)
    found = GalleryFeats(parts).nearest(query_feats, k=7)
    np.testing.assert_array_equal(found.rows, [copies] * 20)
    assert len(np.unique(found.distances)) == 20


def test_nothing_is_found_in_a_gallery_without_pictures():
    found = GalleryFeats([np.empty((0, 5), np.float32)]).nearest(whole_numbers(0, 2), k=3, allowed=np.empty(0, bool))
    assert (found.rows == gallery_feats.NOWHERE).all()
    assert np.isinf(found.distances).all()


@pytest.mark.parametrize(
    ("query", "feats", "k", "message"),
    [
        (np.zeros((2, 4)), np.zeros((3, 4)), 10, "k is 10, but the gallery has only 3 pictures"),
        (np.zeros((2, 4)), np.zeros((0, 4)), 1, "k is 1, but the gallery has only 0 pictures"),
        (np.zeros((2, 4)), np.zeros((3, 4)), 0, "k is 0; ask for 1"),
        (np.zeros((0, 4)), np.zeros((3, 4)), 1, "no query pictures"),
        (np.zeros((2, 4)), np.zeros((3, 5)), 1, "query features have 4 numbers, gallery features 5; "),
        (np.full((1, 4), np.inf), np.zeros((3, 4)), 1, "^query features hold NaN"),
    ],
)
def test_invalid_input_is_an_error(query, feats, k, message):
    with pytest.raises(UserError, match=message):
        GalleryFeats([feats.astype(np.float32)]).nearest(query.astype(np.float32), k=k)


def test_broken_features_are_named_by_their_row_in_the_gallery():
    feats = whole_numbers(0, 3000)
    feats[1500, 2], feats[2999, 0] = np.nan, np.inf
    with pytest.raises(UserError, match=r"^gallery features hold NaN, inf .* in 2 rows, first in row 0;"):
        GalleryFeats([feats], [np.arange(3000)[::-1]])
    GalleryFeats([feats], [np.where(np.isfinite(feats).all(axis=1), np.arange(3000), gallery_feats.UNUSED)])


def check_meshes():
    """Runs in a process with eight devices, among which the chunks are shared out."""
    use_small_chunks(setattr)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    for num_gallery, k in [(3, 3), (5003, 10), (20_000, 10)]:
        query_feats, feats = whole_numbers(0, 23), whole_numbers(1, num_gallery)
        gallery = GalleryFeats([feats], mesh=mesh)
        assert len(gallery._chunks) == min(-(-num_gallery // 1024), 8)
        check(gallery.nearest(query_feats, k=k), plain_nearest(query_feats, feats, k))


def test_gallery_on_eight_devices_gives_the_same_result():
    call_on_devices(8, "test_gallery_feats", "check_meshes")
