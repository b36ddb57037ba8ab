"""Atomic file writes."""

import contextlib
from pathlib import Path

from san_jax.errors import UserError


def write(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it; creates its folder if it is missing.

    Text is written as UTF-8; what cannot be encoded, such as an undecodable file name, is escaped.

    Raises:
      UserError: it cannot be written; an existing file is kept.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        part.replace(path)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise UserError(f"cannot write {path} ({reason}); choose another place or free some space") from error
