"""Tables of garments and colours, and random outfits from them, with skin and hair.

An Outfit is a record of numbers, determined by two keys: `colours` decides garments and colours, `details` where on the
garments the colours are. A colour histogram cannot tell apart people with the same first key.
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

# Where a cloth has its second colour: nowhere, in repeated bands, or in a block at an edge or anywhere (LEVEL, PANEL).
PLAIN, ACROSS, UPRIGHT, SLANTING, CHECKS, DOTS, UPPER, LOWER, LEFT, RIGHT, LEVEL, PANEL = range(12)
BANDS, BLOCKS = (ACROSS, UPRIGHT, SLANTING, CHECKS, DOTS), (UPPER, LOWER, LEFT, RIGHT, LEVEL, PANEL)
BOTH_FACES, FRONT, BACK = range(3)
BLOB, LINES, BADGE = range(3)  # shapes of a print


class Cloth(NamedTuple):
    """A cloth of one or two colours.

    Attributes:
      ground, figure: first and second colour, sRGB.
      share: share of the garment that has the colour `figure`.
      mixed: whether there is also a zone that has the mean of both colours, as in gingham.
      pattern: PLAIN to PANEL.
      period: width of two neighbouring bands, in metres.
      phase: offset of bands upwards and around, in periods; or position of a block, in heights and widths of the
        garment.
      face: where the pattern is: BOTH_FACES, FRONT or BACK.
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
      size: square root of the area of its box, in metres; 0 for no print.
      stretch: the box is size * stretch wide and size / stretch high.
      shape: BLOB, LINES or BADGE.
      face: FRONT, BACK or BOTH_FACES.
      angle: of its centre from the middle of the face, in radians.
      along: height of its centre on the trunk, 0 to 1.
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
    """The appearance of a person except the body; colours are sRGB, `along` the trunk is 0 at its lower end to 1.

    Attributes:
      female: whether face and body are a woman's.
      hair_length: 0 for cropped hair, 0.3 to the tops of the ears, 0.6 to the shoulders, 1 to the middle of the back.
      hair_volume: thickness of the hair on the skull, in metres.
      skirt: length of a skirt, dress or coat: 0 for none, 1 to the knees, 2 to the ankles.
      flare: radius of the skirt's hem divided by that of the hips.
      sleeve_width, leg_width, trunk_width: radii with clothes divided by those without.
      bag: NO_BAG, BACKPACK, SHOULDER_BAG at the right hip, or HAND_BAG.
      skin, hair: colours.
      fringe: how far the hair hangs over the forehead, 0 to 1.
      top: cloth of the garment on the trunk.
      sleeve: length of the sleeves: 0 for none, 1 to the elbow, 2 to the wrist.
      contrast_sleeves: whether ground and figure are swapped on the sleeves.
      hem: lower end of the top, along the trunk.
      neckline_depth: along the trunk, from its upper end.
      neckline_width: angle to each side of the middle, in radians; inside the neckline, `under` is seen.
      round_neck: whether the neckline is round; otherwise it is a V.
      collar: share of the neck that the collar covers.
      collar_colour: colour of collar, hood or scarf.
      opening: half the width of the gap in front of an open jacket, in radians; `under` is seen in it.
      closure: NO_CLOSURE, BUTTONS or ZIP.
      pockets: NO_POCKET, CHEST_POCKET, POUCH or SIDE_POCKETS.
      hood: whether a hood lies on the back.
      print: print on the top.
      under: colour of a shirt under the top; the skin's colour if there is none.
      under_sleeve: length of its sleeves, as `sleeve`.
      trousers: cloth on the legs, of trousers, shorts, leggings or stockings.
      leg_length: lower end of that cloth: 0 for bare legs, 1 at the knees, 2 at the ankles.
      side_stripe: whether trousers have a stripe in the figure's colour.
      fade: how much lighter the fronts of the thighs are, as on jeans; 0 to 1.
      skirt_cloth: cloth of the skirt.
      belt: colour of the belt.
      belted: whether there is a belt.
      sock: colour of the socks.
      sock_height: from the ankle along the shin, 0 to 1; 0 for no socks.
      foot: colour of the foot inside sandals.
      shoe: SNEAKERS, LEATHER, BOOTS, SANDALS or FLATS.
      shoe_colour, sole: colours.
      shoe_height: upper end of boots, from the ankle along the shin, 0 to 1.
      hand: colour of hands or gloves.
      bag_colour, bag_trim: colours.
      seed: seed of the folds and of the print's shape.
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
      weights: relative frequency for men in warm weather, men in cold, women in warm, women in cold weather.
      layered: whether a shirt shows under it.
      dress: whether it replaces trousers and skirt; stockings remain possible.
      prints: percentage with a print.
      blocks: percentage with a block of colour, and maybe an emblem; the others have bands.
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
    sleeve_width: float = 1.05  # used for bare forearms too
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
      patterned: percentage that is not plain.
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

# Relative frequencies of SNEAKERS, LEATHER, BOOTS, SANDALS, FLATS; rows in the order of Top.weights.
SHOE_WEIGHTS = np.array([(10, 5, 0, 2, 0), (9, 6, 2, 0, 0), (7, 1, 0, 4, 5), (6, 2, 6, 0, 2)])

# Percentages of NO_BAG, BACKPACK, SHOULDER_BAG, HAND_BAG; rows for men and women.
BAG_WEIGHTS = np.array([(68, 20, 9, 3), (55, 12, 20, 13)])

# sRGB colours of clothes, and relative frequencies on tops; coats and jackets; trousers and skirts; shoes; bags.
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
HAIRS = {  # sRGB colour, relative frequency
    "black": (24, 21, 21, 40), "dark brown": (46, 33, 27, 25), "brown": (84, 58, 40, 12), "chestnut": (110, 66, 40, 6),
    "fair": (176, 138, 88, 6), "grey": (142, 140, 138, 5), "white": (205, 203, 200, 1), "red": (140, 62, 32, 2),
    "dyed pink": (206, 110, 150, 1), "dyed blue": (62, 92, 150, 1),
}  # fmt: skip
HAIR_COLOURS = np.array([row[:3] for row in HAIRS.values()], np.float32) / 255
HAIR_WEIGHTS = np.array([row[3] for row in HAIRS.values()])


def random_outfit(colours: Key[Array, ""], details: Key[Array, ""]) -> Outfit:
    """A random outfit.

    Args:
      colours: key that decides sex, skin, hair, garments, their colours and the share of each colour.
      details: key that decides where the colours are: which half of a garment is dark, position and shape of a print,
        direction and width of bands.
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

    # Under a skirt most people wear tights when it is cold, and few when it is warm.
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
    """One row of a table of garments, with its numbers as arrays."""
    columns = zip(*(row._replace(weights=0) for row in table.values()), strict=True)
    return type(next(iter(table.values())))(*(jnp.asarray(np.array(column))[index] for column in columns))


def _weights(table):
    return jnp.asarray(np.array([row.weights for row in table.values()], np.float32).T)


def either(condition: Bool[Array, "..."], one: PyTree, other: PyTree) -> PyTree:
    """`one` where the condition holds, otherwise `other`; both are trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _colour(dice, weights, colours=PALETTE_COLOURS):
    """A random colour of a table, slightly lighter or darker."""
    return jnp.clip(jnp.asarray(colours)[dice.weighted(weights)] * dice.between(0.88, 1.1), 0, 1)


def _interpolate(colours, place):
    return jnp.stack([jnp.interp(place * (len(colours) - 1), np.arange(len(colours)), c) for c in colours.T])


def _cloth(dice, lay, weights, *, plain, blocks):
    ground, figure = _colour(dice, weights), _colour(dice, FOR_TOPS)
    # Patterns of two similar colours would be invisible.
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
