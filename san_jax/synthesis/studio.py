"""A world of people and cameras, and the rendering of many pictures with two compiled functions."""

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

AT_ONCE = 16  # number of people and of pictures in one call of a compiled function

Picture = UInt8[Array, "H W 3"]


class World(NamedTuple):
    """People and the cameras that they walk past.

    Attributes:
      people: key of the people, as for `people.person`.
      passages: key of everything random in a picture: walk, pose, box, occluder and noise.
      places: one row per camera.
      trouble: what makes the pictures hard.
    """

    people: Key[Array, ""]
    passages: Key[Array, ""]
    places: Place
    trouble: Trouble


class Moment(NamedTuple):
    """A picture of a world.

    Attributes:
      person: number of the person.
      camera: row of the camera in `World.places`.
      index: number of the picture among those of this person in this camera.
    """

    person: Int[Array, "*n"]
    camera: Int[Array, "*n"]
    index: Int[Array, "*n"]


def make_world(
    key: Key[Array, ""], *, cameras: int, occlusion: float, sloppiness: float, variety: float = 1.0
) -> World:
    """A world with a given number of cameras.

    Args:
      key: decides people, passages and places.
      cameras: number of cameras.
      occlusion, sloppiness: as in `Trouble`.
      variety: how much the cameras' light and lenses differ, as in `street.draw_together`.
    """
    dresser, passages, builder = jax.random.split(key, 3)
    trouble = Trouble(jnp.float32(occlusion), jnp.float32(sloppiness))
    places = _draw_places(jax.random.split(builder, cameras), jnp.float32(variety))
    return World(dresser, passages, places, trouble)


@jax.jit
def _draw_places(keys, variety):
    return street.draw_together(jax.vmap(street.random_place)(keys), variety)


def before_a_camera(person: Person, moment: Moment, world: World, *, height: int, width: int) -> Picture:
    """A picture of a person in one camera of the world; a person walks past each camera once."""
    passage = jax.random.fold_in(jax.random.fold_in(world.passages, moment.person), moment.camera)
    walking, moments = jax.random.split(passage)
    place = jax.tree.map(lambda field: field[moment.camera], world.places)
    walk = scene.random_walk(walking, place)
    key = jax.random.fold_in(moments, moment.index)
    return scene.on_a_walk(key, person, place, walk, world.trouble, height=height, width=width)


def render(
    take: Callable[..., PyTree],
    setting: PyTree,
    dresser: Key[Array, ""],
    numbers: Int[np.ndarray, "n"],
    shots: PyTree,
    *,
    height: int,
    width: int,
    texture_side: int = 256,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[PyTree, UInt8[np.ndarray, "S S 3"]]]:
    """Renders pictures in order; each depends only on its own shot, not on the other pictures of the call.

    Args:
      take: `take(person, shot, setting, height=, width=)` returns one picture, or a tree of arrays. Compiled programs
        are kept for each function, so this must be the same function in every call, not a new lambda or partial.
      setting: what all shots have in common; passed to `take`.
      dresser: key of the people, as for `people.person`.
      numbers: number of the person in each picture. Pictures of one person should be adjacent; otherwise the person is
        generated again.
      shots: numpy arrays with one row per picture.
      height, width: of the pictures, in pixels.
      texture_side: height and width of the textures, in pixels; divides 256.
      at_once: number of people and of pictures in one call of a compiled function; the last call is padded.

    Yields:
      What `take` returned, and the texture of the person; adjacent pictures of one person share the same object.
    """
    threads = _threads()
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for persons, textures, rows, chosen in _calls(dresser, numbers, shots, texture_side, at_once):
            call = pool.submit(_pictures, take, setting, persons, chosen, height=height, width=width)
            if not waiting:
                wait([call])  # for its compilation; otherwise every thread would compile
            waiting.append((call, textures, rows))
            if len(waiting) > threads:
                yield from _pairs(*waiting.popleft())
        for call in waiting:
            yield from _pairs(*call)


def _threads() -> int:
    """Number of calls in flight: a call uses one CPU core, or a whole accelerator."""
    return (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


def _pairs(call: Future, textures: list[np.ndarray], rows: np.ndarray) -> Iterator[tuple[PyTree, np.ndarray]]:
    taken = call.result()
    for place, row in enumerate(rows):
        yield jax.tree.map(operator.itemgetter(place), taken), textures[row]


def _pictures(*args, **kwargs) -> PyTree:
    return jax.tree.map(np.asarray, _take_pictures(*args, **kwargs))


def _calls(dresser, numbers, shots, texture_side, at_once):
    """Splits the work into calls.

    Yields:
      Persons and their textures; for each picture of the call, the row of its person among them; and the arguments of
      the compiled function: the same rows, padded, with the shots.
    """
    for crowd in _crowds(numbers, at_once):
        members, rows = np.unique(numbers[crowd], return_inverse=True)
        persons, drawn = draw_people(dresser, members[_filled(0, len(members), at_once)], side=texture_side)
        textures = list(np.asarray(drawn))
        for first in range(0, len(rows), at_once):
            some = _filled(first, len(rows), at_once)
            chosen = rows[some], jax.tree.map(operator.itemgetter(crowd.start + some), shots)
            yield persons, textures, rows[first : first + at_once], chosen


def _crowds(numbers: np.ndarray, at_once: int) -> Iterator[slice]:
    """Slices of the pictures; each holds up to `at_once` runs of pictures of one person."""
    changes = np.flatnonzero(np.diff(numbers, prepend=-1))
    yield from map(slice, changes[::at_once], [*changes[at_once::at_once], len(numbers)])


def _filled(first: int, end: int, at_once: int) -> np.ndarray:
    """`at_once` rows from `first`; rows past the end repeat the last one."""
    return np.minimum(np.arange(first, first + at_once), end - 1)


def _map(function, rows):
    """Maps over rows: one by one on a CPU, which keeps the data in its cache, and all at once on an accelerator."""
    return jax.lax.map(function, rows) if jax.default_backend() == "cpu" else jax.vmap(function)(rows)


@functools.partial(jax.jit, static_argnames="side")
def draw_people(
    dresser: Key[Array, ""], numbers: Int[Array, "n"], *, side: int
) -> tuple[Person, UInt8[Array, "n S S 3"]]:
    """People in order, and their textures.

    Args:
      dresser: key of the people, as for `people.person`.
      numbers: their numbers.
      side: height and width of the textures in pixels; divides 256.
    """
    persons = _map(lambda number: people.person(dresser, number), numbers)
    texels = persons.texture.shape[1] // side
    blocks = persons.texture.reshape(-1, side, texels, side, texels, 3)
    return persons, jnp.round(255 * blocks.mean((2, 4))).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames=("take", "height", "width"))
def _take_pictures(take, setting, persons, chosen, *, height: int, width: int) -> PyTree:
    def one(row_and_shot):
        row, shot = row_and_shot
        person = jax.tree.map(lambda field: field[row], persons)
        return take(person, shot, setting, height=height, width=width)

    return _map(one, chosen)
