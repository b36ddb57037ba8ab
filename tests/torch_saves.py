"""A small imitation of `torch.save`, in both of its formats."""

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from san_jax.weights.torch_files import STORAGE_DTYPES


class Global(NamedTuple):
    """A class or function that the pickle names."""

    module: str
    name: str

    def __call__(self):
        raise AssertionError("pickle only checks whether it is callable")


class Storage(NamedTuple):
    key: str
    data: np.ndarray
    elements: int | None = None  # the size that the pickle claims, if it is not the true one
    view: tuple | None = None


class Call(NamedTuple):
    """An object that the pickle builds by calling `function`."""

    function: Global
    arguments: tuple
    state: tuple | None = None


def tensor(storage, size, stride, offset=0):
    arguments = (storage, offset, size, stride, False, OrderedDict())
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


class Pickler(pickle._Pickler):
    """Writes PyTorch's pickles without PyTorch; only the pure-Python pickler can be made to write any global."""

    dispatch = pickle._Pickler.dispatch | {
        Global: lambda self, it: self.write(f"c{it.module}\n{it.name}\n".encode()),
        Call: lambda self, it: self.save_reduce(it.function, it.arguments, state=it.state),
    }

    def __init__(self, file, storages):
        super().__init__(file, protocol=2)
        self.storages = storages

    def persistent_id(self, it):
        if not isinstance(it, Storage):
            return None
        self.storages[it.key] = it.data
        elements = it.data.size if it.elements is None else it.elements
        name = next(name for name, dtype in STORAGE_DTYPES.items() if dtype == it.data.dtype)
        return ("storage", Global(*name.split(".")), it.key, "cpu", elements, it.view)


def save_zip(path, saved, *, byteorder=b"little", compression=zipfile.ZIP_STORED):
    pickled, storages = io.BytesIO(), {}
    Pickler(pickled, storages).dump(saved)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data.tobytes())


def save_stream(path, saved, *, little_endian=True, keys=None):
    storages = {}
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian}, saved):
            Pickler(file, storages).dump(part)
        pickle.dump(list(storages) if keys is None else keys, file, protocol=2)
        for data in storages.values():
            file.write(data.size.to_bytes(8, "little") + data.tobytes())


def as_saved(tensors: dict[str, np.ndarray], prefix: str = "") -> OrderedDict:
    """A state dict for `save_zip` and `save_stream`, with PyTorch's counters."""
    saved = OrderedDict()
    for name, values in tensors.items():
        stride = [stride // values.itemsize for stride in values.strides]
        saved[prefix + name] = tensor(Storage(name, values.ravel()), values.shape, tuple(stride))
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            saved[prefix + counter] = tensor(Storage(counter, np.array([3])), (), ())
    return saved
