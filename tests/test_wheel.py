"""The wheel, installed in an environment without access to the repository."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from commands import ROOT

PACKAGES = ("san_jax", "configs", "tfds_builders")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no leftovers of an older build get in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "tests"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={out}", source)
    [path] = out.iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Folder of a fresh environment with the wheel; it sees this environment's packages, but no editable install."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    pip(f"--python={folder / 'bin' / 'python'}", "install", "--no-deps", "--no-index", wheel)
    packages = sysconfig.get_path("purelib", vars={"base": folder})
    # After the wheel, or pip would take the package for installed. Python does not read the .pth files of a folder that
    # is itself named in a .pth file, so this environment's editable install stays out.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments):
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def test_wheel_contains_exactly_the_three_packages(wheel):
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    paths = [path for path in paths if path.parent.name != "__pycache__"]
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(found) == sorted(path.relative_to(ROOT).as_posix() for path in paths)
    assert {f"{name}/py.typed" for name in PACKAGES} <= set(found)


def test_console_script_prints_the_version(environment, tmp_path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(environment / "bin" / "san-jax", "--version", cwd=tmp_path) == f"san_jax {version}\n"


def test_every_module_is_imported_from_the_wheel(environment, tmp_path):
    code = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    path = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(path, package + "."):
        importlib.import_module(module.name)
for name, module in sys.modules.items():
    if name.split(".")[0] in sys.argv[1:]:
        print(module.__file__)
"""
    files = run(environment / "bin" / "python", "-c", code, *PACKAGES, cwd=tmp_path).split()
    assert len(files) > 60
    assert all(Path(file).is_relative_to(environment) for file in files)


def test_configs_of_the_wheel_are_read_by_name(environment, tmp_path):
    code = "from configs import san; print(san.get_config('small').data.train)"
    assert run(environment / "bin" / "python", "-c", code, cwd=tmp_path) == "synthetic_reid/small\n"
