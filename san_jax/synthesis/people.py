"""Identities: an outfit, hair and a body, drawn from a key; some people have a double in the same colours."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Key

from san_jax.synthesis import body, tailor, wardrobe
from san_jax.synthesis.body import Proportions
from san_jax.synthesis.wardrobe import Outfit

DOUBLES = 0.4  # share of the people that have a double


class Person(NamedTuple):
    """An identity.

    Attributes:
      outfit: clothes, bag, skin and hair.
      proportions: shape of the body.
      texture: sRGB in [0, 1].
    """

    outfit: Outfit
    proportions: Proportions
    texture: Float32[Array, "256 256 3"]


def person(key: Key[Array, ""], number: Int[Array, ""]) -> Person:
    """A person of a world; the same number always gives the same person.

    Person 2 n + 1 may be the double of person 2 n: they wear the same garments in the same colours, but differ in
    prints, stripes, or which half is dark. A colour histogram cannot tell them apart.

    Args:
      key: key of all people of the world.
      number: number of the person, from 0.
    """
    worlds = jax.random.split(key, 4)
    paired = jax.random.uniform(jax.random.fold_in(worlds[0], number // 2)) < DOUBLES
    first = jnp.where(paired, number // 2 * 2, number)
    colours, details, shape = (
        jax.random.fold_in(world, chosen) for world, chosen in zip(worlds[1:], (first, number, number), strict=True)
    )
    outfit = wardrobe.random_outfit(colours, details)
    return Person(outfit, body.random_proportions(shape, outfit.female), tailor.texture(outfit))
