"""Runs exported programs, some of them in a process that has JAX and NumPy alone."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from exported_networks import ARCHITECTURES, DRAWING, TINY, model_of

from san_jax.runtimes import checks, stablehlo
from san_jax.runtimes.interface import INPUTS, Interface

ALONE = """
import sys
import numpy as np
from jax import export
program = export.deserialize(bytearray(open("network.stablehlo", "rb").read()))
images = np.load("images.npy")
assert program.platforms == ("cpu", "cuda", "tpu"), program.platforms
for size in (1, 2, 5):
    np.savez(f"found{size}.npz", **program.call(images[:size]))
assert not {"san_jax", "flax", "optax", "orbax"} & {name.split(".")[0] for name in sys.modules}
"""


def content_of(model, interface):
    return stablehlo.content(interface, jax.tree.map(np.asarray, model.weights))


@pytest.mark.parametrize("input", [INPUTS[1], pytest.param(INPUTS[0], marks=pytest.mark.slow)])
def test_file_runs_without_this_package_at_every_batch_size(tmp_path, input):
    model = model_of(TINY, "san")
    interface = Interface(TINY, input, feats=True, textures=True)
    shown = checks.pictures(height=32, width=16, count=5)
    (tmp_path / "network.stablehlo").write_bytes(content_of(model, interface))
    np.save(tmp_path / "images.npy", interface.fed(shown))
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    feats, textures = model.features(shown), model.textures(shown)
    for size in (1, 2, 5):
        with np.load(tmp_path / f"found{size}.npz") as found:
            np.testing.assert_allclose(found["feats"], feats[:size], rtol=1e-4, atol=1e-5 * feats.max())
            drawn = found["textures"]
        if input == "float_nchw":
            drawn = np.round(127.5 * (np.clip(np.moveaxis(drawn, 1, -1), -1, 1) + 1))
        assert np.abs(drawn.astype(int) - textures[:size]).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastreid", "strong_baseline", "odd", "coarse_alone"])
def test_every_kind_of_network_is_exported(tmp_path, name):
    draws = name in DRAWING
    model = model_of((DRAWING if draws else ARCHITECTURES)[name], "san" if draws else "baseline")
    interface = Interface(model.architecture, "uint8_nhwc", feats=True, textures=draws)
    shown = checks.pictures(height=model.architecture.height, width=model.architecture.width, count=3)
    (tmp_path / "network.stablehlo").write_bytes(content_of(model, interface))
    found = stablehlo.runner(tmp_path / "network.stablehlo")(shown)
    feats = model.features(shown)
    np.testing.assert_allclose(found["feats"], feats, rtol=1e-4, atol=1e-5 * np.abs(feats).max())
    assert found.keys() == ({"feats", "textures"} if draws else {"feats"})
