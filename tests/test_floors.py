"""Checks the import order of docs/architecture.md: between layers one way only, within a layer no cycles."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP_LEVEL = ("batch", "errors", "files", "remote", "devices")
GROUND = (*TOP_LEVEL, "process")
# Modules and folders of san_jax; each imports only from itself and from those before it.
LAYERS = (
    *("ground", "networks", "weights", "data", "drawing", "synthesis", "model", "runtimes", "scoring", "training"),
    *("gallery", "report", "serving", "commands", "experiments", "__main__"),
)
# Where a run's config may be read; below, functions take named values.
READ_CONFIGS = (
    *("training.run", "training.schedule", "training.batch_plan", "training.validation"),
    *("training.config_fields", "training.resuming", "report.report"),
    *("commands", "experiments"),
)
ENTRY_POINTS = ("commands", "experiments", "__main__")


def layer_of(module):
    """The layer of san_jax.MODULE."""
    name = module.split(".")[0]
    layer = "ground" if name in GROUND else name
    assert layer in LAYERS, f"san_jax.{module} stands in no room: add it to docs/architecture.md and here"
    return layer


def modules():
    for path in sorted((ROOT / "san_jax").rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT / "san_jax").with_suffix("").parts), path


def imported(path):
    """Modules of this repository that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if (ROOT / (whole.replace(".", "/") + ".py")).exists() else node.module


def own(path):
    """Modules of san_jax that a file imports, without the prefix `san_jax.`."""
    return {name.removeprefix("san_jax.") for name in imported(path) if name.startswith("san_jax.")}


def test_imports_between_layers_go_one_way():
    for module, path in modules():
        for name in own(path):
            before = LAYERS.index(layer_of(name)) <= LAYERS.index(layer_of(module))
            assert before, f"san_jax.{module} imports san_jax.{name}, whose room comes later"


def test_there_are_no_import_cycles():
    uses = {module: own(path) for module, path in modules()}

    def reaches(start, goal, seen):
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in uses.get(start, ()))

    assert not [module for module in uses if reaches(module, module, {module})]


def test_only_entry_points_import_the_builders_and_nothing_imports_configs_tensorflow_or_pytorch():
    for module, path in modules():
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in ("tensorflow", "torch", "configs"), f"san_jax.{module} imports {name}"
            assert top != "tfds_builders" or layer_of(module) in ENTRY_POINTS, f"san_jax.{module} imports {name}"


def test_synthesis_imports_no_networks_and_only_entry_points_import_it():
    for module, path in modules():
        for name in own(path):
            if layer_of(module) == "synthesis":
                assert layer_of(name) in ("ground", "synthesis"), f"san_jax.{module} imports {name}"
            elif layer_of(name) == "synthesis":
                assert layer_of(module) in ENTRY_POINTS, f"san_jax.{module} imports {name}"


def test_configs_are_read_only_where_runs_are_built():
    for module, path in modules():
        if not module.startswith(READ_CONFIGS):
            assert "ml_collections" not in "".join(imported(path)), f"san_jax.{module} reads configs"


def test_package_has_no_other_top_level_modules():
    top_level = {path.stem for path in (ROOT / "san_jax").glob("*.py")}
    assert top_level == {*TOP_LEVEL, "model", "__init__", "__main__"}


def test_builders_import_neither_networks_nor_training_nor_scoring():
    for path in (ROOT / "tfds_builders").glob("*.py"):
        allowed = ("batch", "errors", "files", "remote", "process", "synthesis")
        allowed += ("data.picture_folder", "data.threads", "data.crops", "data.frames")
        allowed = tuple(f"san_jax.{name}" for name in allowed)
        assert all(name.startswith(allowed) for name in imported(path) if name.startswith("san_jax")), path


def test_no_test_module_imports_another():
    """What tests share stands in modules beside them, so that each can be read, moved and run by itself."""
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        assert not [name for name in imported(path) if name.startswith("test_")], path.name
