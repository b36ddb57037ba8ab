"""Wardrobes: what there is to wear, and what somebody wears; skin and hair too.

An Outfit is a handful of numbers. Two keys make one: `colours` says what is worn and in which colours, `details` how
the colours lie, so that a histogram cannot tell apart who shares the first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32

from san_jax.synthesis.dice import Dice

NO_BAG, BACKPACK, SHOULDER_BAG, HAND_BAG = range(4)
SNEAKERS, LEATHER, BOOTS, SANDALS, FLATS = range(5)
NO_CLOSURE, BUTTONS, ZIP = range(3)
NO_POCKET, CHEST_POCKET, POUCH, SIDE_POCKETS = range(4)

# How a cloth's second colour lies: not at all; in repeated bands; in one block, at an edge or anywhere (LEVEL, PANEL).
PLAIN, ACROSS, UPRIGHT, SLANTING, CHECKS, DOTS, UPPER, LOWER, LEFT, RIGHT, LEVEL, PANEL = range(12)
BANDS, BLOCKS = (ACROSS, UPRIGHT, SLANTING, CHECKS, DOTS), (UPPER, LOWER, LEFT, RIGHT, LEVEL, PANEL)
BOTH_FACES, FRONT, BACK = range(3)
BLOB, LINES, BADGE = range(3)  # shapes of a print


class Cloth(NamedTuple):
    """A cloth of one or two colours.

    Attributes:
      ground, figure: the colours; sRGB.
      share: of the garment that the figure covers.
      mixed: where the figure is half covered, the mean of both colours is seen, as in gingham.
      pattern: PLAIN to PANEL.
      period: of bands, in metres.
      phase: where bands begin, up and around, in periods; where blocks lie, in heights and widths of the garment.
      face: whether both faces of the garment have the pattern, or its FRONT or BACK.
    """

    ground: Float[Array, "3"]
    figure: Float[Array, "3"]
    share: Float[Array, ""]
    mixed: Bool[Array, ""]
    pattern: Int[Array, ""]
    period: Float[Array, ""]
    phase: Float[Array, "2"]
    face: Int[Array, ""]


class Print(NamedTuple):
    """A shape on the chest or the back.

    Attributes:
      size: side of the square that has the area of its box, in metres; 0 for none.
      stretch: the box is size * stretch wide and size / stretch high.
      shape: BLOB, LINES or BADGE.
      face: FRONT, BACK or BOTH_FACES.
      angle, along: its centre, the angle from the middle of the face.
      colour: sRGB.
    """

    size: Float[Array, ""]
    stretch: Float[Array, ""]
    shape: Int[Array, ""]
    face: Int[Array, ""]
    angle: Float[Array, ""]
    along: Float[Array, ""]
    colour: Float[Array, "3"]


class Outfit(NamedTuple):
    """All that a person's looks are made of; colours are sRGB.

    Attributes:
      female: whose face it is.
      hair_length: 0 cropped, 0.3 over the ears' tips, 0.6 to the shoulders, 1 to the middle of the back.
      hair_volume: how far the hair stands off the skull, in metres.
      skirt: 0 for none, 1 reaches the knees, 2 the ankles; dresses and coats have one too.
      flare: radius of the skirt's hem over that of the hips.
      sleeve_width, leg_width, trunk_width: radii with clothes over those without.
      bag: NO_BAG, BACKPACK, SHOULDER_BAG at the right hip, or HAND_BAG.
      skin, hair: colours.
      fringe: how far hair hangs over the forehead, 0 to 1.
      top: cloth of what is worn on the trunk.
      sleeve: 0 none, 1 to the elbow, 2 to the wrist.
      contrast_sleeves: sleeves have ground and figure swapped.
      hem: where the top ends, along the trunk.
      neckline_depth, neckline_width: along the trunk, and radians to each side; what is seen in it is `under`.
      round_neck: else the neckline is a V.
      collar: share of the neck that it covers.
      collar_colour: of collar, hood or scarf.
      opening: half the width of the strip in front where an open jacket shows what is under it, in radians.
      closure: NO_CLOSURE, BUTTONS or ZIP.
      pockets: NO_POCKET, CHEST_POCKET, POUCH or SIDE_POCKETS.
      hood: whether one lies on the back.
      print: on the top.
      under, under_sleeve: colour and sleeves of a shirt under the top; the skin's colour and 0 for none.
      trousers: cloth on the legs: of trousers, shorts, leggings, stockings.
      leg_length: where it ends: 0 bare legs, 1 at the knees, 2 at the ankles.
      side_stripe: trousers have one in the figure's colour.
      fade: how much lighter the thighs' fronts are: jeans.
      skirt_cloth: of the skirt.
      belt: colour.
      belted: whether there is a belt.
      sock, sock_height: height from the ankle along the shin; 0 for none.
      foot: colour of what is seen in sandals.
      shoe: SNEAKERS, LEATHER, BOOTS, SANDALS or FLATS.
      shoe_colour, sole: colours.
      shoe_height: of boots, from the ankle along the shin.
      hand: colour of hands or gloves.
      bag_colour, bag_trim: colours.
      seed: of folds and of the print's cells.
    """

    female: Bool[Array, ""]
    hair_length: Float[Array, ""]
    hair_volume: Float[Array, ""]
    skirt: Float[Array, ""]
    flare: Float[Array, ""]
    sleeve_width: Float[Array, ""]
    leg_width: Float[Array, ""]
    trunk_width: Float[Array, ""]
    bag: Int[Array, ""]
    skin: Float[Array, "3"]
    hair: Float[Array, "3"]
    fringe: Float[Array, ""]
    top: Cloth
    sleeve: Float[Array, ""]
    contrast_sleeves: Bool[Array, ""]
    hem: Float[Array, ""]
    neckline_depth: Float[Array, ""]
    neckline_width: Float[Array, ""]
    round_neck: Bool[Array, ""]
    collar: Float[Array, ""]
    collar_colour: Float[Array, "3"]
    opening: Float[Array, ""]
    closure: Int[Array, ""]
    pockets: Int[Array, ""]
    hood: Bool[Array, ""]
    print: Print
    under: Float[Array, "3"]
    under_sleeve: Float[Array, ""]
    trousers: Cloth
    leg_length: Float[Array, ""]
    side_stripe: Bool[Array, ""]
    fade: Float[Array, ""]
    skirt_cloth: Cloth
    belt: Float[Array, "3"]
    belted: Bool[Array, ""]
    sock: Float[Array, "3"]
    sock_height: Float[Array, ""]
    foot: Float[Array, "3"]
    shoe: Int[Array, ""]
    shoe_colour: Float[Array, "3"]
    sole: Float[Array, "3"]
    shoe_height: Float[Array, ""]
    hand: Float[Array, "3"]
    bag_colour: Float[Array, "3"]
    bag_trim: Float[Array, "3"]
    seed: UInt32[Array, ""]


class Top(NamedTuple):
    """A kind of garment for the trunk; fields as in Outfit.

    Attributes:
      weights: how common it is: men in warm and in cold weather, women in warm and in cold weather.
      layered: whether a shirt is seen under it.
      dress: whether its skirt is all that the legs wear, stockings aside.
      prints, blocks: how many in a hundred have a print, and blocks of colour, maybe with an emblem; the rest, bands.
    """

    weights: tuple[float, ...]
    sleeve: float
    hem: float
    neckline_depth: float
    neckline_width: float
    prints: int
    blocks: int
    collar: float = 0
    opening: float = 0
    closure: int = NO_CLOSURE
    pockets: int = NO_POCKET
    hood: bool = False
    layered: bool = False
    under_sleeve: float = 0
    trunk_width: float = 1.02
    sleeve_width: float = 1.05  # of bare forearms too
    skirt: float = 0
    flare: float = 1.15
    dress: bool = False


TOPS = {
    "T-shirt": Top((9, 1, 6, 0), 0.72, 0.16, 0.10, 0.55, 60, 15),
    "polo shirt": Top((4, 0, 1, 0), 0.75, 0.18, 0.17, 0.22, 15, 35, collar=0.45, closure=BUTTONS),
    "sleeveless top": Top((1, 0, 4, 0), 0, 0.22, 0.16, 0.8, 35, 25, sleeve_width=1),
    "blouse": Top((0, 0, 4, 1), 1.1, 0.2, 0.2, 0.5, 10, 20, trunk_width=1.06, sleeve_width=1.25),
    "long-sleeved shirt": Top((3, 4, 3, 4), 2, 0.18, 0.10, 0.5, 45, 25),
    "shirt": Top((4, 2, 2, 1), 2, 0.2, 0.14, 0.3, 0, 10, collar=0.5, closure=BUTTONS, pockets=CHEST_POCKET,
                 sleeve_width=1.15),
    "short-sleeved shirt": Top((3, 0, 1, 0), 0.8, 0.16, 0.14, 0.3, 0, 15, collar=0.5, closure=BUTTONS,
                               pockets=CHEST_POCKET),
    "pullover": Top((1, 4, 1, 5), 2, 0.2, 0.1, 0.45, 20, 30, collar=0.25, trunk_width=1.06, sleeve_width=1.18),
    "hoodie": Top((2, 4, 1, 3), 2, 0.17, 0.1, 0.4, 55, 25, collar=0.8, hood=True, pockets=POUCH, trunk_width=1.1,
                  sleeve_width=1.25),
    "jacket": Top((1, 6, 1, 4), 2, 0.18, 0.05, 0.3, 25, 60, collar=0.75, closure=ZIP, pockets=SIDE_POCKETS,
                  trunk_width=1.12, sleeve_width=1.28),
    "open jacket": Top((2, 6, 2, 5), 2, 0.18, 0.1, 0.4, 25, 60, collar=0.5, opening=0.45, closure=ZIP, layered=True,
                       pockets=SIDE_POCKETS, trunk_width=1.12, sleeve_width=1.25),
    "suit": Top((1, 3, 0, 1), 2, 0.1, 0.48, 0.5, 0, 35, collar=0.45, closure=BUTTONS, layered=True,
                pockets=SIDE_POCKETS, trunk_width=1.07, sleeve_width=1.18),
    "waistcoat": Top((1, 2, 1, 1), 0, 0.2, 0.2, 0.35, 15, 60, closure=ZIP, layered=True, under_sleeve=2,
                     pockets=SIDE_POCKETS, trunk_width=1.12),
    "coat": Top((0, 3, 0, 5), 2, 0, 0.2, 0.35, 5, 65, collar=0.8, closure=BUTTONS, layered=True, pockets=SIDE_POCKETS,
                trunk_width=1.14, sleeve_width=1.3, skirt=0.85, flare=1.15),
    "open coat": Top((0, 2, 0, 4), 2, 0, 0.2, 0.4, 5, 65, collar=0.6, opening=0.5, layered=True, pockets=SIDE_POCKETS,
                     trunk_width=1.14, sleeve_width=1.3, skirt=0.95, flare=1.1),
    "dress": Top((0, 0, 4, 2), 1.1, 0, 0.15, 0.5, 15, 25, skirt=0.95, flare=1.3, dress=True),
    "sleeveless dress": Top((0, 0, 5, 0), 0, 0, 0.18, 0.7, 10, 20, skirt=0.8, flare=1.35, dress=True, sleeve_width=1),
}


class Bottom(NamedTuple):
    """A kind of garment for the legs; fields as in Outfit and Top.

    Attributes:
      patterned: how many in a hundred are not plain.
    """

    weights: tuple[float, ...]
    leg_length: float
    leg_width: float
    patterned: int = 8
    skirt: float = 0
    flare: float = 1.2
    fade: float = 0
    side_stripe: bool = False


BOTTOMS = {
    "trousers": Bottom((5, 9, 2, 4), 2, 1.15),
    "jeans": Bottom((6, 8, 5, 8), 2, 1.1, patterned=0, fade=0.3),
    "wide trousers": Bottom((1, 1, 2, 2), 2, 1.33, patterned=25),
    "track suit trousers": Bottom((2, 3, 0, 1), 2, 1.2, patterned=0, side_stripe=True),
    "leggings": Bottom((0, 0, 2, 6), 1.9, 1.0, patterned=10),
    "long shorts": Bottom((6, 0, 1, 0), 1.05, 1.15, patterned=25),
    "shorts": Bottom((3, 0, 3, 0), 0.6, 1.12, patterned=20),
    "denim shorts": Bottom((1, 0, 4, 0), 0.4, 1.08, patterned=0, fade=0.3),
    "three-quarter trousers": Bottom((2, 0, 2, 0), 1.45, 1.08),
    "short skirt": Bottom((0, 0, 5, 3), 0, 1.0, patterned=40, skirt=0.6, flare=1.3),
    "knee-length skirt": Bottom((0, 0, 3, 2), 0, 1.0, patterned=40, skirt=1.0, flare=1.25),
    "long skirt": Bottom((0, 0, 2, 1), 0, 1.0, patterned=40, skirt=1.65, flare=1.5),
}

# SNEAKERS, LEATHER, BOOTS, SANDALS, FLATS; one row a climate, as in Top.weights.
SHOE_WEIGHTS = np.array([(10, 5, 0, 2, 0), (9, 6, 2, 0, 0), (7, 1, 0, 4, 5), (6, 2, 6, 0, 2)])

# NO_BAG, BACKPACK, SHOULDER_BAG, HAND_BAG; men, women.
BAG_WEIGHTS = np.array([(68, 20, 9, 3), (55, 12, 20, 13)])

# Colours of clothes, and how common they are on tops, coats and jackets, trousers and skirts, shoes, bags.
PALETTE = {
    "black": (26, 26, 29, 18, 22, 19, 20, 20),
    "charcoal": (56, 57, 61, 8, 11, 10, 5, 6),
    "grey": (125, 127, 131, 9, 7, 6, 5, 5),
    "light grey": (190, 192, 195, 9, 3, 2, 4, 2),
    "white": (238, 238, 235, 19, 3, 3, 14, 2),
    "navy": (32, 41, 72, 10, 13, 10, 4, 7),
    "blue": (45, 86, 160, 5, 4, 2, 2, 4),
    "royal blue": (40, 92, 210, 4, 2, 1, 2, 2),
    "light blue": (150, 188, 222, 6, 2, 1, 1, 1),
    "teal": (52, 150, 150, 4, 2, 1, 1, 1),
    "turquoise": (130, 212, 205, 3, 1, 0.5, 1, 1),
    "dark green": (40, 74, 54, 3, 4, 2, 1, 2),
    "green": (62, 152, 70, 4, 1, 0.5, 1, 1),
    "lime": (150, 210, 60, 2, 0.5, 0.3, 1, 0.5),
    "olive": (98, 97, 62, 2, 6, 4, 1, 3),
    "khaki": (176, 160, 122, 3, 5, 7, 2, 3),
    "beige": (214, 198, 170, 4, 5, 5, 3, 3),
    "brown": (98, 67, 46, 2, 5, 4, 8, 8),
    "camel": (176, 128, 78, 2, 5, 2, 3, 4),
    "yellow": (240, 208, 60, 4, 1, 0.5, 1, 1),
    "orange": (230, 126, 46, 3, 1, 0.3, 1, 1),
    "red": (194, 38, 44, 6, 3, 1, 3, 3),
    "burgundy": (108, 34, 48, 3, 3, 2, 1, 2),
    "pink": (236, 164, 182, 4, 2, 1, 2, 2),
    "magenta": (205, 50, 120, 3, 1, 0.5, 1, 1),
    "purple": (100, 58, 132, 3, 1, 0.5, 1, 1),
    "lilac": (184, 164, 208, 2, 1, 0.5, 0.5, 0.5),
}
PALETTE_COLOURS = np.array([row[:3] for row in PALETTE.values()], np.float32) / 255
FOR_TOPS, FOR_COATS, FOR_BOTTOMS, FOR_SHOES, FOR_BAGS = np.array([row[3:] for row in PALETTE.values()]).T
DENIM = np.array([(38, 52, 84), (62, 84, 122), (96, 122, 158), (140, 164, 192), (44, 46, 54)], np.float32) / 255
SKINS = np.array(
    [(246, 216, 196), (236, 198, 170), (224, 182, 150), (206, 160, 124), (170, 120, 86), (124, 82, 58), (78, 52, 40)],
    np.float32,
) / 255
HAIRS = {  # and how common
    "black": (24, 21, 21, 40), "dark brown": (46, 33, 27, 25), "brown": (84, 58, 40, 12), "chestnut": (110, 66, 40, 6),
    "fair": (176, 138, 88, 6), "grey": (142, 140, 138, 5), "white": (205, 203, 200, 1), "red": (140, 62, 32, 2),
    "dyed pink": (206, 110, 150, 1), "dyed blue": (62, 92, 150, 1),
}  # fmt: skip
HAIR_COLOURS = np.array([row[:3] for row in HAIRS.values()], np.float32) / 255
HAIR_WEIGHTS = np.array([row[3] for row in HAIRS.values()])


def random_outfit(colours: Key[Array, ""], details: Key[Array, ""]) -> Outfit:
    """Somebody in their clothes.

    Args:
      colours: decides sex, skin, hair, what is worn, and which colours it has and how much of each.
      details: decides where the colours are: which half of a garment is dark, where a print is and its shape, which way
        bands run and how wide they are.
    """
    dice, lay = Dice(colours, count=96), Dice(details, count=32)
    female, cold = dice.chance(0.48), dice.chance(0.45)
    climate = 2 * female + cold
    top, bottom = (_row(table, dice.weighted(_weights(table)[climate])) for table in (TOPS, BOTTOMS))
    outer = top.trunk_width > 1.065

    skin = _interpolate(SKINS, dice.between(0, 1) ** 1.3)
    hair = _colour(dice, HAIR_WEIGHTS, HAIR_COLOURS)
    hair_length = jnp.where(female, dice.between(0.3, 1), dice.between(0, 0.36))

    printed = dice.chance(top.prints / 100)
    blocks = ~printed & dice.chance(top.blocks / (100.5 - top.prints))
    top_cloth = _cloth(dice, lay, jnp.where(outer, FOR_COATS, FOR_TOPS), plain=printed, blocks=blocks)
    bottom_cloth = _cloth(dice, lay, FOR_BOTTOMS, plain=~dice.chance(bottom.patterned / 100), blocks=dice.chance(0.25))
    emblem = blocks & dice.chance(0.8)
    denim = _colour(dice, np.ones(len(DENIM)), DENIM)
    bottom_cloth = bottom_cloth._replace(ground=jnp.where(bottom.fade > 0, denim, bottom_cloth.ground))

    # Under a skirt: bare legs when it is warm, tights in black, grey or nearly the skin's colour when it is cold.
    skirted = top.dress | (bottom.skirt > 0)
    tights = dice.chance(jnp.where(cold, 0.85, 0.2))
    tights_colour = dice.one_of(jnp.stack([jnp.full(3, 0.1), jnp.full(3, 0.13), jnp.full(3, 0.28), skin * 0.8]))
    trousers = either(skirted, bottom_cloth._replace(ground=tights_colour, pattern=jnp.int32(PLAIN)), bottom_cloth)
    leg_length = jnp.where(skirted, 2.0 * tights, bottom.leg_length * dice.between(0.95, 1.05))

    under = jnp.where(top.layered, _colour(dice, FOR_TOPS), skin)
    shoe = dice.weighted(jnp.asarray(SHOE_WEIGHTS)[climate])
    sneaker_sole = jnp.where(dice.chance(0.75), 0.9, 0.2) * jnp.ones(3)
    socks = ((shoe == SNEAKERS) | (shoe == LEATHER)) & ~(skirted & tights)
    sock = jnp.where(dice.chance(0.55), jnp.full(3, 0.88), _colour(dice, FOR_BOTTOMS))
    shoe_colour = _colour(dice, jnp.where(shoe == SNEAKERS, FOR_SHOES, FOR_BAGS))
    bag_colour = _colour(dice, FOR_BAGS)

    return Outfit(
        female=female,
        hair_length=hair_length,
        hair_volume=jnp.where(female, dice.between(0.01, 0.03), dice.between(0.005, 0.02)),
        skirt=jnp.where(top.skirt > 0, top.skirt, bottom.skirt) * dice.between(0.85, 1.08),
        flare=jnp.where(top.skirt > 0, top.flare, bottom.flare) * dice.between(0.92, 1.06),
        sleeve_width=jnp.clip(top.sleeve_width * dice.between(0.97, 1.05), 1, 1.35),
        leg_width=jnp.where(skirted, 1.0, jnp.clip(bottom.leg_width * dice.between(0.96, 1.05), 1, 1.35)),
        trunk_width=jnp.clip(top.trunk_width * dice.between(0.98, 1.05), 1, 1.2),
        bag=jnp.where(printed, NO_BAG, dice.weighted(jnp.asarray(BAG_WEIGHTS)[female.astype(int)])),
        skin=skin,
        hair=hair,
        fringe=dice.between(0, 1) * jnp.where(dice.chance(0.5), 1.0, 0.2),
        top=top_cloth,
        sleeve=top.sleeve * dice.between(0.9, 1.1),
        contrast_sleeves=dice.chance(jnp.where(printed | blocks, 0.2, 0)),
        hem=top.hem * dice.between(0.75, 1.15),
        neckline_depth=top.neckline_depth * dice.between(0.8, 1.2),
        neckline_width=top.neckline_width * dice.between(0.85, 1.15),
        round_neck=(top.closure == NO_CLOSURE) & ~top.layered & dice.chance(0.8),
        collar=jnp.clip(top.collar * dice.between(0.85, 1.15), 0, 1),
        collar_colour=jnp.where(dice.chance(0.75), top_cloth.ground, top_cloth.figure),
        opening=top.opening * dice.between(0.6, 1.3),
        closure=top.closure,
        pockets=top.pockets,
        hood=top.hood,
        print=Print(
            size=jnp.where(printed, dice.between(0.19, 0.27), jnp.where(emblem, dice.between(0.1, 0.15), 0)),
            stretch=lay.between(0.8, 1.3),
            shape=lay.one_of((BLOB, BLOB, LINES, BADGE)),
            face=jnp.where(dice.chance(0.35), BOTH_FACES, lay.one_of((FRONT, BACK))),
            angle=lay.between(-1, 1) * jnp.where(printed, 0.3, 0.6),
            along=lay.between(0.55, 0.7),
            colour=jnp.where(printed, top_cloth.figure, _colour(dice, FOR_TOPS)),
        ),
        under=under,
        under_sleeve=top.under_sleeve,
        trousers=trousers,
        leg_length=leg_length,
        side_stripe=bottom.side_stripe & ~skirted,
        fade=jnp.where(skirted, 0, bottom.fade * dice.between(0.4, 1.2)),
        skirt_cloth=either(top.skirt > 0, top_cloth, bottom_cloth),
        belt=dice.one_of(((0.09, 0.08, 0.08), (0.3, 0.19, 0.12), (0.45, 0.42, 0.38))),
        belted=dice.chance(0.45) & ~top.dress,
        sock=sock,
        sock_height=jnp.where(socks, dice.one_of((0.06, 0.06, 0.14, 0.14, 0.3, 0.3, 0.7)), 0),
        foot=jnp.where(skirted & tights, tights_colour, skin),
        shoe=shoe,
        shoe_colour=shoe_colour,
        sole=jnp.where(shoe == SNEAKERS, sneaker_sole, shoe_colour * 0.35),
        shoe_height=jnp.where(shoe == BOOTS, dice.one_of((0.25, 0.45, 0.85)), 0),
        hand=jnp.where(cold & dice.chance(0.15), _colour(dice, FOR_SHOES), skin),
        bag_colour=bag_colour,
        bag_trim=jnp.where(dice.chance(0.6), bag_colour * 0.55, _colour(dice, FOR_TOPS)),
        seed=(lay.between(0, 1) * 2**24).astype(jnp.uint32),
    )


def _row(table, index):
    """One row of a table of garments, its numbers as arrays."""
    columns = zip(*(row._replace(weights=0) for row in table.values()), strict=True)
    return type(next(iter(table.values())))(*(jnp.asarray(np.array(column))[index] for column in columns))


def _weights(table):
    return jnp.asarray(np.array([row.weights for row in table.values()], np.float32).T)


def either(condition: Bool[Array, "..."], one: PyTree, other: PyTree) -> PyTree:
    """One tree of numbers where the condition holds, else the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _colour(dice, weights, colours=PALETTE_COLOURS):
    """One of the table's, a little lighter or darker."""
    return jnp.clip(jnp.asarray(colours)[dice.weighted(weights)] * dice.between(0.88, 1.1), 0, 1)


def _interpolate(colours, place):
    return jnp.stack([jnp.interp(place * (len(colours) - 1), np.arange(len(colours)), c) for c in colours.T])


def _cloth(dice, lay, weights, *, plain, blocks):
    ground, figure = _colour(dice, weights), _colour(dice, FOR_TOPS)
    # Colours too much alike would make patterns that nobody sees.
    apart = jnp.abs(ground - figure).max() > 0.3
    figure = jnp.where(apart, figure, jnp.where(ground.mean() > 0.5, ground * 0.35, 0.35 * ground + 0.55))
    halves = dice.chance(0.6)
    mixed = ~blocks & dice.chance(0.35)
    pattern = jnp.where(blocks, lay.one_of(BLOCKS), lay.one_of(BANDS))
    one_faced = dice.chance(jnp.where(blocks, 0, 0.25))
    return Cloth(
        ground=ground,
        figure=figure,
        share=jnp.where(blocks, jnp.where(halves, 0.5, dice.between(0.25, 0.4)), dice.between(0.25, 0.5)),
        mixed=mixed,
        pattern=jnp.where(plain, PLAIN, pattern),
        period=0.05 * 2.8 ** lay.between(0, 1),
        phase=jnp.stack([lay.between(0, 1), lay.between(0, 1)]),
        face=jnp.where(one_faced, lay.one_of((FRONT, BACK)), BOTH_FACES),
    )
