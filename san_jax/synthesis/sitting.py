"""Pairs of picture and texture: somebody anywhere, in the clothes of a wardrobe."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Int, Key, UInt8

from san_jax.synthesis import body, scene
from san_jax.synthesis.people import Person


class Sitting(NamedTuple):
    """One rendered pair: which, by numbers, and what stands behind the person; None for a street."""

    wardrobe: Int[Array, "*n"]
    index: Int[Array, "*n"]
    photograph: UInt8[Array, "*n s s 3"] | None


def sit(person: Person, sitting: Sitting, sitter: Key[Array, ""], *, height: int, width: int) -> UInt8[Array, "H W 3"]:
    """A picture of somebody who wears what the person wears, with a body of their own."""
    key = jax.random.fold_in(jax.random.fold_in(sitter, sitting.wardrobe), sitting.index)
    shape, scenery = jax.random.split(key)
    somebody = person._replace(proportions=body.random_proportions(shape, person.outfit.female))
    return scene.anywhere(scenery, somebody, height=height, width=width, photograph=sitting.photograph)
