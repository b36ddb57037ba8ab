"""Runs the examples of docs/deploy.md as they stand there, on files that the package exports."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import san_jax
from san_jax.runtimes import checks

PAGE = Path(__file__).parent.parent / "docs" / "deploy.md"


def example(title):
    """The Python under a heading."""
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("```python\n")[2].partition("```")[0]


def ran(code, folder):
    """What an example prints, in a process of its own that must not import this package."""
    code += "\nimport sys\nassert 'san_jax' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model():
    return san_jax.load("rendered-small")


def test_example_for_onnxruntime_computes_the_models_similarity(tmp_path, model):
    for name, picture in zip(("query", "gallery"), checks.pictures(height=150, width=70, count=2), strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.jpg")
    san_jax.export(model, tmp_path / "small.onnx")
    said = ran(example("onnxruntime"), tmp_path)
    feats = model.features([tmp_path / "query.jpg", tmp_path / "gallery.jpg"])
    cosine = feats[0] @ feats[1] / np.prod(np.linalg.norm(feats, axis=1))
    assert float(re.fullmatch(r"cosine similarity (\S+)\n", said)[1]) == pytest.approx(cosine, abs=1e-4)
    assert cosine < 0.999


@pytest.mark.slow
def test_example_for_jax_runs_without_this_package(tmp_path, model):
    san_jax.export(model, tmp_path / "small.stablehlo")
    assert ran(example("JAX without this package"), tmp_path) == "(5, 128)\n"
