"""These files were read by `torch.load` of PyTorch 2.13, with and without weights_only, and with mmap."""

import io
import zipfile

import numpy as np
import pytest

from san_jax.weights.torch_files import read_notes, read_tensors_file
from san_jax.weights.torch_writer import pickled, torch_archive

TENSORS = {
    "conv.weight": np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32),
    "bn.num_batches_tracked": np.array(3),
    "größe.bias": np.arange(300, dtype=np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
}


def test_written_tensors_and_notes_are_read_back(tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(torch_archive(TENSORS, {"san_jax": '{"mode": "san"}'}))
    read = read_tensors_file(path)
    assert list(read) == list(TENSORS)
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(read[name], values, strict=True)
    assert read_notes(path) == {"mode": "san"}


def test_archive_has_the_entries_of_torch_save_uncompressed_and_aligned():
    content = torch_archive(TENSORS, {})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    data = [f"data/{key}" for key in range(len(TENSORS))]
    assert [entry.filename for entry in entries] == [
        f"archive/{name}" for name in ("data.pkl", "byteorder", *data, "version")
    ]
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    start = content.index(TENSORS["größe.bias"].tobytes())
    assert start % 64 == 0
    assert content == torch_archive(TENSORS, {})


def test_pickle_is_byte_for_byte_the_one_that_torch_load_has_read():
    expected = (
        b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00bctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x02\xc8\x00tQ"
        b"\x8a\x01\x00(\x8a\x02\xc8\x00t(\x8a\x01\x01t\x89ccollections\nOrderedDict\n)RtRu."
    )
    assert pickled({"b": np.zeros(200, np.float32)}) == expected


def test_unsupported_dtype_is_an_error():
    with pytest.raises(KeyError):
        pickled({"b": np.zeros(2, np.complex64)})
