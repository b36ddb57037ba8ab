"""Keeps docs/architecture.md true: imports go down the floors, and inside a folder one way."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = {
    1: "batch errors files devices process.*",
    2: "networks.* training.losses training.optimizers data.augmentation data.identity_sampler data.joined_source "
    "data.streams data.picture_folder scoring.distances scoring.tiles scoring.nearest scoring.ranking scoring.chance "
    "scoring.colour_histogram scoring.camera_pairs scoring.verification scoring.reranking scoring.query_expansion "
    "weights.* drawing.* gallery.finds report.event_files "
    "synthesis.atlas synthesis.solids synthesis.camera synthesis.dice synthesis.wardrobe synthesis.tailor "
    "synthesis.body synthesis.people synthesis.things synthesis.lens synthesis.street synthesis.renderer "
    "synthesis.scene synthesis.sitting synthesis.splits synthesis.studio",
    3: "training.train_step training.checkpoints training.progress data.input_pipeline scoring.feature_extraction "
    "scoring.evaluation scoring.texture_scores scoring.references report.ranked_pictures training.starting_weights",
    4: "training.run training.run_config training.resuming training.train_loop report.report gallery.pseudo_textures "
    "gallery.feature_index",
    5: "commands.* experiments.*",
}


def floor_of(module):
    """The floor of san_jax.MODULE."""
    for floor, patterns in FLOORS.items():
        for pattern in patterns.split():
            if module == pattern or (pattern.endswith("*") and module.startswith(pattern[:-1])):
                return floor
    raise AssertionError(f"san_jax.{module} stands on no floor: add it to docs/architecture.md and here")


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


def test_imports_go_down_the_floors():
    for module, path in modules():
        for name in imported(path):
            if name.startswith("san_jax."):
                below = name.removeprefix("san_jax.")
                assert floor_of(below) <= floor_of(module), f"san_jax.{module} imports san_jax.{below}, which is above"


def test_modules_of_a_floor_do_not_import_each_other_in_a_circle():
    uses = {module: {name.removeprefix("san_jax.") for name in imported(path)} for module, path in modules()}

    def reaches(start, goal, seen):
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in uses.get(start, ()))

    assert not [module for module in uses if reaches(module, module, {module})]


def test_doors_alone_import_the_builders_and_nothing_imports_tensorflow_or_pytorch():
    for module, path in modules():
        for name in imported(path):
            top = name.split(".")[0]
            assert top not in ("tensorflow", "torch"), f"san_jax.{module} imports {name}"
            assert top != "tfds_builders" or floor_of(module) == 5, f"san_jax.{module} imports {name}"
            assert top != "configs", f"san_jax.{module} imports {name}"


def test_the_synthetic_world_stands_aside():
    for module, path in modules():
        aside = module.startswith("synthesis.") and floor_of(module) == 2
        for name in imported(path):
            if name.startswith("san_jax.synthesis."):
                assert aside or floor_of(module) == 5, f"san_jax.{module} imports {name}"
            elif name.startswith("san_jax.") and aside:
                assert floor_of(name.removeprefix("san_jax.")) == 1, f"san_jax.{module} imports {name}"


def test_config_stops_at_floor_four():
    for module, path in modules():
        if floor_of(module) < 4:
            assert "ml_collections" not in set(imported(path)), f"san_jax.{module} reads a config"


def test_builders_know_nothing_of_networks_training_and_scoring():
    for path in (ROOT / "tfds_builders").glob("*.py"):
        allowed = ("san_jax.batch", "san_jax.errors", "san_jax.process", "san_jax.synthesis")
        assert all(name.startswith(allowed) for name in imported(path) if name.startswith("san_jax")), path
