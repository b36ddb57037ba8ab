"""Keeps docs/architecture.md true: imports between rooms go one way, and inside a room in no circle."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOOSE = ("batch", "errors", "files", "devices")
GROUND = (*LOOSE, "process")
# Modules and folders of san_jax; each imports only what stands before it.
ROOMS = (
    *("ground", "networks", "weights", "data", "drawing", "synthesis", "model", "scoring", "training", "gallery"),
    *("report", "commands", "experiments", "__main__"),
)
# Where a run's config may be read; below, functions take named values.
READ_CONFIGS = (
    *("training.run", "training.schedule", "training.batch_plan", "training.validation"),
    *("training.config_fields", "training.resuming", "report.report"),
    *("commands", "experiments"),
)
DOORS = ("commands", "experiments", "__main__")


def room_of(module):
    """The room of san_jax.MODULE."""
    name = module.split(".")[0]
    room = "ground" if name in GROUND else name
    assert room in ROOMS, f"san_jax.{module} stands in no room: add it to docs/architecture.md and here"
    return room


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
    """Modules of san_jax that a file imports, without that name."""
    return {name.removeprefix("san_jax.") for name in imported(path) if name.startswith("san_jax.")}


def test_imports_between_rooms_go_one_way():
    for module, path in modules():
        for name in own(path):
            before = ROOMS.index(room_of(name)) <= ROOMS.index(room_of(module))
            assert before, f"san_jax.{module} imports san_jax.{name}, whose room comes later"


def test_no_module_imports_itself_by_way_of_others():
    uses = {module: own(path) for module, path in modules()}

    def reaches(start, goal, seen):
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in uses.get(start, ()))

    assert not [module for module in uses if reaches(module, module, {module})]


def test_doors_alone_import_the_builders_and_nothing_imports_configs_tensorflow_or_pytorch():
    for module, path in modules():
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in ("tensorflow", "torch", "configs"), f"san_jax.{module} imports {name}"
            assert top != "tfds_builders" or room_of(module) in DOORS, f"san_jax.{module} imports {name}"


def test_synthesis_knows_nothing_of_networks_and_only_doors_know_it():
    for module, path in modules():
        for name in own(path):
            if room_of(module) == "synthesis":
                assert room_of(name) in ("ground", "synthesis"), f"san_jax.{module} imports {name}"
            elif room_of(name) == "synthesis":
                assert room_of(module) in DOORS, f"san_jax.{module} imports {name}"


def test_configs_are_read_where_runs_are_built_and_nowhere_below():
    for module, path in modules():
        if not module.startswith(READ_CONFIGS):
            assert "ml_collections" not in "".join(imported(path)), f"san_jax.{module} reads configs"


def test_package_has_no_loose_modules_but_those_of_the_ground():
    loose = {path.stem for path in (ROOT / "san_jax").glob("*.py")}
    assert loose == {*LOOSE, "model", "__init__", "__main__"}


def test_builders_know_nothing_of_networks_training_and_scoring():
    for path in (ROOT / "tfds_builders").glob("*.py"):
        allowed = ("san_jax.batch", "san_jax.errors", "san_jax.process", "san_jax.synthesis")
        assert all(name.startswith(allowed) for name in imported(path) if name.startswith("san_jax")), path


def test_no_test_module_imports_another():
    """What tests share stands in modules beside them, so that each can be read, moved and run by itself."""
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        assert not [name for name in imported(path) if name.startswith("test_")], path.name
