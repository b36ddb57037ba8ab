"""Places for tests, and how their cameras see them."""

import functools

import jax
import jax.numpy as jnp

from san_jax.synthesis import camera, street, walls
from san_jax.synthesis.backdrop import draw_backdrop

HEIGHT, WIDTH = 64, 32
COUNT = 48


@functools.cache
def random_places():
    """Random places, stacked along the first axis."""
    draw = jax.jit(jax.vmap(street.random_place))
    return draw(jax.random.split(jax.random.key(0), COUNT))


def random_place(row):
    return jax.tree.map(lambda field: field[row], random_places())


def empty_place():
    """A place without walls or things."""
    place = random_place(0)
    bare = place.things.solids._replace(bottom=0 * place.things.solids.bottom, top=0 * place.things.solids.top)
    away = place.things.at + 1000
    return place._replace(
        walls=place.walls.at[:, 2].set(walls.NOWHERE), things=place.things._replace(solids=bare, at=away)
    )


def seen(place, middle=0.85):
    """The backdrop around the point at z = 8 and height `middle`, the camera position and the rays' directions."""
    return _seen(place, jnp.float32(middle))


@jax.jit
def _seen(place, middle):
    position = jnp.stack([jnp.zeros(()), place.camera_height, jnp.zeros(())])
    target = jnp.stack([jnp.zeros(()), middle, jnp.float32(8)])
    tall = 1.1 / jnp.linalg.norm(target - position)
    box = camera.Box(-tall / 2, tall / 2, -tall, tall)
    directions = camera.rays(camera.look_at(position, target), box, height=HEIGHT, width=WIDTH)
    return draw_backdrop(place, position, directions), position, directions
