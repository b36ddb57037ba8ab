import math

import pytest
from flax.traverse_util import flatten_dict
from runs import PEOPLE, build, config_of

from configs import ablation, base, baseline, chain, san, san_market1501, san_msmt17, san_pg
from san_jax.commands import config_file
from san_jax.errors import UserError
from san_jax.training import config_fields


@pytest.mark.parametrize("module", [base, san, baseline, san_pg, san_market1501, san_msmt17])
@pytest.mark.parametrize("size", ["full", "small"])
def test_shipped_configs_are_in_range_and_change_no_unused_field(module, size):
    config = module.get_config(size)
    config_fields.check(config)
    assert config_fields.changed_in_vain(config, config_file.defaults()) == []


@pytest.mark.parametrize("module", [chain, ablation])
def test_parts_of_the_experiments_are_in_range(module):
    config = module.get_config()
    for part in ("san", "san_pg"):
        config_fields.check(config[part])


def test_every_field_has_a_range_and_every_range_a_field():
    assert flatten_dict(base.get_config().to_dict(), sep=".").keys() == config_fields.RANGES.keys()


@pytest.mark.parametrize(
    ("field", "value", "must_be"),
    [
        ("mode", "sam", "one of san, baseline, san_pg"),
        ("seed", -1, "an integer from 0 to 4294967295"),
        ("compute_dtype", "half", "one of float32, tensorfloat32, bfloat16"),
        ("data.train", " ", "a string that is not empty"),
        ("data.height", 0, "an integer of at least 16"),
        ("data.workers", -1, "an integer of at least 0, or unset"),
        ("data.cache", "gpu", "one of auto, device, host, stream"),
        ("data.cache_gb", -1.0, "a number of at least 0"),
        ("encoder.depth", 51, "one of 10, 14, 18, 26, 34, 50, 101, 152"),
        ("encoder.fc_dim", -1, "an integer of at least 0"),
        ("encoder.last_stride", 3, "one of 1, 2"),
        ("encoder.width", 0.0, "a number above 0"),
        ("decoder.width", math.inf, "a number of at least 0"),
        ("batch.identities", 0, "an integer of at least 1"),
        ("batch.instances", 0, "an integer of at least 1"),
        ("batch.pit_pictures", -4, "an integer of at least 0"),
        ("augmentation.crop", 1.5, "a number of at least 0 and at most 1"),
        ("augmentation.erase", -1.0, "a number of at least 0 and at most 1"),
        ("loss.label_smoothing", 1.5, "a number of at least 0 and below 1"),
        ("loss.margin", math.nan, "a number of at least 0"),
        ("reid.optimizer", "adamw", "one of amsgrad, adam, sgd, rmsprop"),
        ("reid.learning_rate", -1e-3, "a number of at least 0"),
        ("reid.learning_rate", math.nan, "a number of at least 0"),
        ("reid.milestones", (40, 40), "a tuple of strictly increasing integers above 0, such as (40, 80)"),
        ("reid.milestones", ("(1", "x)"), "a tuple of strictly increasing integers above 0, such as (40, 80)"),
        ("recon.milestones", (0,), "a tuple of strictly increasing integers above 0, such as (40, 80)"),
        ("reid.b1", 1.0, "a number of at least 0 and below 1"),
        ("recon.decoder_learning_rate", -1e-3, "a number of at least 0, or unset"),
        ("schedule.epochs", -1, "an integer of at least 0"),
        ("schedule.eval_every", -1, "an integer of at least 0"),
        ("schedule.save_every", -1, "an integer of at least 0"),
        ("schedule.open_layers", (1,), 'a tuple of layer names, such as ("fc", "classifier")'),
        ("scoring.metric", "cuhk", "one of market1501, cuhk03"),
        ("scoring.batch_size", 0, "an integer of at least 1"),
    ],
)
def test_error_for_a_value_out_of_range_names_the_field_and_the_allowed_values(field, value, must_be):
    config = san.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError) as caught:
        config_fields.check(config)
    assert str(caught.value) == f"{field} is {value!r}; it must be {must_be}"


def test_no_field_takes_a_value_of_another_type():
    """A config may come from Python or JSON, where nothing else checks types."""
    for name, allowed in config_fields.RANGES.items():
        for value in (None, {}, [1.5], object()):
            if value is None and name in ("data.workers", "recon.decoder_learning_rate"):
                continue
            assert not allowed.allows(value), name
        assert not (allowed.allows(True) and allowed is not config_fields.SWITCH), name


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule.epochs": 0, "schedule.warmup_epochs": 0}, "schedule.epochs, .* are all 0; set at least one"),
        ({"mode": "baseline", "batch.pit_pictures": 4}, "batch.pit_pictures is 4, but mode baseline uses no pairs"),
        ({"encoder.last_stride": 2}, "encoder.last_stride is 2; mode san needs 1"),
        ({"data.height": 40}, "data.height is 40; mode san needs a multiple of 16"),
        ({"mode": "san_pg", "data.width": 24}, "data.width is 24; mode san_pg needs a multiple of 16"),
        ({"decoder.width": 0.0}, "decoder.width and decoder.coarse are both 0, so nothing is drawn"),
        (
            {"decoder.width": 0.0, "decoder.coarse": 8},
            "loss.texture_triplets is 1.0 and decoder.width 0, .* set loss.texture_triplets to 0, or give a width",
        ),
    ],
)
def test_errors_name_fields_that_contradict_each_other(fields, said):
    config = san.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=f"^part[.]{said}"):
        config_fields.check(config, where="part.")


def test_baseline_allows_sizes_and_strides_that_a_decoder_does_not():
    config = baseline.get_config()
    config.update_from_flattened_dict({"data.height": 40, "data.width": 24, "encoder.last_stride": 2})
    config_fields.check(config)


def test_config_with_missing_or_unknown_fields_is_refused():
    with pytest.raises(UserError, match=r"^augmentation[.]crop is missing from a training config"):
        config_fields.check(chain.get_config())
    config = san.get_config()
    with config.unlocked():
        config.extra = 1
    with pytest.raises(UserError, match=r"^extra is not a field of a training config; configs/base.py lists all"):
        config_fields.check(config)


@pytest.mark.parametrize(
    ("fields", "in_vain"),
    [
        ({"mode": "san_pg", "data.pit": "pit/release"}, ["data.pit pit/release"]),
        ({"mode": "baseline", "recon.gamma": 0.2, "decoder.skips": False}, ["decoder.skips False", "recon.gamma 0.2"]),
        ({"mode": "san_pg", "reid.learning_rate": 0.3, "loss.margin": 0.5, "scoring.metric": "cuhk03"},
         ["loss.margin 0.5", "reid.learning_rate 0.3", "scoring.metric cuhk03"]),
        ({"reid.momentum": 0.5, "reid.nesterov": True}, ["reid.momentum 0.5", "reid.nesterov True"]),
        ({"reid.optimizer": "sgd", "reid.momentum": 0.5, "reid.nesterov": True}, []),
        ({"reid.optimizer": "sgd", "reid.b1": 0.8}, []),
        ({"reid.optimizer": "sgd", "reid.b1": 0.8, "schedule.warmup_epochs": 0}, ["reid.b1 0.8"]),
        ({"schedule.open_layers": ("fc",)}, ["schedule.open_layers ('fc',)"]),
        ({"schedule.open_layers": ("fc",), "schedule.fixbase_epoch": 1}, []),
        ({"data.pit": "pit/release", "batch.pit_pictures": 2}, []),
        ({"data.cache": "stream", "data.cache_gb": 1.0}, ["data.cache_gb 1.0"]),
        ({"loss.htri_only": True, "loss.label_smoothing": 0.2}, ["loss.label_smoothing 0.2"]),
        ({"decoder.width": 0.0, "decoder.coarse": 8, "decoder.skips": False}, ["decoder.skips False"]),
    ],
)  # fmt: skip
def test_changed_fields_without_effect_are_found(fields, in_vain):
    config = san.get_config()
    config.update_from_flattened_dict(fields)
    assert config_fields.changed_in_vain(config, config_file.defaults()) == in_vain


@pytest.mark.parametrize("field", ["batch.identities", "batch.instances"])
def test_note_warns_of_one_identity_or_one_instance_per_batch(field):
    said = [note for note in build(config_of(**{field: 1}), PEOPLE).notes if note.startswith(f"{field} is 1: ")]
    assert len(said) == 1
    assert not [note for note in build(config_of()).notes if " is 1: " in note]


def test_run_without_scores_is_saved_at_its_interval_and_at_the_end():
    often, never = (
        build(config_of(**{"schedule.eval_every": 0, "schedule.save_every": every, "schedule.epochs": 5}))
        for every in (4, 0)
    )
    assert often.score_at == never.score_at == frozenset()
    total = often.total
    assert total > 8
    assert [step for step in range(1, total + 1) if often.is_saved_at(step)] == sorted({*range(4, total + 1, 4), total})
    assert [step for step in range(1, total + 1) if never.is_saved_at(step)] == [total]


def test_run_without_a_save_interval_is_saved_whenever_it_is_scored():
    built = build(config_of(**{"schedule.eval_every": 1, "schedule.save_every": 0, "schedule.epochs": 2}))
    assert {step for step in range(1, built.total + 1) if built.is_saved_at(step)} == built.score_at
    assert len(built.score_at) == 3


@pytest.mark.parametrize("field", ["data.train", "data.test", "data.pit", "data.manual_dir"])
def test_pictures_must_be_local(field):
    config = config_of(**{field: "s3://bucket/people.csv"})
    said = rf"^{field} is s3://bucket/people\.csv, but must be local, since its pictures are read one by one; give"
    with pytest.raises(UserError, match=said):
        config_fields.check(config)


def test_prepared_data_may_be_in_an_object_store():
    config_fields.check(config_of(**{"data.data_dir": "s3://bucket/data"}))
