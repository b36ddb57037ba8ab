"""The photographs of docs/tutorial.md: rendered people, in folders and under names such as people choose."""

import datetime
import itertools

import jax
import numpy as np
from PIL import Image

from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment

CAMERAS = ("front door", "car park")
NAMES = (
    *("anna", "ben", "carla", "dan", "eva", "felix", "gina", "hugo", "ida", "jan", "kim", "leo", "mia", "nils", "olga"),
    *("paul", "quinn", "rosa", "sam", "tina", "udo", "vera", "wim", "xenia", "yann", "zoe", "ali", "bea", "cem"),
    *("dora", "emil", "fay", "gus", "hana", "ines", "jo"),
)
EACH = 3  # pictures of each person by each camera
START = datetime.datetime(2026, 5, 3, 10, 15)


def write(folder, *, height=128):
    """Writes photos/CAMERA/NAME TIME.jpg; returns their number."""
    world = studio.make_world(jax.random.key(7), cameras=len(CAMERAS), occlusion=0.1, sloppiness=0.3, variety=0.3)
    shots = list(itertools.product(range(len(NAMES)), range(len(CAMERAS)), range(EACH)))
    person, camera, index = (np.array(column, np.int32) for column in zip(*shots, strict=True))
    size = dict(height=height, width=height // 2, texture_side=128)
    moments = Moment(person, camera, index)
    taken = studio.render(studio.before_a_camera, world, world.people, person, moments, **size)
    for (who, where, number), (picture, _) in zip(shots, taken, strict=True):
        when = START + datetime.timedelta(minutes=who, seconds=400 * where + 2 * number)
        path = folder / "photos" / CAMERAS[where] / f"{NAMES[who]} {when:%Y-%m-%d %H.%M.%S}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95)
    return len(shots)
