"""The weights that come with the package, on rendered people whom they have not seen."""

from pathlib import Path

import jax
import numpy as np
import pytest

import san_jax
from san_jax.errors import UserError
from san_jax.gallery import feature_index
from san_jax.scoring.colour_histogram import histograms
from san_jax.synthesis import studio
from san_jax.synthesis.studio import Moment
from san_jax.weights import pretrained

PEOPLE, CAMERAS, SIDE = 40, 6, 128


@pytest.fixture(scope="module")
def rendered():
    """Pictures of each person by two cameras, uint8 [40 2 128 64 3], and their textures, uint8 [40 128 128 3]."""
    world = studio.make_world(jax.random.key(99), cameras=CAMERAS, occlusion=0.1, sloppiness=0.3, variety=0.3)
    person = np.repeat(np.arange(PEOPLE, dtype=np.int32), 2)
    camera = (person + np.tile([0, 1], PEOPLE)) % CAMERAS
    moments = Moment(person, camera.astype(np.int32), np.zeros_like(person))
    size = dict(height=SIDE, width=SIDE // 2, texture_side=SIDE)
    taken = list(studio.render(studio.before_a_camera, world, world.people, person, moments, **size))
    pictures, textures = (np.stack(arrays) for arrays in zip(*taken, strict=True))
    return pictures.reshape(PEOPLE, 2, SIDE, SIDE // 2, 3), textures[::2]


def share_found(distances):
    """Share of the people whose picture by one camera is the nearest to that by the other."""
    return np.mean(np.argmin(distances, axis=1) == np.arange(PEOPLE))


@pytest.mark.slow
def test_features_find_people_far_better_than_colour_histograms(rendered):
    pictures, _ = rendered
    feats = san_jax.load("rendered-small").features(pictures.reshape(-1, *pictures.shape[2:]))
    query, gallery = feats[::2], feats[1::2]
    found = share_found(((query[:, None] - gallery) ** 2).sum(axis=2))
    of_colours = [np.asarray(jax.jit(histograms)(pictures[:, camera])) for camera in (0, 1)]
    one, other = of_colours[0][:, None], of_colours[1]
    by_colours = share_found(((one - other) ** 2 / (one + other + 1e-9)).sum(axis=2))
    assert found > by_colours + 0.3
    assert found > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.NAMES)
def test_drawn_textures_are_nearer_to_the_true_ones_than_any_constant_texture(rendered, name):
    pictures, textures = rendered
    drawn = san_jax.load(name).textures(pictures[:, 0])
    assert drawn.shape == textures.shape
    constant = np.median(textures, axis=0)

    def error(found):  # L1 of textures in [-1, 1]
        return np.abs(found.astype(np.float32) - textures).mean() / 127.5

    assert error(drawn) < 0.75 * error(constant)


def test_together_they_take_six_megabytes_at_most():
    sizes = {path.stem: path.stat().st_size for path in pretrained.FOLDER.iterdir()}
    assert sizes.keys() == set(pretrained.NAMES)
    assert sum(sizes.values()) < 6e6


def test_they_are_exported_without_a_run(tmp_path):
    model = san_jax.load("rendered-small-pg")
    assert (model.mode, model.source) == ("san_pg", "rendered-small-pg")
    model.save(tmp_path / "pg.safetensors")
    assert san_jax.load(tmp_path / "pg.safetensors").digest("encoder", "decoder") == model.digest("encoder", "decoder")


def test_existing_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pretrained.path_of("rendered-small") == pretrained.FOLDER / "rendered-small.safetensors"
    Path("rendered-small").mkdir()
    assert pretrained.path_of("rendered-small") == Path("rendered-small")
    with pytest.raises(UserError, match="rendered-small holds no checkpoint"):
        san_jax.load("rendered-small")


def test_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"rendered_small holds no checkpoint; .*; did you mean rendered-small, which"):
        san_jax.load("rendered_small")


def test_index_of_a_folder_is_not_kept_beside_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = feature_index.default_place(Path("rendered-small"), tmp_path / "shop")
    assert place.parent == Path("runs/rendered-small/search")
    assert place.name.startswith("shop_")
