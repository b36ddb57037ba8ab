import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from runs import save_run, write_pictures
from small_networks import SHAPE, state_of

import san_jax
from san_jax import devices
from san_jax.data import decoded
from san_jax.errors import UserError
from san_jax.model import Model, feats_of, part_size
from san_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent
NAMES = ["a.png", "b.jpg", "c.bmp", "d.png", "e.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), mode="san")


@functools.cache
def loaded(run):
    return san_jax.load(run)


@pytest.fixture
def model(run):
    return loaded(run)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = write_pictures(tmp_path_factory.mktemp("pictures"), NAMES)
    return [folder / name for name in NAMES]


def test_importing_the_package_does_not_import_jax():
    code = "import sys, san_jax; print(sorted({'jax', 'flax', 'numpy', 'orbax'} & set(sys.modules)), san_jax.__all__)"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[] ['evaluate', 'export', 'load', 'search', 'train']"


def test_paths_pillow_images_and_arrays_give_the_same_features(model, paths):
    pictures = [Image.open(path) for path in paths]
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    found = [model.features(kind) for kind in (paths, list(map(str, paths)), pictures, arrays)]
    assert found[0].shape == (5, model.num_feats)
    assert found[0].dtype == np.float32
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_arrays_of_another_size_are_resized_as_files_are(model, paths):
    size = dict(height=model.architecture.height, width=model.architecture.width)
    resized = np.stack([decoded.decode(path.read_bytes(), **size) for path in paths])
    np.testing.assert_allclose(model.features(resized), model.features(paths), rtol=1e-5, atol=1e-6)


def test_features_do_not_depend_on_the_batch(model, paths):
    expected = model.features(paths)
    for batch_size in (1, 2, 5):
        np.testing.assert_allclose(model.features(paths, batch_size=batch_size), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("batch_size", "size"), [(100, 5), (64, 8), (10, 5), (7, 7), (13, 13), (26, 26), (1, 1)])
def test_parts_of_a_batch_are_equal_and_small_or_the_whole_batch(batch_size, size):
    assert part_size(batch_size) == size


@pytest.mark.parametrize("flip", [False, True])
def test_features_in_parts_are_those_of_the_whole_batch(model, flip):
    pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 16, 3)).astype(np.uint8)
    options = dict(architecture=model.architecture, compute_dtype="float32", flip=flip)
    compute = functools.partial(feats_of, model.weights, jnp.asarray(pictures), **options)
    whole, parts = (compute(in_parts=in_parts) for in_parts in (False, True))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_empty_input_gives_empty_features_and_textures(model):
    assert model.features([]).shape == (0, model.num_feats)
    assert model.textures([]).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("kind", ["path", "array"])
def test_unreadable_picture_is_named_before_any_result(kind, model, paths, tmp_path):
    (tmp_path / "torn.png").write_bytes(paths[0].read_bytes()[:50])
    wrong = {"path": tmp_path / "torn.png", "array": np.zeros((4, 4), np.float32)}[kind]
    named = {"path": "torn.png", "array": "picture 1: it is an array float32"}[kind]
    with pytest.raises(UserError, match=f"cannot read .*{named}"):
        model.features([paths[0], wrong])


def test_textures_are_squares_as_high_as_the_network_input(model, paths):
    drawn = model.textures(paths)
    assert (drawn.shape, drawn.dtype) == ((5, 32, 32, 3), np.uint8)
    assert np.ptp(drawn) > 20, "there is something to see"
    np.testing.assert_allclose(model.textures(paths, batch_size=2).astype(int), drawn, atol=1)


def test_baseline_has_no_textures_and_texture_generator_has_no_features(tmp_path, paths):
    baseline, generator = (san_jax.load(save_run(tmp_path / mode, mode=mode)) for mode in ("baseline", "san_pg"))
    assert (baseline.mode, generator.mode) == ("baseline", "san_pg")
    with pytest.raises(UserError, match="has no decoder"):
        baseline.textures(paths)
    with pytest.raises(UserError, match="were not trained for re-ID"):
        generator.features(paths)
    assert generator.textures(paths[:1]).shape == (1, 32, 32, 3)


def test_saved_network_loads_again_from_its_file_alone(model, paths, tmp_path):
    model.save(tmp_path / "san.safetensors")
    with safetensors.safe_open(tmp_path / "san.safetensors", "numpy") as saved:
        about = json.loads(saved.metadata()["san_jax"])
    assert about == {"architecture": dataclasses.asdict(SHAPE), "mode": "san"}
    again = san_jax.load(tmp_path / "san.safetensors")
    assert (again.architecture, again.mode) == (model.architecture, model.mode)
    np.testing.assert_array_equal(again.features(paths), model.features(paths))
    np.testing.assert_array_equal(again.textures(paths), model.textures(paths))


def test_height_and_width_of_a_run_can_be_overridden(run, paths):
    wide = san_jax.load(run, height=64, width=32)
    assert (wide.architecture.height, wide.architecture.width) == (64, 32)
    assert np.abs(wide.features(paths) - loaded(run).features(paths)).max() > 1e-4


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"height": 0}, "height is 0; give 8 pixels or more"),
        ({"width": -64}, "width is -64; give 8 pixels or more"),
        ({"height": 24}, "multiples of 16"),
        ({"last_stride": 3}, r"encoder\.last_stride is 3"),
        ({"last_stride": 2}, r"set encoder\.last_stride to 1"),
    ],
)
def test_impossible_networks_are_refused_by_the_name_of_the_field(given, named, run, tmp_path):
    loaded(run).save(tmp_path / "san.safetensors")
    for source in (run, tmp_path / "san.safetensors"):
        with pytest.raises(UserError, match=named):
            san_jax.load(source, **given)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode": "sann"}, "mode = 'sann'"),
        ({"mode": "baseline"}, "holds a decoder, but describes its mode as baseline"),
        ({"height": -5}, "height is -5"),
        ({"width": 0}, "width is 0"),
        ({"height": 32.0}, "height = 32.0"),
        ({"neck": "zzz"}, "neck"),
    ],
)
def test_wrong_description_of_the_networks_in_a_file_is_refused(change, named, run, tmp_path):
    loaded(run).save(tmp_path / "san.safetensors")
    with safetensors.safe_open(tmp_path / "san.safetensors", "numpy") as saved:
        tensors, metadata = {name: saved.get_tensor(name) for name in saved.keys()}, saved.metadata()  # noqa: SIM118
    about = json.loads(metadata["san_jax"])
    (about if "mode" in change else about["architecture"]).update(change)
    safetensors.numpy.save_file(tensors, tmp_path / "san.safetensors", metadata | {"san_jax": json.dumps(about)})
    with pytest.raises(UserError, match=named):
        san_jax.load(tmp_path / "san.safetensors")


def test_single_picture_in_place_of_a_list_and_batch_size_below_1_are_refused(model, paths):
    with pytest.raises(UserError, match=r"pictures is one picture, .*; give a list"):
        model.features(str(paths[0]))
    for size in (0, -1):
        with pytest.raises(UserError, match=f"batch_size is {size}; give an integer of at least 1"):
            model.textures(paths, batch_size=size)


@pytest.mark.parametrize(("query", "gallery"), [((8,), (5, 8)), ((3, 8), (8,)), ((1, 3, 8), (1, 5, 8))])
def test_search_names_features_that_are_not_a_matrix(query, gallery):
    with pytest.raises(UserError, match=r"(query|gallery) features have the shape \[.*\]; give \[pictures, numbers"):
        san_jax.search(np.zeros(query, np.float32), np.zeros(gallery, np.float32), k=1)


@pytest.mark.parametrize(
    ("source", "reason"),
    [(name, "holds no checkpoint") for name in ("nothing", ".", 300 * "x")] + [("w\udcff", "is no UTF-8")],
)
def test_source_without_a_checkpoint_is_an_error(source, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        san_jax.load(tmp_path / source)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_checkpoint_with_non_finite_numbers_is_refused_naming_the_array(number, tmp_path):
    state = state_of("baseline")
    state.encoder["fc"]["linear"]["kernel"] = state.encoder["fc"]["linear"]["kernel"].at[1, 2].set(number)
    state = jax.device_put(state, devices.replicated(devices.make_mesh()))
    with Checkpoints(tmp_path, SHAPE, mode="baseline") as saved:
        saved.save(3, state)
    with pytest.raises(UserError, match=r"checkpoints/3 holds NaN or infinite numbers in encoder\.fc\.linear\.kernel;"):
        san_jax.load(tmp_path)


def test_search_returns_the_nearest_first(model, paths):
    feats = model.features(paths)
    hits = san_jax.search(feats[2:3], feats, k=3)
    assert int(hits.rows[0, 0]) == 2
    distances = np.square(feats - feats[2]).sum(axis=1)
    np.testing.assert_array_equal(hits.rows[0], np.argsort(distances, kind="stable")[:3])
    np.testing.assert_allclose(hits.distances[0], np.sort(distances)[:3], rtol=1e-3, atol=1e-4)


def test_model_is_built_from_weights_in_memory(model, paths):
    """Weights already in memory, as in a notebook, need no file."""
    mine = Model(SHAPE, "san", model.weights, devices.make_mesh())
    np.testing.assert_array_equal(mine.features(paths), model.features(paths))


def test_python_example_of_the_readme_runs_unchanged(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert 8 <= len(code.splitlines()) <= 20
    write_pictures(tmp_path, ["query.jpg", "shop/a.jpg", "shop/b.jpg", "shop/c.jpg", "shop/d.jpg"])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "texture.png").is_file()
    assert san_jax.load("san.safetensors").mode == "san"
