"""A user-defined data set, as described in docs/data.md, with one colour per pid."""

import numpy as np
import tensorflow_datasets as tfds
from array_source import encoded

import tfds_builders
from tfds_builders.record import ReidBuilder


class Own(ReidBuilder):
    """Holds the pictures listed in `splits`, {split: [(pid, camid, name)]}."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="all"),)
    splits = None

    def plan(self, manual_dir):
        return self.splits

    def records(self, items, manual_dir):
        for pid, camid, name in items:
            colour = np.random.default_rng(list(str(pid).encode())).integers(0, 256, 3)
            noise = np.random.default_rng(list(str(name).encode())).integers(-20, 20, (32, 16, 3))
            picture = np.clip(colour + noise, 0, 255).astype(np.uint8)
            texture = np.broadcast_to(colour, (32, 32, 3)).astype(np.uint8)
            both = {"image": encoded(picture), "texture": encoded(texture)}
            yield both | {"pid": pid, "camid": camid, "name": str(name)}


def register(monkeypatch, splits):
    """Registers {split: [(pid, camid, name)]} as a data set and returns its name."""
    monkeypatch.setattr(Own, "splits", splits)
    monkeypatch.setitem(tfds_builders.BUILDERS, "own", Own)
    return "own/all"


def pictures(pids, *, cameras=2, each=2, start=""):
    """`each` pictures per pid and camera."""
    places = [(camid, index) for camid in range(cameras) for index in range(each)]
    return [(pid, camid, f"{start}{pid}_{camid}_{index}") for pid in pids for camid, index in places]
