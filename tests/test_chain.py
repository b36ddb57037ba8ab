"""The chain from pairs to scores on a small release, including a killed and resumed run."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
from cuhk03_release import write_release
from PIL import Image

from configs import chain as chain_config
from san_jax.errors import UserError
from san_jax.experiments import chain

ROOT = Path(__file__).parent.parent
TEXTURES = Path("cuhk03/texture_cuhk03_labeled")
SIZES = {
    "data.height": 32,
    "data.width": 16,
    "data.workers": 0,
    "encoder.depth": 10,
    "encoder.width": 0.125,
    "encoder.fc_dim": 16,
    "decoder.width": 0.1,
    "batch.identities": 2,
    "batch.instances": 2,
    "schedule.warmup_epochs": 0,
    "schedule.epochs": 1,
}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """CUHK03 with its own textures, and eight released pairs of four wardrobes."""
    folder = write_release(tmp_path_factory.mktemp("release"))
    rng = np.random.default_rng(0)
    for part, size in (("images", (32, 16)), ("textures", (32, 32))):
        (folder / "pit" / part).mkdir(parents=True)
        for pair in range(8):
            picture = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(picture).save(folder / "pit" / part / f"{pair // 2}_{pair % 2}.png")
    return folder


def command(workdir, release):
    fields = {f"{part}.{name}": value for part in ("san_pg", "san") for name, value in SIZES.items()}
    fields |= {
        "manual_dir": release,
        "generator": "",
        "san.init_from": "",
        "san.batch.pit_pictures": 2,
        "san.data.train": "cuhk03/labeled_texture",
        "san.data.pit": "pit/release",
        "san_pg.data.train": "pit/release",
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["-m", "san_jax.experiments.chain", "--config=configs/chain.py:small", f"--workdir={workdir}", *overrides]


@pytest.mark.slow
def test_killed_chain_resumes_to_the_scores_and_leaves_the_release_unchanged(tmp_path, release):
    before = {path: path.read_bytes() for path in sorted(release.rglob("*")) if path.is_file()}
    started = subprocess.Popen(
        [sys.executable, *command(tmp_path, release)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for line in started.stdout:
        if line.startswith("3 of 5"):
            started.send_signal(signal.SIGKILL)
    started.wait()
    drawn = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "release" / TEXTURES).glob("*.png"))}
    assert [path.name for path in drawn] == sorted(path.name for path in (release / TEXTURES).glob("*.png"))

    status, output, errors = commands.run(*command(tmp_path, release))
    assert status == 0, errors
    assert f"{len(drawn)} pictures, {len(drawn)} have their textures" in output
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    assert any(path.read_bytes() != before[release / TEXTURES / path.name] for path in drawn)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores)[2:] == ["chance", "colour histogram", "baseline", "san"]
    configs = [json.loads((tmp_path / run / "config.json").read_text()) for run in ("san", "baseline")]
    assert [config["mode"] for config in configs] == ["san", "baseline"]
    assert [config["batch"]["pit_pictures"] for config in configs] == [2, 0]
    assert {key for key in configs[0] if configs[0][key] != configs[1][key]} == {"mode", "batch"}
    for sheet in ("textures.png", "generator.png", "drawn.png"):
        assert np.asarray(Image.open(tmp_path / sheet)).ndim == 3
    drawn = json.loads((tmp_path / "drawn.json").read_text())
    assert list(drawn) == ["data", "generator", "SAN"]
    assert drawn["generator"] == json.loads((tmp_path / "generator.json").read_text())["generator"]
    assert {path: path.read_bytes() for path in before} == before


def test_release_is_linked_except_for_the_chains_own_folders(tmp_path):
    for name in ("a/textures/1.png", "a/mat", "b/deep/own/2.png", "b/deep/file", "pit/images/3.png"):
        (tmp_path / "release" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "release" / name).write_text(name)
    for _ in range(2):  # the second call finds the links in place
        chain.link_release(
            str(tmp_path / "release"), tmp_path / "own", own=[Path("a/textures"), Path("b/deep/own"), Path("c/new")]
        )
    found = {path.relative_to(tmp_path / "own").as_posix() for path in (tmp_path / "own").rglob("*") if path.is_file()}
    assert found == {"a/mat", "b/deep/file"}
    assert (tmp_path / "own" / "pit" / "images" / "3.png").read_text() == "pit/images/3.png"


def test_links_follow_a_moved_release_and_never_replace_a_file(tmp_path):
    for place in ("old", "new"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mat").write_text(place)
        chain.link_release(str(tmp_path / place), tmp_path / "own", own=[])
    assert (tmp_path / "own" / "mat").read_text() == "new"
    (tmp_path / "own" / "mat").unlink()
    (tmp_path / "own" / "mat").write_text("somebody's own")
    with pytest.raises(UserError, match="File exists"):
        chain.link_release(str(tmp_path / "old"), tmp_path / "own", own=[])
    assert (tmp_path / "own" / "mat").read_text() == "somebody's own"


def test_missing_release_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: No such file .*; manual_dir must be the folder of a release"):
        chain.link_release(str(tmp_path / "nowhere"), tmp_path / "own", own=[])


def test_generator_that_cannot_draw_is_refused_before_anything_is_written(tmp_path):
    config = chain_config.get_config("small")
    config.generator = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="nothing holds no checkpoint"):
        chain.run_chain(config, tmp_path / "chain")
    assert not (tmp_path / "chain").exists()


def test_data_set_with_its_own_textures_is_refused_before_anything_is_written(tmp_path):
    config = chain_config.get_config("small")
    config.san.data.train = "synthetic_reid/small"
    with pytest.raises(UserError, match=r"synthetic_reid/small needs no generated textures; .* with train.py"):
        chain.run_chain(config, tmp_path / "chain")
    assert not (tmp_path / "chain").exists()
