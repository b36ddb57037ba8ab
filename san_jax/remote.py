"""Folders in object stores (s3://BUCKET/KEY, gs://BUCKET/KEY): their files are copied to local folders, and back.

Objects can neither be locked nor renamed nor mapped into memory, so everything works on local copies. The copy of
s3://BUCKET/KEY lies in CACHE/AREA/s3/BUCKET/KEY, so that a path tells the address.
"""

import contextlib
import functools
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from san_jax import files
from san_jax.errors import UserError
from san_jax.files import is_remote
from san_jax.process import lock

CACHE = "SAN_JAX_CACHE"  # variable that names the folder of all copies
LIBRARIES = {"s3": "s3fs", "gs": "gcsfs"}  # for fsspec; the extra `remote`
# Seconds, and tries. By default botocore would wait a minute for a connection, five times.
TIMES = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3, "mode": "standard"}}
OPTIONS: Mapping[str, Mapping[str, Any]] = {"s3": {"config_kwargs": TIMES}, "gs": {}}
DATA = "data"  # area of the copies of data sets
TEMPORARY, HELD = "reading-", "lock"  # the areas of copies that are deleted after use, and the lock in each


class StoreError(UserError):
    """An object store cannot be reached, or refuses; the message names the address."""


class Entry(NamedTuple):
    """Size in bytes of an object, and what changes when it is written anew."""

    size: int
    version: str


def parts_of(address: str | os.PathLike) -> tuple[str, ...]:
    """Scheme, bucket and the parts of the key.

    Raises:
      UserError: there is no bucket, or a part cannot be the name of a folder.
    """
    scheme, _, rest = os.fspath(address).partition(":")
    parts = rest.strip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UserError(f"{address} has no bucket, or an empty part; give {scheme}://BUCKET or {scheme}://BUCKET/FOLDER")
    return scheme, *parts


def text_of(address: str | os.PathLike) -> str:
    """An address as users write it, without a slash at its end."""
    scheme, *rest = parts_of(address)
    return f"{scheme}://{'/'.join(rest)}"


def cache() -> Path:
    """The folder of all copies: $SAN_JAX_CACHE, or else san_jax in $XDG_CACHE_HOME, or ~/.cache."""
    given = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "san_jax")
    return Path(os.path.abspath(files.at_home(given)))


def copy_of(address: str | os.PathLike, area: str) -> Path:
    """The place of an address's local copy."""
    return cache().joinpath(area, *parts_of(address))


def data_folder(data_dir: str | os.PathLike) -> Path:
    """The local folder of prepared data sets: `data_dir` itself, or the place of its copies."""
    return copy_of(data_dir, DATA) if is_remote(data_dir) else files.at_home(data_dir)


def named(path: str | os.PathLike) -> str:
    """The address of which a path is the local copy, for messages; the text of any other path itself."""
    with contextlib.suppress(ValueError):
        _, scheme, *rest = Path(path).absolute().relative_to(cache()).parts
        if scheme in files.REMOTE and rest:
            return f"{scheme}://{'/'.join(rest)}"
    return str(path)


@contextlib.contextmanager
def naming(copy: Path) -> Iterator[None]:
    """Inside, messages of UserErrors name the address of a local copy in place of its path."""
    try:
        yield
    except UserError as error:
        if str(copy) not in str(error):
            raise
        raise type(error)(str(error).replace(str(copy), named(copy))) from error


def listing(address: str | os.PathLike) -> dict[str, Entry]:
    """The objects of a folder, by their names in it; of a single object, itself by the name "".

    Raises:
      UserError: the bucket does not exist or cannot be read.
    """
    address = text_of(address)
    with _at(address, "read") as store:
        found = store.find(address, detail=True)
        start = store._strip_protocol(address)
    return {
        name.removeprefix(start).removeprefix("/"): Entry(int(about["size"]), _version(about))
        for name, about in found.items()
        if about["type"] == "file" and not name.endswith("/")
    }


def _version(about: Mapping[str, Any]) -> str:
    return str(about.get("ETag") or about.get("etag") or about.get("md5Hash") or about.get("LastModified"))


def download(address: str | os.PathLike, names: Mapping[str, Entry], folder: Path) -> None:
    """Copies objects of an address to files of a folder.

    Raises:
      UserError: one cannot be read, or has not the size that was listed; or the folder cannot be written.
    """
    address, targets = text_of(address), {name: folder / name if name else folder for name in names}
    if not names:
        return
    with _at(address, "read") as store:
        for parent in {target.parent for target in targets.values()}:
            parent.mkdir(parents=True, exist_ok=True)
        store.get([_join(address, name) for name in names], [str(target) for target in targets.values()])
        for name, target in targets.items():
            if (size := target.stat().st_size) != names[name].size:
                raise OSError(f"{name} has {size} bytes in place of {names[name].size}")


def upload(folder: Path, names: Collection[str], address: str | os.PathLike) -> None:
    """Copies files of a folder to objects of an address; each is replaced as a whole.

    Raises:
      UserError: one cannot be written.
    """
    if names:
        address = text_of(address)
        with _at(address, "write") as store:
            store.put([str(folder / name) for name in names], [_join(address, name) for name in names])


def delete(address: str | os.PathLike, names: Collection[str]) -> None:
    """Deletes objects of an address."""
    if names:
        address = text_of(address)
        with _at(address, "write") as store:
            store.rm([_join(address, name) for name in names])


def publish(path: Path) -> None:
    """Sends a file of a local copy to its address; does nothing with any other file."""
    if (address := named(path)) != str(path):
        folder, _, name = address.rpartition("/")
        upload(path.parent, [name], folder)


def _join(address: str, name: str) -> str:
    return f"{address}/{name}" if name else address


@contextlib.contextmanager
def opened(place: str | os.PathLike, choose: Callable[[Iterable[str]], Collection[str]]) -> Iterator[Path]:
    """A path to read: of an address, that of a temporary local copy; a local place is returned as it is.

    Args:
      place: a local path or an address.
      choose: names of an address's objects -> those to copy.

    Raises:
      UserError: the address cannot be read; messages of errors inside name it, too.
    """
    if not is_remote(place):
        yield Path(place)
        return
    found = listing(place)
    with _temporary_area() as area:
        copy = copy_of(place, area.name)
        with naming(copy):
            download(place, {name: found[name] for name in choose(found)}, copy)
            yield copy


@contextlib.contextmanager
def _temporary_area() -> Iterator[Path]:
    """A new area that is deleted afterwards; those that killed processes have left are deleted first."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        for left in cache().glob(f"{TEMPORARY}*"):
            with contextlib.suppress(UserError):  # it is in use
                lock.check_free(left / HELD)
                if files.is_abandoned(left):  # or so new that its lock is not taken yet
                    shutil.rmtree(left, ignore_errors=True)
        area = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=cache()))
    except OSError as error:
        raise UserError(f"cannot write {cache()} ({error.strerror}); name another folder by {CACHE}") from error
    try:
        with lock.held(area / HELD, what="a reader"):
            yield area
    finally:
        shutil.rmtree(area, ignore_errors=True)


@contextlib.contextmanager
def _at(address: str, does: str) -> Iterator[Any]:
    """The fsspec file system of an address; any error inside becomes one line."""
    scheme = parts_of(address)[0]
    try:
        yield _file_system(scheme, tuple(sorted(os.environ.items())))
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f'{address} needs {LIBRARIES[scheme]}, which is not installed; pip install "san_jax[remote]"'
        ) from error
    except Exception as error:  # botocore, aiohttp and Google's libraries have no common base class
        _file_system.cache_clear()  # it may hold wrong credentials
        reason = re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__
        reason = f"not found: {reason}" if isinstance(error, FileNotFoundError) else reason
        raise StoreError(
            f"cannot {does} {address} ({reason}); check the address, the credentials and the network "
            "(docs/remote.md), and start again"
        ) from error


@functools.lru_cache(maxsize=4)
def _file_system(scheme: str, environment: tuple[tuple[str, str], ...]) -> Any:
    """The file system as the variables of `environment` configure it; it keeps no listings, which others change."""
    import fsspec  # here, since it comes with an extra

    logging.getLogger(LIBRARIES[scheme]).setLevel(logging.CRITICAL)  # its retries, at length
    return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **OPTIONS[scheme])
