"""Paints an outfit into the atlas, with skin, hair and an average face.

Every chart is painted from the skin outwards; each layer has a soft mask, a function of a texel's angle and height.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from san_jax.synthesis.atlas import CHARTS, SIZE, texels
from san_jax.synthesis.wardrobe import (
    BACK,
    BACKPACK,
    BOTH_FACES,
    BUTTONS,
    CHECKS,
    FRONT,
    LEATHER,
    NO_BAG,
    NO_POCKET,
    PLAIN,
    SHOULDER_BAG,
    SNEAKERS,
    UPPER,
    Outfit,
    either,
)

PRINT_CELLS = 8  # cells of a print, in each direction

# In metres, so that a pattern has the same width on sleeve and chest.
TRUNK_LENGTH, TRUNK_GIRTH = 0.62, 0.96
LEG_LENGTH, LEG_GIRTH, SKIRT_GIRTH = 0.41, 0.48, 1.2  # of thigh and of shin, each
ARM_LENGTH, ARM_GIRTH = 0.28, 0.3  # of upper arm and of forearm, each
WAIST = 0.4  # upper end of trousers and skirts, along the trunk


class _Patch(NamedTuple):
    """A rectangle of the atlas: one chart, or the charts of a pair of limbs, upper halves above lower halves.

    Attributes:
      box: rows and columns of the atlas.
      angle: angle around the part, in radians, [1 W].
      along: height along the part, 0 at its lower end to 1, [H 1].
      down: position along a limb, [H 1]: 0 at its upper end, 1 at elbow or knee, 2 at its lower end.
      side: 1 for the left limb, -1 for the right, [1 W].
    """

    box: tuple[slice, slice]
    angle: np.ndarray
    along: np.ndarray
    down: np.ndarray
    side: np.ndarray


def _patch(*parts):
    charts = [CHARTS[part] for part in parts]
    top, left = min(c.top for c in charts), min(c.left for c in charts)
    box = np.s_[top : max(c.top + c.height for c in charts), left : max(c.left + c.width for c in charts)]
    angle, along = (field[box] for field in texels()[1:])
    part = texels().part[box]
    number = np.cumsum(np.diff(part[:, 0], prepend=part[0, 0]) != 0)[:, None]
    side = np.where(part[:1] == part[0, 0], 1.0, -1.0).astype(np.float32)
    return _Patch(box, angle[:1], along[:, :1], number + 1 - along[:, :1], side)


HEAD, NECK, TRUNK, BAG = (_patch(part) for part in ("head", "neck", "trunk", "bag"))
LEGS = _patch("left_thigh", "right_thigh", "left_shin", "right_shin")
ARMS = _patch("left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm")
HANDS, FEET = (_patch(f"left_{part}", f"right_{part}") for part in ("hand", "foot"))
STRANDS = np.random.default_rng(0).normal(0, 1, HEAD.angle.shape).astype(np.float32)  # brightness of hair


def texture(outfit: Outfit) -> Float32[Array, "256 256 3"]:
    """The texture of a person, sRGB in [0, 1]."""
    cells, folds = jax.random.split(jax.random.key(outfit.seed))
    folds = _folds(folds)
    # Channels come first, so that masks [H W] broadcast against colours [3 1 1].
    outfit = jax.tree.map(lambda x: x[:, None, None] if x.shape == (3,) else x, outfit)
    painted = [
        (HEAD, _head(outfit, folds[HEAD.box])),
        (NECK, _neck(outfit, folds[NECK.box])),
        (TRUNK, _trunk(outfit, folds[TRUNK.box], jax.random.uniform(cells, (PRINT_CELLS, PRINT_CELLS)))),
        (LEGS, _legs(outfit, folds[LEGS.box])),
        (ARMS, _arms(outfit, folds[ARMS.box])),
        (HANDS, _hands(outfit, folds[HANDS.box])),
        (FEET, _feet(outfit, folds[FEET.box])),
        (BAG, _bag(outfit, folds[BAG.box])),
    ]
    atlas = jnp.zeros((3, SIZE, SIZE))
    for patch, colours in painted:
        atlas = atlas.at[:, *patch.box].set(colours)
    return jnp.clip(atlas, 0, 1).transpose(1, 2, 0)


def _spline(cells):
    """Weights of cubic B-splines, [SIZE cells], scaled so that random fields have variance 1."""
    distance = np.abs(np.linspace(1, cells - 2, SIZE)[:, None] - np.arange(cells))
    near, far = 4 - 6 * distance**2 + 3 * distance**3, (2 - distance) ** 3
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0)) / 6
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


FOLDS = ((0.7, 9, 64), (0.6, 50, 14), (0.4, 120, 120))  # strength, and number of cells down and across the atlas


def _folds(key):
    """Light and shade of hanging folds, of crossing folds and of the cloth's texture, [SIZE SIZE]."""
    total = 0
    for one, (strength, rows, columns) in zip(jax.random.split(key, len(FOLDS)), FOLDS, strict=True):
        total += strength * (_spline(rows) @ jax.random.normal(one, (rows, columns)) @ _spline(columns).T)
    return total


def _edge(distance, softness):
    """1 where the distance is positive, 0 where it is negative; `softness` is the width of the ramp between."""
    return jnp.clip(distance / softness + 0.5, 0, 1)


def _over(below, colour, mask):
    return below + (colour - below) * mask


def _chosen(index, values):
    """The value with that index; a chain of `where` costs less than indexing a stack of arrays."""
    result = values[0]
    for number, value in enumerate(values[1:], 1):
        result = jnp.where(index == number, value, result)
    return result


def _line(distance, width):
    """A thin soft line at distance 0."""
    return jnp.exp(-((distance / width) ** 2))


def _shaded(colour, folds, strength=1.0):
    folds = folds * strength
    return colour * (1 + 0.05 * folds) + 0.01 * folds


def _skinned(outfit, folds):
    return _shaded(outfit.skin, folds, 0.3)


def _woven(cloth, patch, *, up, girth, height, limbs=False):
    """The colours of a cloth, [3 H W].

    Each pattern gives every texel a rank, uniform in [0, 1]; texels whose rank is lower than the share have the colour
    `figure`. The shares of the colours are therefore the same for all patterns.

    Args:
      cloth: with colours [3 1 1].
      patch: the rectangle to paint.
      up: height of each row, in metres, [H 1].
      girth: length once around the part, in metres.
      height: height on the garment, 0 at its lower hem to 1 at its upper end, [H 1].
      limbs: whether each side of the patch is half of the garment; otherwise each side, or the patch, is all of it.
    """
    sideways = np.arccos(np.sin(patch.angle)) / np.pi  # 0 at the left, 1 at the right
    sideways = jnp.where(limbs, (sideways + (patch.side < 0)) / 2, sideways)
    around = jnp.maximum(1, jnp.round(girth / cloth.period))  # a whole number of bands, so that they match at the back
    rows, columns = up / cloth.period + cloth.phase[0], around * patch.angle / (2 * np.pi) + cloth.phase[1]
    level, panel = height - cloth.phase[0], sideways - cloth.phase[1]
    waves = (rows, columns, rows + columns, level, panel)
    row, column, slant, level, panel = (2 * jnp.abs((x + 0.5) % 1 - 0.5) for x in waves)
    dot = jnp.minimum(np.pi / 4 * (row**2 + column**2), 1)
    crossing = 1 - (1 - jnp.minimum(row, column)) ** 2
    ranks = (row, column, slant, crossing, dot, 1 - height, height, sideways, 1 - sideways, level, panel)
    outer = _chosen(cloth.pattern, (2.0, *ranks))
    inner = jnp.where(cloth.pattern == CHECKS, jnp.maximum(row, column) ** 2, outer)
    least = (1 - jnp.sqrt(1 - cloth.share)) ** 2  # share of the crossings of checks that cover `share`
    softness = jnp.where(cloth.pattern >= UPPER, 0.03, 0.012 / cloth.period)
    tone = _edge(cloth.share - outer, softness)
    tone = jnp.where(cloth.mixed, (tone + _edge(least - inner, softness)) / 2, tone)
    front = np.cos(patch.angle) > 0
    tone = tone * jnp.where(cloth.face == BOTH_FACES, True, (cloth.face == FRONT) == front)
    return cloth.ground + (cloth.figure - cloth.ground) * tone


# Average faces, one feature in each row: angle and height of its centre, half its width and half its height, softness
# of its edge, factors on the skin's colour (3) and a value added to it, opacity. Features at an angle other than 0 are
# painted on both sides.
SHARED_FACE = (
    (0.42, 0.50, 0.30, 0.075, 1.2, 0.80, 0.74, 0.74, 0.0, 0.5),  # sockets
    (0.62, 0.33, 0.28, 0.10, 1.5, 1.03, 0.88, 0.86, 0.0, 0.5),  # cheeks
    (0.00, 0.44, 0.07, 0.12, 1.5, 1.10, 1.09, 1.08, 0.0, 0.6),  # bridge
    (0.15, 0.37, 0.07, 0.05, 1.4, 0.80, 0.72, 0.70, 0.0, 0.5),  # wings of the nose
    (0.08, 0.325, 0.05, 0.018, 0.8, 0.42, 0.30, 0.30, 0.0, 0.7),  # nostrils
    (0.00, 0.16, 0.20, 0.02, 1.5, 0.82, 0.78, 0.76, 0.0, 0.5),  # under the lip
    (1.15, 0.22, 0.30, 0.24, 1.5, 0.84, 0.78, 0.76, 0.0, 0.6),  # edge of the jaw
)
MAN_FACE = (
    (0.00, 0.10, 0.85, 0.13, 1.5, 0.80, 0.80, 0.83, 0.0, 0.45),  # shaven chin
    (0.00, 0.275, 0.24, 0.02, 1.5, 0.78, 0.77, 0.80, 0.0, 0.4),  # shaven upper lip
    (0.40, 0.615, 0.21, 0.024, 0.7, 0.26, 0.22, 0.22, 0.0, 0.85),  # brows
    (0.40, 0.505, 0.155, 0.026, 0.5, 0.00, 0.00, 0.00, 0.85, 0.85),  # whites
    (0.40, 0.530, 0.18, 0.011, 0.7, 0.25, 0.20, 0.20, 0.0, 0.7),  # lids
    (0.40, 0.507, 0.062, 0.029, 0.5, 0.10, 0.06, 0.05, 0.04, 1.0),  # irises
    (0.00, 0.222, 0.29, 0.026, 0.8, 0.78, 0.56, 0.56, 0.0, 0.8),  # lips
    (0.00, 0.226, 0.28, 0.006, 0.8, 0.40, 0.26, 0.26, 0.0, 0.8),  # the line between them
)
WOMAN_FACE = (
    (0.50, 0.30, 0.24, 0.08, 1.5, 1.05, 0.84, 0.84, 0.0, 0.3),  # cheeks, in addition
    (0.42, 0.565, 0.22, 0.03, 1.4, 0.86, 0.74, 0.76, 0.0, 0.5),  # eye shadow
    (0.42, 0.625, 0.20, 0.014, 0.8, 0.36, 0.29, 0.28, 0.0, 0.8),  # brows
    (0.41, 0.505, 0.165, 0.033, 0.5, 0.00, 0.00, 0.00, 0.88, 0.9),  # whites
    (0.42, 0.538, 0.19, 0.013, 0.7, 0.12, 0.09, 0.09, 0.0, 0.9),  # lashes
    (0.41, 0.507, 0.072, 0.035, 0.5, 0.12, 0.07, 0.06, 0.04, 1.0),  # irises
    (0.00, 0.222, 0.215, 0.032, 0.8, 0.92, 0.42, 0.46, 0.0, 0.9),  # lips
    (0.00, 0.228, 0.20, 0.006, 0.8, 0.50, 0.20, 0.24, 0.0, 0.8),  # the line between them
)


def _head(outfit, folds):
    colours = _skinned(outfit, folds)
    turned = np.abs(HEAD.angle)
    faces = (np.array(SHARED_FACE + own, np.float32) for own in (WOMAN_FACE, MAN_FACE))
    for feature in jnp.where(outfit.female, *faces):
        angle, along, width, height, softness, *tint, add, cover = feature
        distance = 1 - jnp.sqrt(((turned - angle) / width) ** 2 + ((HEAD.along - along) / height) ** 2)
        colours = _over(colours, outfit.skin * jnp.stack(tint)[:, None, None] + add, cover * _edge(distance, softness))
    ear = 1 - jnp.sqrt(((turned - 1.62) / 0.2) ** 2 + ((HEAD.along - 0.46) / 0.13) ** 2)
    ears = _edge(0.33 - outfit.hair_length, 0.08)  # long hair covers them
    colours = _over(colours, _hair(outfit, folds), _hair_cover(outfit, turned, folds) * (1 - ears * _edge(ear, 0.2)))
    rim = ears * (_line(ear, 0.12) * 0.35 + _line(ear - 0.75, 0.3) * 0.4)
    return _over(colours, outfit.skin * np.array([0.7, 0.55, 0.5], np.float32)[:, None, None], rim)


def _hair(outfit, folds):
    """Colours of the hair, [3 H W], with strands and a highlight on the crown."""
    light = 1 + 0.09 * STRANDS + 0.05 * folds + 0.5 * _line(HEAD.along - 0.87 - 0.02 * STRANDS, 0.07)
    return outfit.hair * light + 0.012 * STRANDS


def _hair_cover(outfit, turned, folds):
    """Mask of the hair, [H W]; the hairline runs over the forehead, down in front of the ears, and to the nape."""
    turns = np.array([0, 0.55, 0.95, 1.15, 1.38, 1.45, 1.8, 1.95, 2.3, 3.15])
    short = np.interp(turned, turns, [0.80, 0.81, 0.78, 0.62, 0.42, 0.57, 0.57, 0.22, 0.10, 0.06])
    long = np.interp(turned, turns, [0.84, 0.80, 0.64, 0.30, 0.0, -1, -1, -1, -1, -1])
    line = short + (long - short) * _edge(outfit.hair_length - 0.42, 0.12)
    line = line - 0.17 * outfit.fringe * _edge(0.8 - turned, 0.5) + 0.012 * folds
    return _edge(HEAD.along - line, 0.05) * (0.78 + 0.22 * _edge(outfit.hair_length - 0.08, 0.1))


def _neck(outfit, folds):
    colours = _skinned(outfit, folds) * (1 - 0.2 * NECK.along * np.maximum(np.cos(NECK.angle), 0))
    turned = np.abs(NECK.angle)
    hair = _edge(turned - 1.5, 0.3) * _edge(outfit.hair_length - 0.45, 0.1)
    colours = _over(colours, _shaded(outfit.hair, folds, 2.0), hair)
    # A collar stands higher at the back than in front.
    collar = _edge(outfit.collar * (0.75 + 0.35 * (1 - np.cos(NECK.angle)) / 2) - NECK.along, 0.1) * (outfit.collar > 0)
    parted = _edge(turned - outfit.neckline_width * (0.3 + NECK.along), 0.15)
    rim = 1 - 0.25 * _line(NECK.along - outfit.collar, 0.1)
    return _over(colours, _shaded(outfit.collar_colour, folds) * rim, collar * parted)


def _trunk(outfit, folds, cells):
    along, turned = TRUNK.along, np.abs(TRUNK.angle)
    lower = either(outfit.skirt > 0, outfit.skirt_cloth, outfit.trousers)
    colours = _over(_skinned(outfit, folds), _shaded(outfit.under, folds), _below_neckline(0.1, 0.5, rounded=True))
    colours = _over(colours, _lower_trunk(outfit, lower, folds), _edge(WAIST - along, 0.01))
    covered = _top_cover(outfit, turned)
    colours = colours * (1 - 0.3 * covered * (1 - covered) * 4)  # edges cast shadows
    return _straps(outfit, _over(colours, _upper_trunk(outfit, folds, cells), covered), folds)


def _below_neckline(depth, width, *, rounded):
    """Mask of the cloth, [H W]: 0 inside the neckline, otherwise 1."""
    inside = jnp.clip(1 - (1 - TRUNK.along) / depth, 0, 1)
    front = jnp.where(rounded, jnp.sqrt(inside), inside) * width
    return _edge(np.abs(TRUNK.angle) + 0.03 - front, 0.06)  # 0.03 closes the cloth below the neckline


def _top_cover(outfit, turned):
    along = TRUNK.along
    # Sleeveless garments have arm holes; the cloth continues over the shoulders.
    hole = 1 - jnp.sqrt(((turned - np.pi / 2) / 0.42) ** 2 + ((along - 0.86) / 0.15) ** 2)
    bare = (outfit.sleeve < 0.1) & (outfit.under_sleeve < 0.1)
    cover = _edge(along - outfit.hem, 0.012) * (1 - bare * _edge(hole, 0.1))
    opened = jnp.where(outfit.opening > 0, _edge(outfit.opening * (1.15 - 0.35 * along) - turned, 0.05), 0)
    neck = _below_neckline(outfit.neckline_depth, outfit.neckline_width, rounded=outfit.round_neck)
    return cover * neck * (1 - opened)


def _lower_trunk(outfit, cloth, folds):
    """The colours of trousers or skirt above the crotch, with belt, fly and pockets."""
    along, turned = TRUNK.along, np.abs(TRUNK.angle)
    colours = _shaded(_woven(cloth, TRUNK, up=TRUNK_LENGTH * along, girth=TRUNK_GIRTH, height=along / WAIST), folds)
    fly = _line(TRUNK.angle, 0.03) * (along < 0.3)
    hip_pocket = _line(turned - 1.35 + 2.2 * jnp.maximum(along - 0.2, 0), 0.05) * (along > 0.2)
    seat_pocket = _line(jnp.maximum(jnp.abs(turned - 2.5) / 0.32, jnp.abs(along - 0.2) / 0.075) - 1, 0.12)
    lines = jnp.where(outfit.skirt > 0, 0, jnp.maximum(jnp.maximum(fly, hip_pocket), seat_pocket))
    colours = colours * (1 - 0.25 * lines)
    buckle = _edge(0.12 - turned, 0.03)
    belt = jnp.where(outfit.belted, outfit.belt + 0.45 * buckle, colours * 0.85)
    return _over(colours, belt, _edge(0.022 - jnp.abs(along - 0.372), 0.008))


def _upper_trunk(outfit, folds, cells):
    """The colours of the top: cloth, print, closure, pockets, hood and seams."""
    along, turned = TRUNK.along, np.abs(TRUNK.angle)
    height = jnp.clip((along - outfit.hem) / (0.97 - outfit.hem), 0, 1)
    colours = _woven(outfit.top, TRUNK, up=TRUNK_LENGTH * along, girth=TRUNK_GIRTH, height=height)
    colours = _over(colours, outfit.print.colour, _printed(outfit.print, cells))
    # It is darker under the arms, and where a hem gathers the cloth.
    hollow = jnp.exp(-(((turned - np.pi / 2) / 0.3) ** 2)) * _edge(0.86 - along, 0.3) * _edge(along - 0.3, 0.5)
    colours = _shaded(colours, folds) * (1 - 0.2 * hollow)

    middle = jnp.where(outfit.opening > 0, jnp.abs(turned - outfit.opening * (1.15 - 0.35 * along)), turned)
    half_open = jnp.where(outfit.sleeve < 1, 0.6, 0.0) * (outfit.pockets == NO_POCKET)  # of a polo shirt
    closed = _line(middle, 0.035) * (outfit.closure > 0) * (along > half_open)
    dots = _line(turned, 0.05) * _line((along * 9) % 1 - 0.5, 0.12) * (outfit.closure == BUTTONS) * (along > half_open)
    chest = _line(jnp.maximum(jnp.abs(TRUNK.angle - 0.55) / 0.2, jnp.abs(along - 0.7) / 0.065) - 1, 0.15)
    cut = turned - 0.75 + 1.6 * jnp.maximum(along - 0.3, 0)
    pouch = _line(jnp.maximum(1.5 * cut, jnp.abs(along - 0.32) - 0.1), 0.03)
    slits = _line(turned - 0.85 - 1.2 * (along - 0.35), 0.05) * (jnp.abs(along - 0.35) < 0.07)
    pockets = _chosen(outfit.pockets, (0.0, chest, pouch, slits))
    hood = outfit.hood * _line(jnp.sqrt(((turned - np.pi) / 0.75) ** 2 + ((along - 1) / 0.2) ** 2) - 1, 0.12)
    hem = _line(along - outfit.hem - 0.025, 0.006)
    shoulder = _line(along - 0.93, 0.012) * _line(turned - np.pi / 2, 0.5)
    dark = 1 - jnp.minimum(0.45 * closed + 0.3 * pockets + 0.45 * hood + 0.22 * hem + 0.15 * shoulder, 0.7)
    return _over(colours * dark, 0.6 * outfit.top.figure + 0.2, dots)


def _printed(mark, cells):
    """Mask of a print, [H W]; each shape covers about half of the print's box."""
    reach_around = mark.size * mark.stretch / 2 / (TRUNK_GIRTH / (2 * np.pi))
    reach_up = mark.size / mark.stretch / 2 / TRUNK_LENGTH
    back = jnp.cos(TRUNK.angle) < 0
    offset = jnp.where(back, (TRUNK.angle % (2 * np.pi)) - np.pi, TRUNK.angle) - mark.angle
    across, up = offset / jnp.maximum(reach_around, 1e-3), (TRUNK.along - mark.along) / jnp.maximum(reach_up, 1e-3)
    columns, rows = ((x + 1) * (PRINT_CELLS - 1) / 2 for x in (across, up))
    number = np.arange(PRINT_CELLS)
    centred = cells + cells[:, ::-1]  # symmetric, like an emblem
    centred = (centred - centred.mean()) / 1.4
    smooth = jnp.maximum(0, 1 - jnp.abs(rows - number)) @ centred @ jnp.maximum(0, 1 - jnp.abs(columns.T - number)).T
    lines = (jnp.abs(rows - number) < 0.5) @ jnp.where(number[:, None] % 3 < 2, cells > 0.25, False).astype(jnp.float32)
    letters = lines @ (jnp.abs(columns.T - number) < 0.5).astype(jnp.float32).T
    ring = jnp.sqrt(across**2 + up**2)
    badge = jnp.minimum(0.92 - ring, jnp.maximum(ring - 0.7, smooth * 2 + 0.12))
    shape = _chosen(mark.shape, (smooth * 3 + 0.5 - 0.8 * ring**2, letters - 0.5, badge))
    inside = _edge(1 - jnp.maximum(jnp.abs(across), jnp.abs(up)), 0.04)
    chosen = jnp.where(mark.face == BOTH_FACES, True, (mark.face == BACK) == back)
    return inside * _edge(shape, 0.15) * chosen * (mark.size > 0)


def _straps(outfit, colours, folds):
    """Adds a backpack's straps over both shoulders, or a shoulder bag's from the left shoulder to the right hip."""
    along, turned = TRUNK.along, np.abs(TRUNK.angle)
    pair = _edge(0.13 - jnp.abs(turned - 0.62 - 0.5 * jnp.maximum(0.6 - along, 0)), 0.04) * _edge(along - 0.42, 0.02)
    pair = pair + _edge(0.03 - jnp.abs(along - 0.42), 0.01) * (turned > 0.75)
    cross = _edge(0.028 - jnp.abs(along - 0.57 - 0.38 * np.sin(TRUNK.angle)), 0.012)
    strap = jnp.where(outfit.bag == BACKPACK, jnp.minimum(pair, 1), jnp.where(outfit.bag == SHOULDER_BAG, cross, 0))
    return _over(colours, _shaded(outfit.bag_colour * 0.85, folds, 0.5), strap)


def _legs(outfit, folds):
    down, outside = LEGS.down, LEGS.side * LEGS.angle
    knee = 0.1 * _line(down - 1, 0.12) * np.maximum(np.cos(LEGS.angle), 0)
    colours = _skinned(outfit, folds) * (1 - knee)
    colours = _over(colours, _shaded(outfit.sock, folds, 0.6), _edge(down - 2 + outfit.sock_height, 0.03))

    height = jnp.clip(1 - down / jnp.maximum(outfit.leg_length, 0.1), 0, 1)
    cloth = _woven(outfit.trousers, LEGS, up=-LEG_LENGTH * down, girth=LEG_GIRTH, height=height, limbs=True)
    stripe = outfit.side_stripe * _edge(0.22 - jnp.abs(outside - np.pi / 2), 0.08)
    cloth = _over(cloth, outfit.trousers.figure, stripe)
    thigh, knee = _line(outside - 0.1, 0.7) * _line(down - 0.55, 0.45), _line(outside, 0.8) * _line(down - 1.05, 0.12)
    worn = outfit.fade * (thigh + 0.5 * knee)
    cloth = _shaded(cloth, folds * (1 + 0.8 * _line(down - 1, 0.2)))
    cloth = cloth + (worn * 0.8) * (0.95 - cloth)
    seams = 0.14 * _line(np.abs(outside) - np.pi / 2, 0.07) + 0.25 * _line(down - outfit.leg_length + 0.05, 0.02)
    inner = 0.16 * _line(outside + np.pi / 2, 0.7) * _edge(1 - down, 1)
    cover = _edge(outfit.leg_length - down, 0.03) * (outfit.leg_length > 0)
    colours = _over(colours, cloth * (1 - seams - inner), cover)

    boot = _edge(down - 2 + outfit.shoe_height, 0.03) * (outfit.shoe_height > 0)
    colours = _over(colours, _shaded(outfit.shoe_colour, folds, 0.8), boot)

    # Over the thighs hangs a skirt, or the lower end of the top.
    skirted = outfit.skirt > 0
    reach = jnp.where(skirted, outfit.skirt + 0.05, 0.29 - 1.3 * outfit.hem)
    height = jnp.where(skirted, jnp.clip(1 - down / reach, 0, 1), 0)
    tail = outfit.top._replace(pattern=jnp.where(outfit.top.pattern < UPPER, PLAIN, outfit.top.pattern))
    cloth = _woven(either(skirted, outfit.skirt_cloth, tail), LEGS, up=-LEG_LENGTH * down,
                   girth=jnp.where(skirted, SKIRT_GIRTH, LEG_GIRTH), height=height, limbs=~skirted)
    open_front = _edge(outfit.opening * 0.9 - jnp.abs(LEGS.angle), 0.05) * (outfit.opening > 0) * skirted
    hem = 0.25 * _line(down - reach + 0.06, 0.025) * skirted
    return _over(colours, _shaded(cloth, folds * 1.3) * (1 - hem), _edge(reach - down, 0.03) * (1 - open_front))


def _arms(outfit, folds):
    down, outside = ARMS.down, ARMS.side * ARMS.angle
    elbow = 0.12 * _line(down - 1, 0.1) * np.maximum(-np.cos(ARMS.angle), 0)
    colours = _skinned(outfit, folds) * (1 - elbow)
    under = _edge(outfit.under_sleeve - down, 0.03) * (outfit.under_sleeve > 0)
    colours = _over(colours, _shaded(outfit.under, folds), under)

    top = outfit.top
    top = top._replace(ground=jnp.where(outfit.contrast_sleeves, top.figure, top.ground),
                       figure=jnp.where(outfit.contrast_sleeves, top.ground, top.figure))
    height = jnp.clip(1 - down / jnp.maximum(outfit.sleeve, 0.1), 0, 1)
    cloth = _woven(top, ARMS, up=0.93 * TRUNK_LENGTH - ARM_LENGTH * down, girth=ARM_GIRTH, height=height, limbs=True)
    cloth = _shaded(cloth, folds * (1 + 0.8 * _line(down - 1, 0.25)))
    cuff, shoulder = _line(down - outfit.sleeve + 0.09, 0.025), _line(down, 0.03)
    dark = 0.16 * _line(outside + np.pi / 2, 0.8) + 0.3 * cuff + 0.2 * shoulder
    cover = _edge(outfit.sleeve - down, 0.03) * (outfit.sleeve > 0.1)
    return _over(colours, cloth * (1 - dark), cover)


def _hands(outfit, folds):
    gaps = _line(jnp.abs((HANDS.angle * 4 / np.pi) % 1 - 0.5), 0.2) * _edge(0.5 - HANDS.along, 0.1)
    knuckles = 0.08 * _line(HANDS.along - 0.52, 0.06)
    return _shaded(outfit.hand, folds, 0.3) * (1 - 0.25 * gaps - knuckles)


def _feet(outfit, folds):
    along, turned = FEET.along, np.abs(FEET.angle)
    shoe = _shaded(outfit.shoe_colour, folds, 0.7)
    laced = (outfit.shoe == SNEAKERS) | (outfit.shoe == LEATHER)
    laces = _edge(0.45 - turned, 0.15) * _line((along * 9) % 1 - 0.5, 0.2) * (along > 0.42) * (along < 0.82) * laced
    lace = jnp.where(outfit.shoe == SNEAKERS, outfit.sole, outfit.shoe_colour * 0.5)
    shoe = _over(shoe, lace, 0.8 * laces)
    toe_cap = 0.2 * _line(along - 0.3, 0.02) * (turned < 2)
    panel = 0.25 * _line(turned - 1.2 - 0.5 * along, 0.1) * (outfit.shoe == SNEAKERS)
    shoe = shoe * (1 - toe_cap - panel)

    toes = 0.3 * _line((turned * 1.6) % 1 - 0.5, 0.12) * (along < 0.18)
    foot = _shaded(outfit.foot, folds, 0.3) * (1 - toes)
    straps = _edge(0.11 - np.abs(along - 0.36 - 0.06 * np.cos(2 * turned)), 0.03)
    straps = straps + _edge(0.07 - np.abs(along - 0.8), 0.03)
    vamp = _edge(jnp.maximum(0.33 - along, turned - 1.25), 0.05)
    covers = _chosen(outfit.shoe, (1.0, 1.0, 1.0, jnp.clip(straps, 0, 1), vamp))
    ankle = _edge(along - 0.93, 0.03) * (turned < 2.2) * (outfit.shoe_height == 0)
    colours = _over(foot, shoe, covers)
    colours = _over(colours, jnp.where(outfit.sock_height > 0, outfit.sock, outfit.foot), ankle)
    return _over(colours, _shaded(outfit.sole, folds, 0.3), _edge(turned - jnp.where(laced, 2.0, 2.25), 0.1))


def _bag(outfit, folds):
    """The colours of a bag: a flap over the upper third, a pocket, zips and edges; grey if there is no bag."""
    along, turned = BAG.along, np.abs(BAG.angle)
    colours = _shaded(outfit.bag_colour, folds, 0.8)
    middle = np.minimum(turned, np.pi - turned)  # angle from the middle of the nearer face
    pocket = np.maximum(middle / 0.85, np.abs(along - 0.3) / 0.2)
    colours = _over(colours, outfit.bag_trim, 0.35 * _edge(1 - pocket, 0.1))
    flap, bottom = _line(along - 0.64, 0.025), _line(along - 0.04, 0.04)
    lines = _line(pocket - 1, 0.1) + flap + bottom + _line(turned - np.pi / 2, 0.06)
    colours = _over(colours, outfit.bag_trim * 0.8, jnp.minimum(0.8 * lines, 0.9))
    buckle = _line(middle, 0.14) * _line(along - 0.6, 0.05)
    return jnp.where(outfit.bag == NO_BAG, 0.5, _over(colours, 0.6, 0.7 * buckle))
