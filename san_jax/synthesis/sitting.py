"""Pairs of picture and texture: a person in a random place and pose, in the clothes of a given outfit."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Int, Key, UInt8

from san_jax.synthesis import body, scene
from san_jax.synthesis.people import Person
from san_jax.synthesis.scene import Shot


class Sitting(NamedTuple):
    """One pair to render.

    Attributes:
      wardrobe: number of the outfit, as `people.person` numbers people.
      index: number of the pair among those of its wardrobe.
      photograph: background, sRGB; None for a street.
    """

    wardrobe: Int[Array, "*n"]
    index: Int[Array, "*n"]
    photograph: UInt8[Array, "*n s s 3"] | None


def sit(person: Person, sitting: Sitting, sitter: Key[Array, ""], *, height: int, width: int) -> Shot:
    """A picture of a random person in this person's clothes.

    Args:
      person: whose outfit and texture are used.
      sitting: which pair this is.
      sitter: key of bodies, poses, places and views.
      height, width: of the picture, in pixels.
    """
    key = jax.random.fold_in(jax.random.fold_in(sitter, sitting.wardrobe), sitting.index)
    shape, scenery = jax.random.split(key)
    somebody = person._replace(proportions=body.random_proportions(shape, person.outfit.female))
    return scene.anywhere(scenery, somebody, height=height, width=width, photograph=sitting.photograph)
