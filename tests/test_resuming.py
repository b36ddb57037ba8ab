import json
import shutil
from pathlib import Path

import pytest
from flax.traverse_util import flatten_dict
from old_runs import build, config_of, unpack

from configs import base, baseline, san_pg
from san_jax.errors import UserError
from san_jax.training import resuming, train_loop
from san_jax.weights import stored

MUST_STAY = [
    {"mode": "baseline"},
    {"encoder.depth": 18},
    {"encoder.fc_dim": 8},
    {"decoder.width": 0.05},
    {"decoder.skips": False},
    {"data.height": 64},
    {"reid.optimizer": "sgd"},
    {"reid.optimizer": "adam"},
    {"schedule.fixbase_epoch": 0},
    {"schedule.fixbase_epoch": 2},
    {"schedule.warmup_epochs": 0},
    {"schedule.open_layers": ("classifier",)},
]
MAY_CHANGE = {
    "schedule.epochs": 3,
    "reid.learning_rate": 1e-5,
    "reid.milestones": (1,),
    "reid.momentum": 0.5,
    "recon.learning_rate": 1e-6,
    "loss.margin": 0.2,
    "augmentation.erase": 0.1,
    "batch.identities": 2,
    "data.workers": 1,
    "data.data_dir": "elsewhere",
    "scoring.metric": "cuhk03",
    "schedule.save_every": 3,
    "compute_dtype": "bfloat16",
}


@pytest.fixture
def workdir(tmp_path):
    return unpack(tmp_path)



def test_every_config_field_has_a_rule_and_every_rule_a_field():
    fields = flatten_dict(base.get_config().to_dict(), sep=".")
    assert {resuming.rule_of(name) for name in fields} == set(resuming.RULES)


def test_docs_show_the_table_of_the_code():
    assert resuming.as_table() in (Path(__file__).parent.parent / "docs" / "resuming.md").read_text()


@pytest.mark.parametrize("fields", MUST_STAY, ids=str)
def test_forbidden_change_names_the_field_and_does_not_touch_the_run(fields, workdir):
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError) as error:
        build(config_of(**fields), workdir)
    (name, value), message = *fields.items(), str(error.value)
    value = list(value) if isinstance(value, tuple) else value
    old = flatten_dict(json.loads(before), sep=".")[name]
    assert f"{name} {old} (this run: {value})" in message
    assert "give another --workdir" in message
    assert "\n" not in message
    assert (workdir / "config.json").read_bytes() == before


def test_all_changeable_fields_may_change_at_once(workdir):
    assert build(config_of(**MAY_CHANGE), workdir).total > 11


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"reid.optimizer": "sgd"}, r"reid\.optimizer"),
        ({"reid.optimizer": "adam"}, r"reid\.optimizer"),
        ({"mode": "baseline"}, "mode"),
        ({"mode": "san_pg"}, "mode"),
    ],
    ids=str,
)
def test_state_that_does_not_fit_names_the_field_even_without_a_config(fields, named, workdir):
    (workdir / "config.json").unlink()
    with pytest.raises(UserError, match=f"11 does not fit this run: it was trained with another {named}") as error:
        build(config_of(**fields), workdir)
    assert "\n" not in str(error.value)


def test_field_that_an_older_config_lacks_counts_as_unchanged(workdir):
    path = workdir / "config.json"
    old = json.loads(path.read_text())
    del old["reid"]["nesterov"], old["encoder"]["depth"]
    path.write_text(json.dumps(old))
    resuming.check_config(config_of(), workdir)


def test_workdir_without_a_checkpoint_accepts_any_config(workdir):
    shutil.rmtree(workdir / "checkpoints")
    for module in (baseline, san_pg):
        resuming.check_config(module.get_config(), workdir)


def test_config_is_written_only_after_the_state_is_restored(workdir):
    before = (workdir / "config.json").read_bytes()
    built = build(config_of(**{"schedule.epochs": 2}), workdir)
    for path in stored.find(workdir).glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        train_loop.train(built)
    assert (workdir / "config.json").read_bytes() == before
