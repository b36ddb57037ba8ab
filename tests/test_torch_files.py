"""The two `golden/torch_*.pt` were written by PyTorch 2.13 `torch.save(checkpoint, path, ...)`, in both formats, with

    base, norm = torch.arange(12.0).reshape(3, 4), torch.nn.BatchNorm1d(2)
    checkpoint = {
        "state_dict": norm.state_dict(),
        "decoder_state_dict": OrderedDict(weight=base, transposed=base.t(), part=base[1:, ::2], half=base.bfloat16()),
        "rank1": np.float64(0.8125),
        "epoch": 7,
    }

All other files are written by the small imitation of `torch.save` in torch_saves.py.
"""

import os
import pathlib
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from torch_saves import Call, Global, Storage, save_stream, save_zip, tensor

from san_jax.errors import UserError
from san_jax.weights.torch_files import NOTES, STORAGE_DTYPES, read_notes, read_tensors_file

GOLDEN = pathlib.Path(__file__).parent / "golden"
BASE = np.arange(12, dtype=np.float32).reshape(3, 4)


both_formats = pytest.mark.parametrize("save", [save_zip, save_stream])


def read_back(tmp_path, save, saved):
    path = tmp_path / "checkpoint.pt"
    save(path, saved)
    return read_tensors_file(path)


@pytest.mark.parametrize("name", ["torch_zip.pt", "torch_stream.pt"])
def test_checkpoint_written_by_pytorch_is_read(name):
    checkpoint = read_tensors_file(GOLDEN / name)
    assert list(checkpoint) == ["state_dict", "decoder_state_dict", "rank1", "epoch"]
    assert checkpoint["rank1"] == 0.8125
    assert isinstance(checkpoint["rank1"], np.float64)
    assert checkpoint["epoch"] == 7
    norm = checkpoint["state_dict"]
    assert list(norm) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    np.testing.assert_array_equal(norm["running_var"], np.ones(2, np.float32), strict=True)
    np.testing.assert_array_equal(norm["num_batches_tracked"], np.int64(0), strict=True)
    decoder = checkpoint["decoder_state_dict"]
    np.testing.assert_array_equal(decoder["weight"], BASE, strict=True)
    np.testing.assert_array_equal(decoder["transposed"], BASE.T, strict=True)
    np.testing.assert_array_equal(decoder["part"], BASE[1:, ::2], strict=True)
    np.testing.assert_array_equal(decoder["half"], BASE.astype(ml_dtypes.bfloat16), strict=True)
    assert np.shares_memory(decoder["weight"], decoder["part"])


@both_formats
@pytest.mark.parametrize("dtype", STORAGE_DTYPES.values(), ids=str)
def test_every_dtype_is_read_back(tmp_path, save, dtype):
    data = np.array([0, 1, 3, 100]).astype(dtype)
    read = read_back(tmp_path, save, tensor(Storage("0", data), (2, 2), (2, 1)))
    np.testing.assert_array_equal(read, data.reshape(2, 2), strict=True)


@both_formats
@pytest.mark.parametrize(
    ("size", "stride", "offset", "expected"),
    [
        ((), (), 5, BASE[1, 1]),
        ((4, 3), (1, 4), 0, BASE.T),
        ((2, 2), (4, 2), 5, BASE[1:, 1::2]),
        ((0, 3), (3, 1), 12, np.zeros((0, 3), np.float32)),
        ((3, 2), (0, 1), 2, np.array([[2, 3]] * 3, np.float32)),
    ],
    ids=["scalar", "transposed", "part", "empty", "expanded"],
)
def test_strides_and_offsets_count_elements(tmp_path, save, size, stride, offset, expected):
    read = read_back(tmp_path, save, tensor(Storage("0", BASE.ravel()), size, stride, offset))
    np.testing.assert_array_equal(read, expected, strict=True)


@both_formats
def test_tensors_of_one_storage_share_its_memory_and_cannot_be_written(tmp_path, save):
    storage = Storage("0", BASE.ravel())
    first, second = read_back(tmp_path, save, [tensor(storage, (3, 4), (4, 1)), tensor(storage, (4,), (1,), 8)])
    assert np.shares_memory(first, second)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


@both_formats
def test_view_of_a_storage_starts_at_its_offset(tmp_path, save):
    view = Storage("0", BASE.ravel(), view=("view", 4, 6))
    read = read_back(tmp_path, save, tensor(view, (5,), (1,), 1))
    np.testing.assert_array_equal(read, np.arange(5, 10, dtype=np.float32), strict=True)


@both_formats
def test_parameters_sizes_devices_and_containers_are_built(tmp_path, save):
    weight = tensor(Storage("0", BASE.ravel()), (12,), (1,))
    saved = {
        "parameter": Call(Global("torch._utils", "_rebuild_parameter"), (weight, True, OrderedDict())),
        "old": Call(Global("torch._utils", "_rebuild_tensor"), (Storage("0", BASE.ravel()), 0, (2,), (1,))),
        "size": Call(Global("torch", "Size"), ((3, 4),)),
        "device": Call(Global("torch", "device"), ("cuda", 1)),
        "plain": [1, 2.5, None, True, "é", b"\x00\xff", (2**70,), {3}, OrderedDict(a=1)],
    }
    read = read_back(tmp_path, save, saved)
    np.testing.assert_array_equal(read["parameter"], BASE.ravel(), strict=True)
    np.testing.assert_array_equal(read["old"], BASE[0, :2], strict=True)
    assert read["size"] == (3, 4)
    assert read["device"] == "cuda:1"
    assert read["plain"] == saved["plain"]


def numpy_scalar(code, data, *, byteorder="<", module="numpy.core.multiarray"):
    dtype = Call(Global("numpy", "dtype"), (code, 0, 1), state=(3, byteorder, None, None, None, -1, -1, 0))
    return Call(Global(module, "scalar"), (dtype, data))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_old_and_new_numpy_are_built(tmp_path, module):
    read = read_back(tmp_path, save_stream, numpy_scalar("f4", np.float32(0.75).tobytes(), module=module))
    assert read == 0.75
    assert isinstance(read, np.float32)


def test_numpy_scalar_keeps_its_byte_order(tmp_path):
    assert read_back(tmp_path, save_zip, numpy_scalar("i4", b"\x00\x00\x01\x00", byteorder=">")) == 256


def test_numpy_scalar_written_as_text_by_python_2_is_built(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_stream(path, numpy_scalar("f8", "BYTES..."))
    text = b"X\x08\x00\x00\x00BYTES..."
    content = path.read_bytes()
    assert content.count(text) == 1
    path.write_bytes(content.replace(text, b"U\x08" + np.float64(0.8).tobytes()))
    assert read_tensors_file(path) == 0.8


@both_formats
@pytest.mark.parametrize(
    ("module", "name"),
    [("posix", "system"), ("builtins", "eval"), ("torch.nn.modules.linear", "Linear"), ("numpy", "load")],
)
def test_other_classes_and_functions_are_refused_by_name_and_not_called(tmp_path, save, module, name):
    attack = Call(Global(module, name), (f"touch {tmp_path}/ran",))
    with pytest.raises(UserError, match=rf"checkpoint\.pt holds {module}\.{name}, .* save a state_dict"):
        read_back(tmp_path, save, {"state_dict": attack})
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_object_dtype_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"numpy dtype 'O8'"):
        read_back(tmp_path, save_zip, numpy_scalar("O8", bytes(8)))


def test_file_that_sets_the_state_of_a_dtype_does_not_change_numpys_own(tmp_path):
    dtype = Call(Global("numpy", "dtype"), ("f8", False, False), state=(3, ">", None, None, None, -1, -1, 0))
    read_back(tmp_path, save_zip, [dtype])
    assert np.dtype("f8").str == "<f8"


@both_formats
@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (tensor(Storage("0", BASE.ravel()), (13,), (1,)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (12,), (1,), 1), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (2,), (1,), -1), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (3, 4), (5, 1)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (2,), (-1,)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (2**40,), (0,)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (2**62, 4), (1, 1)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (2**30 + 1,), (2**32,)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (-1, 3), (1, 1)), "in a storage of 12"),
        (tensor(Storage("0", BASE.ravel()), (2, 2), (1,)), "shorter"),
        (tensor(Storage("0", BASE.ravel(), view=("view", 8, 5)), (5,), (1,)), "beyond its end"),
        (tensor(Storage("0", BASE.ravel(), view=("view", -1, 5)), (5,), (1,)), "beyond its end"),
        (tensor(Storage("0", BASE.ravel(), elements=2**50), (12,), (1,)), "storage"),
        (tensor(Storage("0", BASE.ravel(), elements=-1), (0,), (1,)), "persistent id"),
        (tensor(Storage("0", BASE.ravel(), elements=11), (11,), (1,)), "a storage of"),
        ([tensor(Storage("0", data), (4,), (1,)) for data in (BASE.ravel(), BASE.ravel().view("i4"))], "a storage of"),
    ],
    ids=[
        "too long", "beyond the end", "before the start", "wide stride", "negative stride", "endless",
        "overflowing size", "overflowing stride", "negative size", "a stride too few", "view beyond the end",
        "view before the start", "huge storage", "negative storage", "storage of another length",
        "storage of two types",
    ],
)  # fmt: skip
def test_tensor_that_its_storage_cannot_hold_is_an_error(tmp_path, save, hostile, reason):
    with pytest.raises(UserError, match=rf"checkpoint\.pt is damaged .*{reason}"):
        read_back(tmp_path, save, hostile)


@pytest.mark.parametrize("name", ["torch_zip.pt", "torch_stream.pt"])
def test_file_cut_short_anywhere_is_a_one_line_error(tmp_path, name):
    content = (GOLDEN / name).read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut\.pt is damaged or no checkpoint") as caught:
            read_tensors_file(path)
        assert "\n" not in str(caught.value)


def test_changed_byte_of_a_zip_is_an_error(tmp_path):
    content = bytearray((GOLDEN / "torch_zip.pt").read_bytes())
    start = content.index(BASE.tobytes())
    content[start + 5] ^= 1
    path = tmp_path / "changed.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="CRC"):
        read_tensors_file(path)


def test_compressed_archive_is_refused(tmp_path):
    bomb = tensor(Storage("0", np.zeros(2**16, np.float32)), (2**16,), (1,))
    save_zip(tmp_path / "bomb.pt", bomb, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is compressed"):
        read_tensors_file(tmp_path / "bomb.pt")


def test_compressed_description_of_the_networks_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"archive/{NOTES}", b" " * 2**20 + b"{}")
    with pytest.raises(UserError, match=r"bomb\.pth holds a damaged description .*is compressed"):
        read_notes(tmp_path / "bomb.pth")


def test_storage_missing_from_the_list_of_a_stream_is_an_error(tmp_path):
    save_stream(tmp_path / "keys.pt", tensor(Storage("0", BASE.ravel()), (12,), (1,)), keys=[])
    with pytest.raises(UserError, match="storages and their list differ"):
        read_tensors_file(tmp_path / "keys.pt")


def test_file_of_a_big_endian_machine_is_an_error(tmp_path):
    save_zip(tmp_path / "big.zip", {}, byteorder=b"big")
    save_stream(tmp_path / "big.stream", {}, little_endian=False)
    for name in ("big.zip", "big.stream"):
        with pytest.raises(UserError, match="big-endian"):
            read_tensors_file(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"hello\nworld", pickle.dumps({"a": 1})])
def test_files_of_other_formats_are_an_error(tmp_path, content):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.pt is damaged or no checkpoint .*; fetch or save it again"):
        read_tensors_file(path)


def test_zip_without_a_pickle_is_an_error(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=BASE)
    with pytest.raises(UserError, match=r"data\.pkl"):
        read_tensors_file(tmp_path / "arrays.npz")


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt cannot be read: No such file"):
        read_tensors_file(tmp_path / "none.pt")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_tensors_file(tmp_path)


def test_safetensors_are_read_with_bfloat16(tmp_path):
    tensors = {
        "layer1.weight": BASE,
        "half": BASE.astype(ml_dtypes.bfloat16),
        "count": np.array(3, np.int64),
        "mask": np.array([True, False]),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "weights.safetensors")
    read = read_tensors_file(tmp_path / "weights.safetensors")
    assert read.keys() == tensors.keys()
    for name, expected in tensors.items():
        np.testing.assert_array_equal(read[name], expected, strict=True)


def test_safetensors_cut_short_are_an_error(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save({"weight": BASE})[:-1])
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        read_tensors_file(path)


def test_safetensors_of_an_unknown_dtype_are_an_error_naming_tensor_and_dtype(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save({"fc.weight": BASE.astype(np.complex64)}))
    with pytest.raises(UserError, match=r"fc\.weight is of type C64"):
        read_tensors_file(path)


@both_formats
def test_checkpoint_with_milestones_of_a_scheduler_is_read(tmp_path, save):
    milestones = Call(Global("collections", "Counter"), ({40: 1, 90: 1},))
    checkpoint = read_back(tmp_path, save, {"model": {}, "scheduler": {"milestones": milestones}})
    assert checkpoint["scheduler"]["milestones"] == {40: 1, 90: 1}


NESTED = b")" + b"2\x86" * 60  # 60 tuples, each of twice the one before: 2^60 elements if something looks at them


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"}" + NESTED + b"Ns.", "a tuple where a name or number is wanted"),
        (b"}(" + NESTED + b"Nu.", "a tuple where a name or number is wanted"),
        (b"(" + NESTED + b"Nd.", "a tuple where a name or number is wanted"),
        (b"cbuiltins\nset\n](" + NESTED + b"e\x85R.", "a tuple where a name or number is wanted"),
        (b"ccollections\nOrderedDict\n]" + NESTED + b"N\x86a\x85R.", "a tuple where a name or number is wanted"),
        (b"ctorch\ndevice\n" + NESTED + b"\x85R.", "a tuple where a name or number is wanted"),
        (b"cnumpy\ndtype\n" + NESTED + b"\x85R.", "a tuple where a name or number is wanted"),
        (b"(" + NESTED + b"NNNNtQ.", "a tuple where a name or number is wanted"),
        (b"ctorch._utils\n_rebuild_parameter\n}X\x01\x00\x00\x00aNsb.", "the state of a method"),
        (b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", "it is cut short"),
        (b"ctorch", "it is cut short"),
    ],
)
def test_pickle_that_would_take_memory_or_time_without_end_is_refused(tmp_path, pickled, reason):
    path = tmp_path / "a.pt"
    save_zip(path, {})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled)
    with pytest.raises(UserError, match=rf"a\.pt is damaged or no checkpoint .*{reason}"):
        read_tensors_file(path)


def test_memory_does_not_grow_with_the_numbers_that_a_pickle_gives_its_objects(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b".")
    tracemalloc.start()
    try:
        assert read_tensors_file(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
