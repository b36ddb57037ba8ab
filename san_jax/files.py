"""Atomic file writes."""

import contextlib
from pathlib import Path

from san_jax.errors import UserError


def write(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and moves it there; its folder is made if it is missing.

    Text is UTF-8; what has no place in it, as a file name that is no text, is escaped.

    Raises:
      UserError: it cannot be written; what was there before stays.
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
        raise UserError(f"cannot write {path} ({reason}); choose another place or make room") from error
