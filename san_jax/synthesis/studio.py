"""Many pictures of many people, through two compiled functions; and a world of people whom cameras watch."""

import functools
import operator
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree, UInt8

from san_jax.synthesis import people, scene, street
from san_jax.synthesis.people import Person
from san_jax.synthesis.scene import Trouble
from san_jax.synthesis.street import Place

AT_ONCE = 16  # people, and pictures, in one call of a compiled function

Picture = UInt8[Array, "H W 3"]


class World(NamedTuple):
    """People who walk by before cameras.

    Attributes:
      people: key of who they are.
      passages: key of where they walk and how they are caught.
      places: of the cameras, a row each.
      trouble: how hard they are to see.
    """

    people: Key[Array, ""]
    passages: Key[Array, ""]
    places: Place
    trouble: Trouble


class Moment(NamedTuple):
    """Which picture of a world, by numbers: one of those of a person before a camera."""

    person: Int[Array, "*n"]
    camera: Int[Array, "*n"]
    index: Int[Array, "*n"]


def make_world(
    key: Key[Array, ""], *, cameras: int, occlusion: float, sloppiness: float, variety: float = 1.0
) -> World:
    """A world with some cameras.

    Args:
      key: of people, passages and places.
      cameras: their number.
      occlusion, sloppiness: as in `Trouble`.
      variety: of the cameras' light and lenses, as in `street.draw_together`.
    """
    dresser, passages, builder = jax.random.split(key, 3)
    trouble = Trouble(jnp.float32(occlusion), jnp.float32(sloppiness))
    places = _draw_places(jax.random.split(builder, cameras), jnp.float32(variety))
    return World(dresser, passages, places, trouble)


@jax.jit
def _draw_places(keys, variety):
    return street.draw_together(jax.vmap(street.random_place)(keys), variety)


def before_a_camera(person: Person, moment: Moment, world: World, *, height: int, width: int) -> Picture:
    """A person as one camera of the world sees them; before each camera they walk by once."""
    passage = jax.random.fold_in(jax.random.fold_in(world.passages, moment.person), moment.camera)
    walking, moments = jax.random.split(passage)
    place = jax.tree.map(lambda field: field[moment.camera], world.places)
    walk = scene.random_walk(walking, place)
    key = jax.random.fold_in(moments, moment.index)
    return scene.on_a_walk(key, person, place, walk, world.trouble, height=height, width=width)


def render(
    take: Callable[..., Picture],
    setting: PyTree,
    dresser: Key[Array, ""],
    numbers: Int[np.ndarray, "n"],
    shots: PyTree,
    *,
    height: int,
    width: int,
    texture_side: int = 256,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "S S 3"]]]:
    """Takes pictures one after the other; each is a function of its shot, whatever stands beside it.

    Args:
      take: `take(person, shot, setting, height=, width=)` is one picture. A function of a module, and not made anew for
        every call: what is compiled for it is kept.
      setting: what all shots have in common, as `take` wants it.
      dresser: key of the people, as for `people.person`.
      numbers: who is in each picture. Pictures of one person should stand side by side, for people who come back are
        drawn again.
      shots: numpy arrays with a row for each picture.
      height, width: of the pictures in pixels.
      texture_side: of the textures in pixels; divides 256.
      at_once: people, and pictures, in one call of a compiled function; the last call is padded.

    Yields:
      The picture, and the texture of its person. Pictures of one person in a row have the very same texture object.
    """
    threads = _threads()
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for persons, textures, who, chosen in _calls(dresser, numbers, shots, texture_side, at_once):
            call = pool.submit(_pictures, take, setting, persons, chosen, height=height, width=width)
            if not waiting:
                wait([call])  # until it is compiled, or every thread would compile
            waiting.append((call, textures, who))
            if len(waiting) > threads:
                yield from _pairs(*waiting.popleft())
        for call in waiting:
            yield from _pairs(*call)


def _threads() -> int:
    """A picture uses one core; an accelerator is busy with one call."""
    return (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


def _pairs(call: Future, textures: list[np.ndarray], who: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for row, picture in zip(who, call.result(), strict=False):
        yield picture, textures[row]


def _pictures(*args, **kwargs) -> np.ndarray:
    return np.asarray(_take_pictures(*args, **kwargs))


def _calls(dresser, numbers, shots, texture_side, at_once):
    """For each call: the people, their textures, who is in each picture, and the rows of people and shots."""
    for crowd in _crowds(numbers, at_once):
        members, who = np.unique(numbers[crowd], return_inverse=True)
        persons, drawn = _draw_people(dresser, members[_filled(0, len(members), at_once)], side=texture_side)
        textures = list(np.asarray(drawn))
        for first in range(0, len(who), at_once):
            some = _filled(first, len(who), at_once)
            chosen = who[some], jax.tree.map(operator.itemgetter(crowd.start + some), shots)
            yield persons, textures, who[first : first + at_once], chosen


def _crowds(numbers: np.ndarray, at_once: int) -> Iterator[slice]:
    """Cuts pictures where another `at_once` people begin."""
    changes = np.flatnonzero(np.diff(numbers, prepend=-1))
    yield from map(slice, changes[::at_once], [*changes[at_once::at_once], len(numbers)])


def _filled(first: int, end: int, at_once: int) -> np.ndarray:
    """So many rows from the first; after the end, the last one again."""
    return np.minimum(np.arange(first, first + at_once), end - 1)


def _map(function, rows):
    """One by one where it is the cache that counts, all at once on an accelerator."""
    return jax.lax.map(function, rows) if jax.default_backend() == "cpu" else jax.vmap(function)(rows)


@functools.partial(jax.jit, static_argnames="side")
def _draw_people(dresser, numbers, *, side: int) -> tuple[Person, UInt8[Array, "n S S 3"]]:
    persons = _map(lambda number: people.person(dresser, number), numbers)
    texels = persons.texture.shape[1] // side
    blocks = persons.texture.reshape(-1, side, texels, side, texels, 3)
    return persons, jnp.round(255 * blocks.mean((2, 4))).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames=("take", "height", "width"))
def _take_pictures(take, setting, persons, chosen, *, height: int, width: int) -> UInt8[Array, "n H W 3"]:
    def one(row_and_shot):
        row, shot = row_and_shot
        person = jax.tree.map(lambda field: field[row], persons)
        return take(person, shot, setting, height=height, width=width)

    return _map(one, chosen)
