"""Renders a person in front of a backdrop, and finds the part and texel that every pixel shows.

Four rays per pixel determine what it shows, one ray per pixel how it is lit. Light is linear (approximately the square
of sRGB values) until the camera responds to it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from san_jax.synthesis import atlas, body, solids
from san_jax.synthesis.backdrop import Backdrop
from san_jax.synthesis.body import Balls, Body
from san_jax.synthesis.camera import Box, Camera, rays
from san_jax.synthesis.light import sky_share
from san_jax.synthesis.solids import FAR, Solids, Vectors
from san_jax.synthesis.street import Place

SAMPLES = 2  # rays per pixel, in each direction
SQUARE = 4  # side in texels of the squares of the texture that are seen or not seen
FINE = 512  # rows of points that are looked at for what is seen
NEIGHBOURS = 30  # texels; rays that are further apart in the texture do not meet neighbouring points of a part
SUN_WIDTH = 0.35  # tangent of the angular radius of the sun at softness 1


class Painting(NamedTuple):
    """A picture in linear light, and which squares of SQUARE x SQUARE texels it shows."""

    picture: Float[Array, "H W 3"]
    seen: Bool[Array, "64 64"]


class Fragments(NamedTuple):
    """What the rays of a grid meet.

    Attributes:
      distance: to the person or an occluder, in lengths of the ray's direction; `solids.FAR` where there is neither.
      solid: index into the body's solids followed by the occluders'.
      person: whether the person is seen.
      part: index into `atlas.PARTS`; 0 where the person is not seen.
      uv: row and column in the atlas, in texels from the centre of the first; (0, 0) where the person is not seen.
    """

    distance: Float[Array, "H W"]
    solid: Int32[Array, "H W"]
    person: Bool[Array, "H W"]
    part: Int32[Array, "H W"]
    uv: Float[Array, "H W 2"]


def fragments(person: Body, occluders: Solids, camera: Camera, box: Box, *, height: int, width: int) -> Fragments:
    """What each pixel of a box shows, by the ray through its centre.

    Args:
      person: the body.
      occluders: solids of an object between the camera and the person.
      camera, box: the camera, and the part of its picture.
      height, width: number of rows and columns of pixels in the box.
    """
    directions = rays(camera, box, height=height, width=width)
    hits = solids.trace(solids.concatenate(person.solids, occluders), tuple(camera.position), directions)
    count = len(person.solids.length)
    seen = (hits.distance < FAR) & (hits.solid < count)
    points = _along(camera, directions, hits.distance)
    part, angle, along = body.locate(person.skin, jnp.minimum(hits.solid, count - 1), points)
    row, column = atlas.locate(part, angle, along)
    uv = jnp.where(seen[..., None], jnp.stack([row, column], axis=-1), 0)
    return Fragments(hits.distance, hits.solid, seen, jnp.where(seen, part, 0), uv)


def unlit(texture: Float[Array, "256 256 C"], shown: Fragments) -> Float[Array, "H W C"]:
    """The person's colours without lighting, as in the texture; zeros where the person is not seen."""
    return jnp.where(shown.person[..., None], atlas.sample(texture, shown.uv[..., 0], shown.uv[..., 1]), 0)


def paint(
    person: Body,
    texture: Float[Array, "256 256 3"],
    occluders: Solids,
    occluder_colours: Float[Array, "O 3"],
    place: Place,
    backdrop: Backdrop,
    camera: Camera,
    box: Box,
) -> Painting:
    """The person and the occluder, lit, with their shadows on the ground.

    Args:
      person: the body.
      texture: sRGB in [0, 1].
      occluders: solids of an object between the camera and the person.
      occluder_colours: their colours, linear light.
      place: gives the light.
      backdrop: the background; gives the picture's height and width.
      camera, box: those with which the backdrop was drawn.
    """
    height, width, _ = backdrop.colour.shape
    scene = solids.concatenate(person.solids, occluders)
    shown = fragments(person, occluders, camera, box, height=SAMPLES * height, width=SAMPLES * width)
    foreground = (shown.distance < FAR).astype(jnp.float32)
    colours = jnp.square(unlit(texture, shown))
    index = jnp.clip(shown.solid - len(person.solids.length), 0, len(occluder_colours) - 1)
    colours = jnp.where(shown.person[..., None], colours, occluder_colours[index]) * foreground[..., None]
    coverage, colours = binned(foreground[..., None]), binned(colours)  # of each pixel; colours are weighted by it
    lit = colours * _light_on(scene, person.balls, shown, place, camera, box)
    shade = _shade_on_ground(scene, person.balls, place, backdrop)
    return Painting(lit + (1 - coverage) * backdrop.colour * shade, seen_squares(shown))


def seen_squares(shown: Fragments) -> Bool[Array, "64 64"]:
    """The squares of SQUARE x SQUARE texels that rays meet, or that lie between neighbouring rays on one part."""
    side = atlas.SIZE // SQUARE

    def place_of(uv: Float[Array, "... 2"], is_seen: Bool[Array, "..."]) -> Int32[Array, "n"]:
        row, column = jnp.moveaxis(jnp.round(uv).astype(jnp.int32) // SQUARE, -1, 0)
        return jnp.where(is_seen, row * side + column, side * side).ravel()  # others go to a last place

    corners = jnp.stack([_corner(shown.uv, down, right) for down in (0, 1) for right in (0, 1)])
    parts = [_corner(jnp.where(shown.person, shown.part, -1), down, right) for down in (0, 1) for right in (0, 1)]
    together = (parts[0] >= 0) & (parts[0] == parts[1]) & (parts[0] == parts[2]) & (parts[0] == parts[3])
    together &= jnp.ptp(corners, axis=0).max(axis=-1) < NEIGHBOURS  # not across the edge at which a part is cut open
    finer = max(1, FINE // len(shown.part))
    share = jnp.arange(finer) / finer
    weights = jnp.stack([one[:, None] * other for one in (1 - share, share) for other in (1 - share, share)])
    between = jnp.einsum("cij,chwx->ijhwx", weights, corners)
    places = [place_of(shown.uv, shown.person), place_of(between, jnp.broadcast_to(together, between.shape[:-1]))]
    seen = jnp.zeros(side * side + 1, bool).at[jnp.concatenate(places)].set(True)
    return seen[:-1].reshape(side, side)


def _corner(rays: Array, down: int, right: int) -> Array:
    """One corner of each group of two by two neighbouring rays."""
    height, width = rays.shape[:2]
    return rays[down : height - 1 + down, right : width - 1 + right]


def binned(samples: Float[Array, "SH SW C"]) -> Float[Array, "H W C"]:
    """The mean over the samples of each pixel."""
    height, width, channels = samples.shape
    blocks = samples.reshape(height // SAMPLES, SAMPLES, width // SAMPLES, SAMPLES, channels)
    return blocks.mean(axis=(1, 3))


def _light_on(
    scene: Solids, balls: Balls, shown: Fragments, place: Place, camera: Camera, box: Box
) -> Float[Array, "H W 3"]:
    """Light on the nearest sample of each pixel; meaningless for pixels that show neither person nor occluder."""
    points, normals = surface(scene, shown, camera, box)
    facing = facing_sun(normals, place)
    sun = facing * _sunlight(scene, raised(points, normals), place)
    sky = sky_share(normals[1]) * openness(balls, points, normals)
    return sun[..., None] * place.sun_colour + sky[..., None] * place.sky_colour


def surface(scene: Solids, shown: Fragments, camera: Camera, box: Box) -> tuple[Vectors, Vectors]:
    """The point that the nearest sample of each pixel meets, [H W], and the normal there."""
    height, width = (n // SAMPLES for n in shown.distance.shape)
    blocks = (height, SAMPLES, width, SAMPLES)
    distances = shown.distance.reshape(blocks).transpose(0, 2, 1, 3).reshape(height, width, -1)
    indices = shown.solid.reshape(blocks).transpose(0, 2, 1, 3).reshape(height, width, -1)
    nearest = jnp.argmin(distances, axis=-1)[..., None]
    distance = jnp.take_along_axis(distances, nearest, axis=-1)[..., 0]
    solid = jnp.take_along_axis(indices, nearest, axis=-1)[..., 0]
    points = _along(camera, rays(camera, box, height=height, width=width), jnp.minimum(distance, 100.0))
    return points, solids.normals(scene, solid, points)


def facing_sun(normals: Vectors, place: Place) -> Float[Array, "..."]:
    """How much a surface of cloth is turned to the sun, 0 to 1."""
    # On cloth, light reaches a little around the edge between the lit and the dark side.
    return jnp.clip((solids.dot(normals, place.sun) + 0.15) / 1.15, 0, 1)


def raised(points: Vectors, normals: Vectors) -> Vectors:
    """Points just above a surface, from which rays to the sun start."""
    return tuple(point + 0.012 * normal for point, normal in zip(points, normals, strict=True))


def _shade_on_ground(scene: Solids, balls: Balls, place: Place, backdrop: Backdrop) -> Float[Array, "H W 3"]:
    """The share of its light that the ground keeps in the shadows of person and occluder; 1 off the ground."""
    x, y, z = jnp.moveaxis(backdrop.ground, -1, 0)
    sun = _sunlight(scene, (x, y + 0.005, z), place)
    return kept_on_ground(sun, openness(balls, (x, y, z), tuple(jnp.array([0.0, 1.0, 0.0]))), place, backdrop)


def kept_on_ground(
    sun: Float[Array, "H W"], sky: Float[Array, "H W"], place: Place, backdrop: Backdrop
) -> Float[Array, "H W 3"]:
    """The share of its light that the ground keeps where these shares of sun and sky are visible; 1 off the ground."""
    from_sun = jnp.maximum(place.sun[1], 0) * place.sun_colour
    sun, sky = sun[..., None] * from_sun, sky[..., None] * place.sky_colour
    return jnp.where(backdrop.on_ground[..., None] > 0, (sun + sky) / (from_sun + place.sky_colour), 1)


def _along(camera: Camera, directions: Vectors, distance: Float[Array, "H W"]) -> Vectors:
    """The points of rays at a distance from the camera."""
    return tuple(start + distance * step for start, step in zip(camera.position, directions, strict=True))


def _sunlight(scene: Solids, points: Vectors, place: Place) -> Float[Array, "H W"]:
    """The visible share of the sun: 4 x 4 pixels test one of its 16 points each, and the results are averaged."""
    hits = solids.trace(scene, points, towards_sun(place, *points[0].shape))
    return averaged((hits.distance >= FAR).astype(jnp.float32))


def towards_sun(place: Place, height: int, width: int) -> Vectors:
    """A direction for each pixel, to one of 16 points of the sun; each block of 4 x 4 pixels has all of them."""
    disc = _disc() * SUN_WIDTH * place.sun_softness
    across = jnp.cross(place.sun, jnp.array([0.31, 0.17, 0.94]))
    across = across / jnp.linalg.norm(across)
    towards = place.sun + disc[:, :1] * across + disc[:, 1:] * jnp.cross(place.sun, across)
    tiles = (-(-height // 4), -(-width // 4))
    return tuple(jnp.tile(each.reshape(4, 4), tiles)[:height, :width] for each in towards.T)


def averaged(free: Float[Array, "H W"]) -> Float[Array, "H W"]:
    """The mean over the 4 x 4 pixels around each."""
    free = jnp.pad(free, ((1, 2), (1, 2)), mode="edge")
    return jax.lax.reduce_window(free, 0.0, jax.lax.add, (4, 4), (1, 1), "VALID") / 16


def _disc() -> Float[Array, "16 2"]:
    """Points spread evenly over the unit disc, in an order that spreads inner and outer ones over a 4 x 4 tile."""
    order = jnp.array([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5])
    radius, angle = jnp.sqrt((order + 0.5) / 16), order * 2.399963
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=-1)


def openness(balls: Balls, points: Vectors, normals: Vectors) -> Float[Array, "H W"]:
    """The share of the sky that spheres leave visible; each hides its solid angle times the cosine to the normal."""

    def less(open_share, ball):
        towards = tuple(centre - point for centre, point in zip(ball.centre, points, strict=True))
        square = solids.dot(towards, towards)
        cosine = solids.dot(towards, normals) * jax.lax.rsqrt(square)
        hidden = jnp.clip(cosine, 0, 1) * jnp.square(ball.radius) / square
        return open_share * (1 - jnp.clip(hidden, 0, 0.9)), None

    return jax.lax.scan(less, jnp.ones(points[0].shape), balls)[0]
