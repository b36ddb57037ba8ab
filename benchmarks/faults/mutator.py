"""Damages files: cuts, flipped bits, swapped, repeated and erased parts, absurd numbers; the same for the same seed."""

import io
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

ABSURD = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00" * 8, b"\xff" * 8)
WORDS = ("-1", "1e999", "nan", "99999999999999999999", "", "\x00", '"', "é" * 3, "../../x", "=1+1", "[" * 100_000)
TEXTS = {".csv", ".txt", ".json"}

Change = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, rng: random.Random) -> bytes:
    """The beginning of the file."""
    return content[: rng.randrange(len(content))]


def flip(content: bytes, rng: random.Random) -> bytes:
    """One to eight bits are flipped."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def swap(content: bytes, rng: random.Random) -> bytes:
    """Two parts change places."""
    a, b, c, d = sorted(rng.choices(range(len(content) + 1), k=4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    """A part comes twice."""
    a, b = sorted(rng.choices(range(len(content) + 1), k=2))
    return content[:b] + content[a:b] + content[b:]


def erase(content: bytes, rng: random.Random) -> bytes:
    """A part is zeros, as after a crash of the machine."""
    a, b = sorted(rng.choices(range(len(content) + 1), k=2))
    return content[:a] + bytes(b - a) + content[b:]


def absurd(content: bytes, rng: random.Random) -> bytes:
    """Four or eight bytes are those of an extreme number."""
    value, at = rng.choice(ABSURD), rng.randrange(len(content))
    return content[:at] + value + content[at + len(value) :]


def reword(content: bytes, rng: random.Random) -> bytes:
    """A number or word of a text is replaced by one that does not belong there."""
    found = [match.span() for match in re.finditer(rb"[\w.+-]+", content)]
    if not found:
        return rng.choice(WORDS).encode()
    a, b = rng.choice(found)
    return content[:a] + rng.choice(WORDS).encode() + content[b:]


def empty(_: bytes, __: random.Random) -> bytes:
    """Nothing."""
    return b""


BYTES: tuple[Change, ...] = (cut, flip, swap, repeat, erase, absurd)
COMMON = 12  # one file in so many is empty


def change(path: Path, rng: random.Random) -> str:
    """Damages a file; returns how."""
    found, how = damage(path.read_bytes(), rng, text=path.suffix in TEXTS)
    path.write_bytes(found)
    return how


def damage(content: bytes, rng: random.Random, *, text: bool) -> tuple[bytes, str]:
    """Damaged content, and how it was damaged; what comes out unchanged is cut. `text` also swaps words."""
    changes = [*BYTES, *([reword] * 3 if text else [])]
    chosen = empty if not rng.randrange(COMMON) or not content else rng.choice(changes)
    found = chosen(content, rng)
    return (content[:-1] if found == content else found), chosen.__name__


def change_entry(path: Path, rng: random.Random) -> str:
    """Damages one entry of an archive, whose checksum is then that of the damaged content."""
    content, entries = path.read_bytes(), {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            entries[name] = archive.read(name)
    pickles = [name for name in entries if name.endswith("data.pkl")]
    name = rng.choice(pickles if rng.random() < 0.8 else list(entries))
    chosen = rng.choice(BYTES)
    entries[name] = chosen(entries[name] or b"\0", rng)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, inside in entries.items():
            archive.writestr(name, inside)
    return f"{chosen.__name__} of an entry"
