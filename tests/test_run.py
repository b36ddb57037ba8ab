import ast
import dataclasses
import functools
import inspect
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from array_source import ArraySource
from flax.traverse_util import flatten_dict
from runs import PEOPLE, build, config_of

from configs import baseline, san, san_pg
from san_jax import devices
from san_jax.data import augmentation, input_pipeline
from san_jax.data.identity_sampler import Plan
from san_jax.errors import UserError
from san_jax.scoring.evaluation import RetrievalSet
from san_jax.training import run, train_step
from san_jax.training.schedule import Phases

PAIRS = ArraySource(np.repeat(np.arange(7), 2), name="test/pairs", seed=1)


def test_fixbase_precedes_the_warm_up_and_only_its_steps_freeze_layers():
    config = config_of(**{"schedule.fixbase_epoch": 2, "schedule.warmup_epochs": 1, "schedule.epochs": 1})
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    phases = Phases.of(config, plan)
    assert (phases.fixbase, phases.warmup, phases.warmup_starts) == (15, 10, (0,))
    built = build(config)
    assert built.step_of(0) is not built.step_of(built.total - 1)


def one_camera_set(same_camera="remove"):
    """Four queries by one camera, two of whose pids are not in the gallery."""
    query, gallery = ArraySource([0, 1, 2, 3], name="own/all"), ArraySource([0, 0, 1, 1], name="own/all")
    query.camids, gallery.camids = np.zeros(4, np.int32), np.zeros(4, np.int32)
    return RetrievalSet("own/all", query, gallery, same_camera)


def build_scored(test_set, **fields):
    options = dict(source=PEOPLE, test_sets=[test_set], mesh=devices.make_mesh())
    return run.build(config_of(baseline, **fields), Path("nowhere"), **options)


def test_set_of_one_camera_is_refused_before_the_first_step():
    with pytest.raises(UserError, match=r"own/all cannot be scored: it has only one camera.*same_camera to keep"):
        build_scored(one_camera_set())
    assert build_scored(one_camera_set(), **{"schedule.eval_every": 0}).total > 0


def test_table_of_a_run_counts_the_queries_without_a_match():
    built = build_scored(one_camera_set("keep"), **{"scoring.same_camera": "keep"})
    assert built.validation.units == "market1501 metric with the same camera kept, in percent"
    *_, line = built.validation.as_table({"own/all": {"mAP": 0.5}}).splitlines()
    assert line == "own/all: 2 of 4 queries have no match in the gallery and are left out"


def test_people_with_few_pictures_are_counted_in_one_line():
    source = ArraySource([0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3])
    _, note = build(config_of(**{"batch.identities": 3}), source).notes
    assert note == "2 identities have fewer than batch.instances (4) pictures: sampled with replacement"


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("identities", "batch.identities is 1: batches hold no negatives, so the triplet losses are 0"),
        ("instances", "batch.instances is 1: each anchor is its own positive, so no loss pulls an identity together"),
    ],
)
def test_batches_of_one_identity_or_one_picture_of_each_are_remarked_on(field, said):
    assert said in build(config_of(**{f"batch.{field}": 1})).notes
    assert said not in build(config_of()).notes


def test_workdir_in_which_nothing_can_be_saved_is_refused_before_the_first_step():
    with pytest.raises(UserError, match=r"the path w\udcff is no UTF-8, .*; rename the folder"):
        run.build(config_of(), Path("w\udcff"), source=PEOPLE, test_sets=[], mesh=devices.make_mesh())


def test_baseline_needs_no_textures():
    built = build(config_of(baseline), ArraySource(PEOPLE.pids, textures=False))
    assert built.state.decoder == {}
    assert built.total > 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"batch.identities": 13}, "batch.identities is 13, but test/people has only 12 identities"),
        ({"encoder.last_stride": 2, "data.height": 64, "data.width": 32}, "encoder.last_stride to 1"),
        ({"encoder.depth": 51}, "encoder.depth is 51"),
        ({"mode": "sam"}, "mode is 'sam'"),
        ({"compute_dtype": "half"}, "compute_dtype is 'half'"),
        ({"scoring.metric": "cuhk"}, "metric is 'cuhk'"),
        ({"reid.optimizer": "adamw"}, "reid.optimizer 'adamw' is unknown"),
        ({"schedule.fixbase_epoch": 1, "schedule.open_layers": ("head",)}, "schedule.open_layers names head"),
        ({"schedule.epochs": 0, "schedule.warmup_epochs": 0}, "schedule.epochs"),
        ({"batch.pit_pictures": -4}, "batch.pit_pictures is -4; it must be at least 0"),
        ({"mode": "baseline", "batch.pit_pictures": 4}, "batch.pit_pictures is 4, but mode baseline uses no pairs"),
    ],
)
def test_invalid_field_is_named(fields, named):
    with pytest.raises(UserError, match=named):
        build(config_of(**fields))


@pytest.mark.parametrize(
    ("pairs", "pictures", "named"),
    [
        (PAIRS, 15, "batch.pit_pictures is 15, but test/pairs has only 14 pairs"),
        (ArraySource([0, 1], textures=False), 2, "data.pit is test/people, which has no textures"),
    ],
)
def test_unsuitable_pairs_are_named(pairs, pictures, named):
    with pytest.raises(UserError, match=named):
        build(config_of(**{"batch.pit_pictures": pictures}), pairs=pairs)


def batches(built, start=0):
    for step, fed in enumerate(built.open_feed().batches(start), start):
        yield input_pipeline.batch_of(fed, jnp.int32(step))


def test_pairs_follow_the_reid_pictures_in_every_batch_and_a_resumed_run_continues_them():
    config = config_of(**{"batch.pit_pictures": 4})
    built, without = build(config, pairs=PAIRS), build(config_of())
    assert (built.total, built.batch_size) == (without.total, 20)
    assert built.score_at == without.score_at
    assert built.notes[-1] == "test/pairs: 14 pairs of picture and texture, 4 per batch"
    whole = list(itertools.islice(batches(built), 6))
    for batch, people in zip(whole, batches(without), strict=False):
        np.testing.assert_array_equal(batch.pid, people.pid)
        np.testing.assert_array_equal(batch.image[:16], people.image)
        np.testing.assert_array_equal(batch.texture[:16], people.texture)
    seen = {batch.texture[row, 0, 0].tobytes() for batch in whole for row in range(16, 20)}
    assert len(seen) == 7, "the pairs' textures, of seven wardrobes"
    for batch, resumed in zip(whole[4:], batches(built, 4), strict=False):
        for field in ("image", "texture", "pid"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(resumed, field))


def lowered(**fields):
    built = build(config_of(**{"schedule.warmup_epochs": 0, **fields}))
    fed = next(iter(built.open_feed().batches(0)))
    step = built.step_of(0).__wrapped__  # a jitted function inside another may have no options for the compiler
    return jax.jit(lambda state: step(state, fed)).lower(built.state)


@pytest.mark.parametrize(
    ("compute_dtype", "dtype", "precision"),
    [("float32", "f32", "HIGHEST"), ("tensorfloat32", "f32", "HIGH"), ("bfloat16", "bf16", "DEFAULT")],
)
def test_products_of_the_networks_have_the_precision_of_the_compute_dtype(compute_dtype, dtype, precision):
    """All of the step's products: of the networks, forward and backward; those of losses and heads are HIGHEST."""
    text = lowered(compute_dtype=compute_dtype).as_text()
    convolutions = re.findall(r"stablehlo.convolution.*", text)
    assert len(convolutions) > 50
    for line in convolutions:
        assert re.findall(r"precision (\w+)>", line) == [precision] * 2
        assert re.findall(r"x([a-z]\w+)>", line.rpartition(" : ")[2]) == [dtype] * 3
    products = re.findall(r"stablehlo.dot_general.*", text)
    precisions = {re.search(r"precision = \[(\w+), (\w+)\]", line).groups() for line in products}
    assert precisions == {(precision, precision), ("HIGHEST", "HIGHEST")}
    own = [line for line in products if f"[{precision}, {precision}]" in line]
    assert len(own) > 20
    assert all(f"x{dtype}>" in line for line in own if precision != "HIGHEST")


def test_deterministic_kernels_are_asked_for_on_gpus_alone(monkeypatch):
    options = []
    monkeypatch.setattr(jax, "jit", lambda function, **given: options.append(given.get("compiler_options")) or function)
    config = config_of(deterministic=True, onednn=False)
    made = dict(phases=Phases(0, 0, (0,), (), (), 1), rates={}, mesh=devices.make_mesh())
    made |= dict(reid_tx=optax.identity(), recon_tx=optax.identity())
    networks = train_step.Networks("san", run.architecture_of(config, num_pids=3))
    for platform, expected in (("cpu", {}), ("gpu", {"xla_gpu_deterministic_ops": True})):
        monkeypatch.setattr(devices, "platform_of", lambda mesh, platform=platform: platform)
        run.make_steps(config, networks, **made)
        assert options == [expected] * 2  # with and without frozen layers
        options.clear()


@pytest.mark.slow
def test_run_ends_with_the_same_bits_wherever_its_pictures_are():
    """The train step gathers resident pictures itself, so it is another program than for batches from the host."""
    built, ends = build(config_of(**{"schedule.warmup_epochs": 0, "schedule.epochs": 1})), {}
    for way in input_pipeline.WAYS:
        state = built.make_state()
        for step, fed in enumerate(functools.partial(built.open_feed, cache=way)().batches(0)):
            state, _ = built.step_of(step)(state, fed)
        assert int(state.step) == built.total > 2
        ends[way] = state
    for way in ("host", "device"):
        jax.tree.map(np.testing.assert_array_equal, ends[way], ends["stream"])


def test_missing_textures_are_an_error_before_training_starts():
    with pytest.raises(UserError, match=r"data\.train is test/people, which has no textures; mode san needs them"):
        build(config_of(), ArraySource(PEOPLE.pids, textures=False))


def test_best_texture_generator_has_the_lowest_l1():
    built = build(config_of(san_pg, **{"batch.identities": 3}), PAIRS)
    assert built.validation.best_by == ("L1", False)
    assert built.notes == ("test/pairs: 14 training pairs of picture and texture",)
    assert build(config_of()).validation.best_by == ("mAP", True)


def test_generator_has_no_classifier_to_speak_of_but_an_older_one_keeps_its_own():
    built = build(config_of(san_pg, **{"batch.identities": 3}), PAIRS)
    assert built.networks.architecture.num_pids == 1
    older = dataclasses.replace(built.networks.architecture, num_pids=14)
    assert run.num_pids_of("san_pg", PAIRS, found=older) == 14
    assert [run.num_pids_of(mode, PEOPLE, found=older) for mode in ("san", "baseline")] == [12, 12]


def test_initial_weights_are_bit_identical_without_fast_compilation(monkeypatch):
    """Of one layer for each way of drawing initial weights."""
    monkeypatch.delenv("XLA_FLAGS")  # those of the tests say how far to optimize
    built = build(config_of(baseline, seed=3))
    options = dict(reid_tx=optax.identity(), recon_tx=optax.identity(), seed=3)

    def first_weights():
        encoder = train_step.make_state(built.networks, **options).encoder
        return {name: encoder[name] for name in ("stem", "fc", "classifier")}

    optimised = {"xla_backend_optimization_level": 3}  # the default outside the tests
    expected = jax.jit(first_weights, compiler_options=optimised)()
    found = built.make_state().encoder
    for name, weights in expected.items():
        jax.tree.map(np.testing.assert_array_equal, found[name], weights)


def test_compilation_is_as_fast_as_xla_flags_ask_for(monkeypatch):
    mesh = devices.make_mesh()
    for flags, expected in (("", {"xla_backend_optimization_level": 1}), ("--xla_backend_optimization_level=2", {})):
        monkeypatch.setenv("XLA_FLAGS", flags)
        assert run.fast_compilation(mesh) == expected
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(devices, "platform_of", lambda mesh: "gpu")
    assert run.fast_compilation(mesh) == {}


def fields_read(code):
    """SECTION.FIELD, or FIELD of the whole config, for each one that Python code reads; SECTION.* for **SECTION."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            found.add(node.attr if owner == "config" else f"{owner}.{node.attr}")
        if isinstance(node, ast.keyword) and node.arg is None and isinstance(node.value, ast.Attribute):
            found.add(f"{node.value.attr}.*")
    return found


def test_fields_read_ignores_comments_assignments_and_other_objects():
    code = """
reid, total = config.reid, other.widths  # reid.gamma
config.encoder.width = reid.b1 + config.seed
say(f"{config.recon.gamma}", "recon.b1", **config.loss)
"""
    fields = {"reid.b1", "seed", "recon.gamma", "loss.*"}
    assert fields_read(code) == fields | {"reid", "recon", "encoder", "loss", "other.widths"}


def test_every_field_of_the_config_is_read():
    """An option that nothing reads would have no effect; validating it does not count as reading it."""
    files = {*Path("san_jax").rglob("*.py"), *Path().glob("*.py")} - {Path("san_jax/training/config_fields.py")}
    found = set().union(*(fields_read(path.read_text()) for path in files))
    # These sections are passed on as a whole: their receivers must use every field.
    found |= {f"loss.{name}" for name in attributes_of("objective", train_step)}
    found |= {f"augmentation.{name}" for name in names_in(augmentation._augment_one)}
    assert {"loss.*", "augmentation.*"} <= found
    unread = [name for name in flatten_dict(san.get_config().to_dict(), sep=".") if name not in found]
    assert unread == []


def attributes_of(name, module):
    """Attributes of the named variable that a module reads."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == name}


def names_in(function):
    """Variables that a function reads."""
    nodes = ast.walk(ast.parse(inspect.getsource(function)))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
