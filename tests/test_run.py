import functools
import itertools
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from array_source import ArraySource

from configs import baseline, san, san_pg
from san_jax import devices
from san_jax.data.identity_sampler import Plan
from san_jax.errors import UserError
from san_jax.training import run, train_step

PEOPLE = ArraySource(np.repeat(np.arange(12), 5))
PAIRS = ArraySource(np.repeat(np.arange(7), 2), name="test/pairs", seed=1)


def config_of(module=san, **fields):
    config = module.get_config("small")
    config.update_from_flattened_dict(
        {
            "data.height": 32,
            "data.width": 16,
            "data.workers": 0,
            "encoder.depth": 10,
            "encoder.width": 0.125,
            "encoder.fc_dim": 8,
            "decoder.width": 0.05,
            "batch.identities": 4,
            "batch.instances": 4,
            **fields,
        }
    )
    return config


def build(config, source=PEOPLE, pairs=None):
    return run.build(config, Path("nowhere"), source=source, pairs=pairs, test_sets=[], mesh=devices.make_mesh())


def test_schedule_of_the_paper_on_cuhk03():
    """20 warm-up and 300 main epochs; at step 0 of the main phase the rate is 8e-4, after epoch 40 half of it."""
    config = san.get_config()
    plan = Plan(np.zeros((320 * 93, 64), np.int32), 93 * np.arange(321))
    phases = run.Phases.of(config, plan)
    rate, *_ = run.make_optimizers(config, phases)
    assert plan.num_steps == 29_760
    assert phases.warmup == 20 * 93
    expected = {0: 8e-6, 93: 8e-6 * 1.259, 1859: 8e-6 * 1.259**19, 1860: 8e-4, 1860 + 40 * 93 - 1: 8e-4}
    expected |= {1860 + 40 * 93: 4e-4, 1860 + 280 * 93: 8e-4 / 2**7, 29_759: 8e-4 / 2**7}
    np.testing.assert_allclose([rate(step) for step in expected], list(expected.values()), rtol=1e-5)


def test_milestones_lie_where_epochs_of_varying_length_begin():
    config = config_of(**{"schedule.warmup_epochs": 1, "schedule.epochs": 3, "reid.milestones": (1, 2, 9)})
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    phases = run.Phases.of(config, plan)
    assert (phases.warmup, phases.milestones) == (7, (8, 18))


def test_fixbase_comes_before_the_warm_up_and_freezes_its_steps_alone():
    config = config_of(**{"schedule.fixbase_epoch": 2, "schedule.warmup_epochs": 1, "schedule.epochs": 1})
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    phases = run.Phases.of(config, plan)
    assert (phases.fixbase, phases.warmup, phases.warmup_starts) == (15, 10, (0,))
    built = build(config)
    assert built.step_of(0) is not built.step_of(built.total - 1)


def test_run_is_scored_every_so_many_epochs_and_at_the_end():
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    assert run.score_at(plan, 2) == {15, 31}
    assert run.score_at(plan, 3) == {25, 31}
    assert run.score_at(plan, 50) == {31}


def test_people_with_few_pictures_are_counted_in_one_line():
    source = ArraySource([0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3])
    _, note = build(config_of(**{"batch.identities": 3}), source).notes
    assert note == "2 people have fewer than batch.instances 4 pictures: drawn with replacement"


def test_baseline_needs_no_textures():
    built = build(config_of(baseline), ArraySource(PEOPLE.pids, textures=False))
    assert built.state.decoder == {}
    assert built.total > 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"batch.identities": 13}, "batch.identities is 13, but test/people has only 12 people"),
        ({"encoder.last_stride": 2, "data.height": 64, "data.width": 32}, "encoder.last_stride to 1"),
        ({"encoder.depth": 51}, "encoder.depth is 51"),
        ({"mode": "sam"}, "mode is 'sam'"),
        ({"compute_dtype": "half"}, "compute_dtype is 'half'"),
        ({"scoring.metric": "cuhk"}, "metric is 'cuhk'"),
        ({"reid.optimizer": "adamw"}, "reid.optimizer 'adamw' is unknown"),
        ({"schedule.fixbase_epoch": 1, "schedule.open_layers": ("head",)}, "schedule.open_layers names head"),
        ({"schedule.epochs": 0, "schedule.warmup_epochs": 0}, "schedule.epochs"),
        ({"batch.pit_pictures": -4}, "batch.pit_pictures is -4; give 0 or more"),
        ({"mode": "baseline", "batch.pit_pictures": 4}, "batch.pit_pictures is 4, but mode baseline mixes in no pairs"),
    ],
)
def test_field_that_does_not_fit_is_named(fields, named):
    with pytest.raises(UserError, match=named):
        build(config_of(**fields))


def test_batch_that_does_not_divide_names_the_field():
    config = config_of()
    networks = run.Networks("san", run.architecture_of(config, num_pids=12))
    with pytest.raises(UserError, match=r"cannot be divided by 3 devices; change batch\.identities"):
        run.make_plan(config, PEOPLE, networks=networks, num_devices=3)


def test_batch_that_does_not_divide_for_its_pairs_names_them():
    """The total must divide, not the people alone: on 3 devices 16 people and 2 pairs do, and 3 pairs do not."""
    networks = run.Networks("san", run.architecture_of(config_of(), num_pids=12))
    make_plan = functools.partial(run.make_plan, source=PEOPLE, networks=networks, num_devices=3)
    assert make_plan(config_of(**{"batch.pit_pictures": 2})).rows.shape[1] == 16
    with pytest.raises(UserError, match=r"batch\.pit_pictures 3 pairs .* by 3 devices; change batch\.pit_pictures"):
        make_plan(config_of(**{"batch.pit_pictures": 3}))


@pytest.mark.parametrize(
    ("pairs", "pictures", "named"),
    [
        (PAIRS, 15, "batch.pit_pictures is 15, but test/pairs has only 14 pairs"),
        (ArraySource([0, 1], textures=False), 2, "data.pit is test/people, which has no textures"),
    ],
)
def test_pairs_that_do_not_fit_are_named(pairs, pictures, named):
    with pytest.raises(UserError, match=named):
        build(config_of(**{"batch.pit_pictures": pictures}), pairs=pairs)


def test_pairs_stand_behind_the_people_in_every_batch_and_a_resumed_run_reads_on():
    config = config_of(**{"batch.pit_pictures": 4})
    built, without = build(config, pairs=PAIRS), build(config_of())
    assert (built.total, built.batch_size) == (without.total, 20)
    assert built.score_at == without.score_at
    assert built.notes[-1] == "test/pairs: 14 pairs of picture and texture, 4 in a batch"
    whole = list(itertools.islice(built.batches(0), 6))
    for batch, people in zip(whole, without.batches(0), strict=False):
        np.testing.assert_array_equal(batch.pid, people.pid)
        np.testing.assert_array_equal(batch.image[:16], people.image)
        np.testing.assert_array_equal(batch.texture[:16], people.texture)
    seen = {batch.texture[row, 0, 0].tobytes() for batch in whole for row in range(16, 20)}
    assert len(seen) == 7, "the pairs' textures, of seven wardrobes"
    for batch, resumed in zip(whole[4:], built.batches(4), strict=False):
        for field in ("image", "texture", "pid"):
            np.testing.assert_array_equal(getattr(batch, field), getattr(resumed, field))


def test_textures_are_missed_before_anything_starts():
    with pytest.raises(UserError, match=r"data\.train is test/people, which has no textures; mode san needs them"):
        build(config_of(), ArraySource(PEOPLE.pids, textures=False))


def test_san_pg_takes_every_picture_once_an_epoch():
    config = config_of(san_pg, **{"schedule.epochs": 2})
    networks = run.Networks("san_pg", run.architecture_of(config, num_pids=12))
    plan = run.make_plan(config, PEOPLE, networks=networks, num_devices=1)
    assert plan.rows.shape == (2 * (60 // 16), 16)
    first, second = np.split(plan.rows, 2)
    assert len(set(first.ravel())) == first.size
    assert not np.array_equal(first, second)


def test_texture_generator_is_the_better_the_lower_its_l1():
    built = build(config_of(san_pg, **{"batch.identities": 3}), PAIRS)
    assert built.scoring.best_by == ("L1", False)
    assert built.notes == ("test/pairs: 14 pairs of picture and texture to train on",)
    assert build(config_of()).scoring.best_by == ("mAP", True)


@pytest.mark.slow
def test_first_weights_are_the_same_bits_as_compiled_without_haste():
    built = build(config_of(baseline, seed=3))
    make = functools.partial(train_step.make_state, built.networks, recon_tx=optax.identity(), seed=3)
    found, expected = built.make_state(), jax.jit(functools.partial(make, reid_tx=optax.identity()))()
    for part in ("encoder", "encoder_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, part), getattr(expected, part))


def test_every_field_of_the_config_is_read():
    """An option that nothing reads would be a promise that nobody keeps."""
    sources = "\n".join(
        path.read_text()
        for folder in ("san_jax", ".")
        for path in Path(folder).glob("**/*.py" if folder != "." else "*.py")
    )
    splatted = {"loss", "augmentation"}  # handed on whole, as keyword arguments
    for section, fields in san.get_config().items():
        if section in splatted:
            continue
        for name in fields if hasattr(fields, "items") else [section]:
            assert f".{name}" in sources, f"config field {section}.{name}"
