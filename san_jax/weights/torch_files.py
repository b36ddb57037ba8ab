"""Reads PyTorch's checkpoints and safetensors without PyTorch: builds tensors and plain containers, runs nothing."""

import io
import math
import os
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from san_jax import files
from san_jax.errors import UserError

STORAGE_DTYPES = {
    "torch.DoubleStorage": np.dtype("f8"),
    "torch.FloatStorage": np.dtype("f4"),
    "torch.HalfStorage": np.dtype("f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("i8"),
    "torch.IntStorage": np.dtype("i4"),
    "torch.ShortStorage": np.dtype("i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
    "torch.ComplexFloatStorage": np.dtype("c8"),
    "torch.ComplexDoubleStorage": np.dtype("c16"),
}
SAFETENSORS_DTYPES = {
    "F64": np.dtype("f8"),
    "F32": np.dtype("f4"),
    "F16": np.dtype("f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("i8"),
    "I32": np.dtype("i4"),
    "I16": np.dtype("i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("u8"),
    "U32": np.dtype("u4"),
    "U16": np.dtype("u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
SCALAR_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
MOST_ELEMENTS = 2**31  # of one tensor; with strides of zero a file can claim any number of them for one stored value

KEYS = (str, bytes, int, float, np.generic, type(None))  # what a file may use as a key

NOTES = "san_jax"  # key of safetensors' metadata, entry of PyTorch's archive

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_VERSION = 1001


def read_tensors_file(path: str | os.PathLike) -> Any:
    """The object that a file holds, its tensors as read-only numpy arrays.

    The format is detected from the content: PyTorch's zip archive (since 1.6), its older stream of pickles, or
    safetensors. Tensors that share memory in the file share it here. bfloat16 is that of ml_dtypes.

    Returns:
      For safetensors a dict name -> array; else whatever was saved, usually nested dicts.

    Raises:
      UserError: the file cannot be read, is cut short or damaged, is none of the three formats, or holds something
        besides tensors, numbers, strings and plain containers; the message names it.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
            file.seek(0)
            if head.startswith(b"PK\x03\x04"):
                return read_zip(file)
            if head[8:] == b"{":
                return read_safetensors(file)
            return read_stream(file)
    except RefusedGlobal as error:
        raise UserError(
            f"{path} holds {error}, which is neither tensor nor plain container and is not run; save a state_dict"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises whatever its instructions run into
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path} is damaged or no checkpoint of PyTorch or safetensors ({reason}); fetch or save it again, or give "
            "another file"
        ) from error


def read_notes(path: str | os.PathLike) -> dict | None:
    """The JSON under NOTES in a file that `read_tensors_file` has read; None where there is none.

    Raises:
      UserError: it is not the JSON of a dictionary.
    """
    try:
        text = read_notes_text(path)
        return None if text is None else dict(files.parsed_json(text))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} holds a damaged description of its networks ({error}); export it again") from error


def read_notes_text(path: str | os.PathLike) -> str | bytes | None:
    """The text under NOTES, of PyTorch's archive or of safetensors."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/{NOTES}")]
            return read_entry(archive, names[0]) if names else None
    with open(path, "rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if not is_safetensors:
        return None
    with safetensors.safe_open(path, "numpy") as file:
        return (file.metadata() or {}).get(NOTES)


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry of PyTorch's archive; ValueError if it is compressed.

    PyTorch does not compress entries; a compressed one could unpack to far more than the file.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def read_zip(file: io.BufferedIOBase) -> Any:
    """PyTorch's archive: `NAME/data.pkl` and one entry `NAME/data/KEY` per storage."""
    archive = zipfile.ZipFile(file)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries data.pkl in the archive")
    folder = pickles[0].removesuffix("/data.pkl")

    def read(name: str) -> bytes:
        return read_entry(archive, f"{folder}/{name}")

    storages: dict[str, Storage] = {}

    def storage_of(key: str, elements: int, dtype: np.dtype) -> Storage:
        if key not in storages:
            storages[key] = Storage(np.frombuffer(read(f"data/{key}"), np.uint8), dtype)
        return storages[key].of(elements, dtype)

    if f"{folder}/byteorder" in archive.namelist():
        require_little_endian(read("byteorder") == b"little")
    return TensorUnpickler(io.BytesIO(read("data.pkl")), storage_of).load()


def read_stream(file: io.BufferedIOBase) -> Any:
    """PyTorch's format before 1.6: five pickles (magic number, version, system, object, keys), then the storages."""
    bytes_left = os.fstat(file.fileno()).st_size
    storages: dict[str, Storage] = {}

    def storage_of(key: str, elements: int, dtype: np.dtype) -> Storage:
        nonlocal bytes_left
        if key not in storages:
            bytes_left -= elements * dtype.itemsize
            if bytes_left < 0:
                raise ValueError("the storages are larger than the file")
            # Filled below, when the object is built.
            storages[key] = Storage(np.empty(elements * dtype.itemsize, np.uint8), dtype)
        return storages[key].of(elements, dtype)

    def load() -> Any:
        return TensorUnpickler(file, storage_of).load()

    if load() != STREAM_MAGIC or load() != STREAM_VERSION:
        raise ValueError("unknown magic number or version")
    require_little_endian(load()["little_endian"])
    saved, keys = load(), load()
    require_keys(keys)
    if set(keys) != set(storages):
        raise ValueError("storages and their list differ")
    for key in keys:
        storages[key].of(int.from_bytes(file.read(8), "little"), storages[key].dtype)
        if file.readinto(storages[key].data) != storages[key].data.size:
            raise EOFError(f"storage {key} is cut short")
    return saved


def read_safetensors(file: io.BufferedIOBase) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name."""
    tensors = {}
    for name, tensor in safetensors.deserialize(file.read()):
        dtype = SAFETENSORS_DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise ValueError(f"{name} is of type {tensor['dtype']}")
        tensors[name] = read_only(np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"]))
    return tensors


class RefusedGlobal(Exception):
    """A pickle refers to this class or function, which is not allowed."""


class Storage(NamedTuple):
    """Bytes and their dtype; tensors are views of them."""

    data: np.ndarray
    dtype: np.dtype

    def of(self, elements: int, dtype: np.dtype) -> "Storage":
        """Itself; raises a ValueError unless it has that many elements of that dtype."""
        if self.data.size != elements * dtype.itemsize or self.dtype != dtype:
            raise ValueError(f"a storage of {self.data.size} bytes for {elements} elements of {dtype}")
        return self


class Whole:
    """A file whose end within a line or value is an error, before memory for the value is taken.

    Args:
      file: seekable.
    """

    def __init__(self, file: io.BufferedIOBase):
        self._file, here = file, file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(here)

    def read(self, size: int) -> bytes:
        """So many bytes."""
        if size > self._end - self._file.tell():
            raise EOFError("it is cut short")
        return self._file.read(size)

    def readline(self) -> bytes:
        """A line with its end."""
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it is cut short")
        return line


class PlainDtype:
    """Replaces `numpy.dtype`, whose own `__setstate__` would let a file rewrite numpy's types."""

    def __init__(self, code: str):
        if code not in SCALAR_DTYPES:
            raise ValueError(f"numpy dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple):
        self.dtype = self.dtype.newbyteorder(state[1])


class TensorUnpickler(pickle._Unpickler):
    """Builds the objects that state_dicts consist of; refuses every other class or function, naming it.

    It gives a file only built-in types and bound methods, whose attributes the file cannot set. It is the unpickler
    that is written in Python: the one in C takes as much memory as a file names as the index of its memo, and hashes
    and prints whatever the file nests, which for tuples of tuples of the same tuple takes for ever.

    Args:
      file: at the start of a pickle; afterwards at its end.
      storage_of: returns the storage with this key, number of elements and type.
    """

    def __init__(self, file: io.BufferedIOBase, storage_of: Callable[[str, int, np.dtype], Storage]):
        # Python 2 did not distinguish bytes and text; latin1 preserves both.
        super().__init__(Whole(file), encoding="latin1")
        self.storage_of = storage_of
        self.known = {
            "collections.OrderedDict": self.ordered_dict,
            "collections.Counter": self.counter,  # learning rate schedulers keep their milestones in one
            "builtins.set": self.set,
            "__builtin__.set": self.set,
            "torch.Size": tuple,
            "torch.device": self.device,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": self.parameter,
            "numpy.dtype": self.numpy_dtype,
            "numpy.core.multiarray.scalar": self.numpy_scalar,
            "numpy._core.multiarray.scalar": self.numpy_scalar,
            "_codecs.encode": self.encode,
        }

    def find_class(self, module: str, name: str) -> Any:
        """The replacement of a class or function that the file names; for a storage class, its name."""
        dotted = f"{module}.{name}"
        if dotted in STORAGE_DTYPES:
            return dotted
        if dotted not in self.known:
            raise RefusedGlobal(dotted.encode("unicode_escape").decode())
        return self.known[dotted]

    def persistent_load(self, pid: tuple) -> Storage:
        """A storage from ("storage", its class, key, device, elements[, view of it as (key, start, elements)])."""
        kind, storage_class, key, _, elements, *view = pid
        require_keys([kind, storage_class, key, elements])
        if kind != "storage" or elements < 0:
            raise ValueError(f"a persistent id of kind {kind!r}, {elements} elements")
        storage = self.storage_of(key, elements, STORAGE_DTYPES[storage_class])
        if not view or view[0] is None:
            return storage
        _, start, length = view[0]
        if not 0 <= start <= start + length <= elements:
            raise ValueError(f"storage {key} has a view beyond its end")
        itemsize = storage.dtype.itemsize
        return Storage(storage.data[start * itemsize : (start + length) * itemsize], storage.dtype)

    def tensor(self, storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
        """`torch._utils._rebuild_tensor_v2`: offset and strides count elements."""
        require_keys([offset, *size, *stride])
        itemsize = storage.dtype.itemsize
        stored = storage.data.size // itemsize
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        # numpy's own check of the strides can overflow.
        fits = min((offset, *size, *stride)) >= 0 and (0 in size or last < stored) and math.prod(size) <= MOST_ELEMENTS
        if not fits:
            raise ValueError(f"size {size}, strides {stride}, offset {offset} in a storage of {stored} elements")
        strides = [step * itemsize for step in stride]
        return read_only(np.ndarray(size, storage.dtype, storage.data, offset * itemsize, strides))

    def parameter(self, tensor: np.ndarray, *_: Any) -> np.ndarray:
        """`torch._utils._rebuild_parameter`: its tensor."""
        return tensor

    def device(self, *parts: Any) -> str:
        """`torch.device`: "cpu", "cuda:0"."""
        require_keys(parts)
        return ":".join(map(str, parts))

    def numpy_dtype(self, code: Any, *_: Any) -> PlainDtype:
        """`numpy.dtype`, for plain numbers only, not for objects or records."""
        require_keys([code])
        return PlainDtype(code)

    def numpy_scalar(self, plain: PlainDtype, data: bytes | str) -> np.generic:
        """`numpy.core.multiarray.scalar`."""
        raw = data.encode("latin1") if isinstance(data, str) else data
        (value,) = np.frombuffer(raw, plain.dtype)
        return value

    def encode(self, text: str, encoding: str) -> bytes:
        """`_codecs.encode`: how pickle protocol 2 writes bytes."""
        require_keys([encoding])
        if encoding != "latin1":
            raise ValueError(f"text encoded as {encoding!r}")
        return text.encode(encoding)

    def ordered_dict(self, pairs: Any = ()) -> OrderedDict:
        """`collections.OrderedDict`, from a dict or pairs; whose attributes a file may set: PyTorch sets _metadata."""
        return OrderedDict(with_keys(dict.items(pairs) if isinstance(pairs, dict) else pairs))

    def counter(self, counts: dict = {}) -> Counter:  # noqa: B006, it is not changed
        """`collections.Counter`, from the counts."""
        return Counter(dict(with_keys(dict.items(counts))))

    def set(self, elements: Any = ()) -> set:
        """A set."""
        elements = list(elements)
        require_keys(elements)
        return set(elements)

    def load_build(self) -> None:
        """Sets the state of an object that a file may change."""
        if not isinstance(self.stack[-2], OrderedDict | PlainDtype):
            raise ValueError(f"the state of a {type(self.stack[-2]).__name__}")
        super().load_build()

    def load_setitem(self) -> None:
        """One item of a dictionary."""
        require_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Items of a dictionary."""
        require_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """A dictionary, as protocol 0 builds it."""
        require_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        """Elements of a set."""
        require_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """A set that cannot change."""
        require_keys(self.stack)
        super().load_frozenset()

    dispatch = pickle._Unpickler.dispatch | {
        code[0]: load
        for code, load in (
            (pickle.BUILD, load_build),
            (pickle.SETITEM, load_setitem),
            (pickle.SETITEMS, load_setitems),
            (pickle.DICT, load_dict),
            (pickle.ADDITEMS, load_additems),
            (pickle.FROZENSET, load_frozenset),
        )
    }


def require_keys(values: Iterable[Any]) -> None:
    """Raises a ValueError unless all are strings, bytes, numbers or None: what can be hashed and printed at once."""
    for value in values:
        if not isinstance(value, KEYS):
            raise ValueError(f"a {type(value).__name__} where a name or number is wanted")


def with_keys(pairs: Iterable[Any]) -> list[tuple]:
    """Pairs of key and value; as `require_keys` of the keys."""
    pairs = [(key, value) for key, value in pairs]
    require_keys(key for key, _ in pairs)
    return pairs


def require_little_endian(is_little: bool) -> None:
    """Raises a ValueError for a big-endian file; PyTorch stores the machine's own byte order."""
    if not is_little:
        raise ValueError("written on a big-endian machine")


def read_only(array: np.ndarray) -> np.ndarray:
    """The array, made read-only, since several tensors may share its memory."""
    array.flags.writeable = False
    return array
