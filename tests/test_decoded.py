import functools

import numpy as np
import pytest
from array_source import ArraySource

from san_jax.data import decoded
from san_jax.data.decoded import Field
from san_jax.data.decoded_store import DecodedStore
from san_jax.data.joined_source import JoinedSource

FIELDS = [Field("image", 36, 18), Field("texture", 32, 32)]


class Counted(ArraySource):
    """Counts how often a record is read."""

    def __init__(self, *args, digest, **options):
        super().__init__(*args, **options)
        self.digest, self.reads = digest, 0

    def __getitem__(self, row):
        self.reads += 1
        return super().__getitem__(row)


def source_of(digest="one", num_rows=70, **options):
    return Counted(np.arange(num_rows) // 4, digest=digest, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_hold_the_decoded_pictures_of_all_rows_in_order(workers):
    source = source_of()
    arrays = decoded.decode_all(source, FIELDS, workers=workers)
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "image": ((70, 36, 18, 3), np.uint8),
        "texture": ((70, 32, 32, 3), np.uint8),
    }
    assert decoded.num_bytes(source, FIELDS) == sum(array.nbytes for array in arrays.values())
    for row in (0, 31, 32, 69):
        for field in FIELDS:
            expected = decoded.decode(source[row][field.name], height=field.height, width=field.width)
            np.testing.assert_array_equal(arrays[field.name][row], expected)


def test_kept_pictures_are_read_and_not_decoded_again(tmp_path):
    store = DecodedStore(tmp_path, max_bytes=10**6)
    decode = functools.partial(decoded.decode_all, fields=FIELDS, workers=2, store=store)
    first, again = source_of(), source_of()
    expected = decoded.decode_all(source_of(""), FIELDS, workers=0)
    for source, reads in ((first, 140), (again, 0)):
        arrays = decode(source)
        assert source.reads == reads
        assert not any(array.flags.writeable for array in arrays.values())
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("other", [dict(digest="another"), dict(num_rows=69)])
def test_another_set_gets_its_own_pictures(other, tmp_path):
    store = DecodedStore(tmp_path, max_bytes=10**6)
    decode = functools.partial(decoded.decode_all, workers=0, store=store)
    decode(source_of(), FIELDS)
    changed = source_of(**other)
    decode(changed, FIELDS)
    assert changed.reads == 2 * len(changed)
    resized = source_of()
    decode(resized, [Field("image", 32, 16)])
    assert resized.reads == 70


def test_all_fields_of_a_set_are_kept_or_none(tmp_path):
    """Otherwise one would push out the other, at every start."""
    room = decoded.num_bytes(source_of(), FIELDS) - 1
    arrays = decoded.decode_all(source_of(), FIELDS, workers=0, store=DecodedStore(tmp_path / "new", max_bytes=room))
    assert [array.flags.writeable for array in arrays.values()] == [True, True]
    assert not (tmp_path / "new").exists()


def test_source_without_a_digest_is_not_kept(tmp_path):
    decoded.decode_all(source_of(""), FIELDS, workers=0, store=DecodedStore(tmp_path / "new", max_bytes=10**6))
    assert not (tmp_path / "new").exists()


def test_joined_sources_have_a_digest_if_each_of_them_has_one():
    one, other = source_of("one"), source_of("other")
    assert JoinedSource([one, other]).digest
    assert JoinedSource([one, other]).digest != JoinedSource([other, one]).digest
    assert JoinedSource([one, source_of("")]).digest == ""
