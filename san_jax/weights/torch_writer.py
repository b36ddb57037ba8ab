"""Writes a state dict as `torch.save` does, without PyTorch: the zip archive that `torch.load` reads since 1.6."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

STORAGES = {np.dtype("f4"): "FloatStorage", np.dtype("f2"): "HalfStorage", np.dtype("i8"): "LongStorage"}
FOLDER = "archive"
ALIGNMENT = 64  # in bytes; PyTorch aligns every storage to it, so that files can be mapped into memory

# Pickle's instructions, protocol 2.
PROTOCOL, STOP = b"\x80\x02", b"."
MARK, TUPLE, EMPTY_TUPLE, REDUCE, SET_ITEMS, PERSISTENT_ID = b"(", b"t", b")", b"R", b"u", b"Q"
FALSE = b"\x89"


def torch_archive(tensors: Mapping[str, Shaped[np.ndarray, "..."]], entries: Mapping[str, str]) -> bytes:
    """The content of a file that `torch.load` reads as an OrderedDict of these tensors.

    Args:
      tensors: by name; float32, float16 or int64.
      entries: further text entries of the archive, by name; `torch.load` ignores them.
    """
    storages = [np.ascontiguousarray(values) for values in tensors.values()]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        write(archive, "data.pkl", pickled(tensors))
        write(archive, "byteorder", b"little")
        for name, text in entries.items():
            write(archive, name, text.encode())
        for key, values in enumerate(storages):
            write(archive, f"data/{key}", values.astype(values.dtype.newbyteorder("<")).tobytes())
        write(archive, "version", b"3\n")
    return content.getvalue()


def write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds an uncompressed entry whose content begins at a multiple of ALIGNMENT, without a time stamp."""
    entry = zipfile.ZipInfo(f"{FOLDER}/{name}")
    header = 30 + len(entry.filename)  # a local file header, then name and extra field (4 bytes and padding)
    padding = -(archive.fp.tell() + header + 4) % ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(entry, content)


def pickled(tensors: Mapping[str, Shaped[np.ndarray, "..."]]) -> bytes:
    """The pickle of an OrderedDict whose tensors are calls of PyTorch's functions on numbered storages."""
    empty = named("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE
    items = b"".join(text(name) + tensor(values, key, empty) for key, (name, values) in enumerate(tensors.items()))
    return PROTOCOL + empty + MARK + items + SET_ITEMS + STOP


def tensor(values: Shaped[np.ndarray, "..."], key: int, hooks: bytes) -> bytes:
    """A call of `torch._utils._rebuild_tensor_v2`: storage, offset, size, strides, requires_grad, backward hooks."""
    storage = (
        text("storage"),
        named("torch", STORAGES[values.dtype]),
        text(str(key)),
        text("cpu"),
        number(values.size),
    )
    sizes = values.shape
    strides = [int(np.prod(sizes[axis + 1 :])) for axis in range(len(sizes))]
    arguments = (
        grouped(*storage) + PERSISTENT_ID,
        number(0),
        grouped(*map(number, sizes)),
        grouped(*map(number, strides)),
        FALSE,
        hooks,
    )
    return named("torch._utils", "_rebuild_tensor_v2") + grouped(*arguments) + REDUCE


def grouped(*parts: bytes) -> bytes:
    """Instructions that push a tuple."""
    return MARK + b"".join(parts) + TUPLE


def named(module: str, name: str) -> bytes:
    """The instruction that pushes a class or function."""
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """The instruction that pushes a str."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    """The instruction that pushes an int of up to 255 bytes."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
