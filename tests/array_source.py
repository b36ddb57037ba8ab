"""A small in-memory `Source`, for tests that need no TFDS builder."""

import io

import numpy as np
from PIL import Image


def encoded(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


class ArraySource:
    """Noisy pictures of one colour per pid, in varying sizes, and textures of that colour."""

    def __init__(self, pids, *, name="test/people", textures=True, seed=0):
        self.name, self.has_textures, self.digest = name, textures, ""
        self.pids = np.asarray(pids, np.int32)
        self.people = [f"test/{pid}" for pid in np.unique(self.pids)]
        self.camids = np.arange(len(pids), dtype=np.int32) % 2
        self.names = [f"{pid:03d}_{row:03d}" for row, pid in enumerate(self.pids)]
        self._seed = seed

    def __len__(self):
        return len(self.pids)

    def __getitem__(self, row):
        colour = np.random.default_rng([self._seed, self.pids[row]]).integers(40, 216, 3)
        rng = np.random.default_rng([self._seed, 1, row])
        size = (int(rng.integers(40, 60)), int(rng.integers(18, 26)), 3)
        picture = np.clip(colour + rng.normal(0, 25, size), 0, 255).astype(np.uint8)
        texture = np.broadcast_to(colour, (32, 32, 3)).astype(np.uint8)
        return {
            "image": encoded(picture),
            "texture": encoded(texture) if self.has_textures else b"",
            "pid": int(self.pids[row]),
            "camid": int(self.camids[row]),
            "name": self.names[row],
        }
