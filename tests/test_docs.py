"""Checks that the modules, import order, files and flags named in the pages are those of the code."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict

from configs import ablation, base, chain
from san_jax.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = {"train.py": "train", "eval.py": "evaluate", "search.py": "search", "generate_textures.py": "textures"}


def section(title):
    """The first code block under a heading of docs/architecture.md."""
    return ARCHITECTURE.read_text().partition(f"\n## {title}\n")[2].partition("```\n")[2].partition("```")[0]


def listed_modules():
    """Paths of the modules in the list, from its indentation."""
    folders, paths = {}, []
    for line in section("Modules").splitlines():
        name = line.split()[0] if line.strip() else ""
        indent = len(line) - len(line.lstrip())
        folders = {depth: folder for depth, folder in folders.items() if depth < indent}
        if name.endswith("/"):
            folders[indent] = name
        elif name:
            assert len(line.split()) > 1, f"{name} has no description"
            paths.append("".join(folders.values()) + name)
    return paths


def modules():
    """Paths of all non-empty modules, and of the scripts beside the packages."""
    packages = [path for name in ("san_jax", "configs", "tfds_builders") for path in (ROOT / name).rglob("*.py")]
    return [path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.py"), *packages] if path.stat().st_size]


def test_architecture_lists_every_module_once_and_no_other():
    assert sorted(listed_modules()) == sorted(modules())


def test_imports_follow_the_order_that_architecture_gives():
    groups = section("Imports").split("<")
    order = {name: place for place, group in enumerate(groups) for name in re.findall(r"\w+", group)}
    for path in sorted((ROOT / "san_jax").rglob("*.py")):
        parts = path.relative_to(ROOT / "san_jax").with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in (name for name in names if name.startswith("san_jax.")):
                assert order[name.split(".")[1]] <= order[parts[0]], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    files = [path.relative_to(ROOT).as_posix() for top in ROOT.glob("[!.]*") for path in [top, *top.rglob("*.py")]]
    for named in re.findall(r"[\w/]+\.py\b", page.read_text()):
        exists = any(f"/{file}".endswith(f"/{named.lstrip('/')}") for file in files)
        assert exists or "NAME" in named or "MODULE" in named, f"{page.name} names {named}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def source_of(command):
    """The text of the module that defines a command's flags; None if it is no command."""
    if command in SCRIPTS:
        path = ROOT / "san_jax" / "commands" / f"{SCRIPTS[command]}.py"
    elif command.startswith("san-jax "):
        path = ROOT / "san_jax" / "commands" / f"{COMMANDS[command.split()[1]][0]}.py"
    else:
        path = ROOT / command.removeprefix("-m ").replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text() if path.is_file() else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_that_a_page_shows_are_those_of_the_command(page):
    configs = [module.get_config().to_dict() for module in (base, chain, ablation)]
    fields = {name for config in configs for name in flatten_dict(config, sep=".")}
    text = page.read_text().replace("\\\n", " ")
    for command, flags in re.findall(r"(san-jax [\w-]+|\b\w+\.py|-m [\w.]+) ([^\n`]*--[^\n`]*)", text):
        source = source_of(command) or ""
        for flag in re.findall(r"--([\w.]+)", flags.partition("  # ")[0] if source else ""):
            defined = f'"{flag}"' in source or f'"--{flag}"' in source or flag in ("config", "help")
            assert defined or flag.removeprefix("config.") in fields, f"{page.name}: {command} has no flag --{flag}"


def test_style_is_checked_alike_beside_a_folder_of_runs(tmp_path):
    """The first command of the README makes runs/, which the imports of tests/runs.py could be mistaken for."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("tests", "configs", "san_jax", "tfds_builders", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    check = [sys.executable, "-m", "ruff", "check", "--no-cache", "tests"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
