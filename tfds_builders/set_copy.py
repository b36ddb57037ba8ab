"""Local copies of data sets that lie prepared in an object store."""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from san_jax import files, remote
from san_jax.errors import UserError
from san_jax.remote import Entry
from tfds_builders import staging

COPIED = "copied.json"  # in the copy of a set: what was copied


@dataclasses.dataclass(frozen=True)
class SetCopy:
    """The copy of one prepared set.

    Attributes:
      name: of the set, DATASET/CONFIG.
      address: of the set in the object store.
      there: its files.
      data_dir: folder of the copies of all sets.
      target: folder of this copy.
    """

    name: str
    address: str
    there: Mapping[str, Entry]
    data_dir: Path
    target: Path

    @classmethod
    def of(cls, address: str | os.PathLike, place: str, data_dir: Path, *, name: str, listed: str) -> "SetCopy":
        """Looks into the object store; copies nothing.

        Args:
          address: of the folder of prepared sets.
          place: of the set in that folder.
          data_dir: folder of the copies of all sets.
          name: of the set, DATASET/CONFIG.
          listed: as the user named it: `name`, or the path of a list or folder.

        Raises:
          UserError: the set is not there, or the store cannot be read.
        """
        top = remote.text_of(address)
        if not (there := remote.listing(f"{top}/{place}")):
            sync = "aws s3 sync" if top.startswith("s3:") else "gcloud storage rsync -r"
            raise UserError(
                f"{name} is not in {top}; prepare it by `python -m tfds_builders {listed} --data_dir=data`, and copy "
                f"it by `{sync} data/{place} {top}/{place}`"
            )
        return cls(name, f"{top}/{place}", there, data_dir, data_dir / place)

    def is_whole(self) -> bool:
        """Whether the copy is there, and is one of what is in the object store now."""
        try:
            copied = {name: Entry(*about) for name, about in files.read_json(self.target / COPIED).items()}
            sizes = {name: (self.target / name).stat().st_size for name in copied}
        except (OSError, ValueError, TypeError, AttributeError):
            return False
        return copied == self.there and sizes == {name: entry.size for name, entry in copied.items()}

    def write(self) -> None:
        """Copies the set into a staging folder, checks the sizes, and moves it to its place."""
        size = sum(entry.size for entry in self.there.values())
        print(f"copying {self.address} to {self.target} ({size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
        with staging.folder(self.data_dir, self.name) as own:
            remote.download(self.address, self.there, own / "set")
            (own / "set" / COPIED).write_text(json.dumps(self.there))
            shutil.rmtree(self.target, ignore_errors=True)
            self.target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(own / "set", self.target)
