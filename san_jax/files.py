"""Files that are written whole or not at all."""

import contextlib
from pathlib import Path

from san_jax.errors import UserError


def write(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and moves it there; its folder is made if it is missing.

    Raises:
      UserError: it cannot be written; what was there before stays.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        reason = error.strerror or error
        raise UserError(f"cannot write {path} ({reason}); choose another place or make room") from error
