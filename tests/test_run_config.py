import json

import pytest

from configs import baseline, san, san_pg
from san_jax.errors import UserError
from san_jax.training import run_config


def test_config_is_read_as_it_was_written(tmp_path, capsys):
    config = san.get_config("small")
    run_config.keep(config, tmp_path / "run")
    kept = run_config.read(tmp_path / "run")
    assert kept.to_dict() == json.loads(config.to_json())
    run_config.keep(config, tmp_path / "run")
    assert capsys.readouterr().out == ""


def test_run_resumed_with_another_config_says_what_changed(tmp_path, capsys):
    config = san.get_config()
    run_config.keep(config, tmp_path)
    config.reid.learning_rate = 1e-4
    run_config.keep(config, tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}/config.json changes: reid.learning_rate 0.0008 -> 0.0001\n"


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"scoring": 3}'])
def test_invalid_config_file_is_named(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        run_config.read(tmp_path)


def test_folder_without_a_config_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json cannot be read .* --workdir of a run"):
        run_config.read(tmp_path)


def test_unwritable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*config\.json .*; choose another place"):
        run_config.keep(san.get_config(), tmp_path / "file" / "run")


def test_baseline_differs_from_san_only_in_mode_and_data():
    one, other = (module.get_config().to_dict() for module in (san, baseline))
    differ = {key for key in one if one[key] != other[key]}
    assert differ == {"mode", "data"}
    assert {key for key in one["data"] if one["data"][key] != other["data"][key]} == {"train"}


@pytest.mark.parametrize(("size", "added"), [("full", {}), ("small", {"width": 0.0})])
def test_texture_generator_has_the_networks_of_san_but_no_convolutions_to_draw_with_when_small(size, added):
    one, other = (module.get_config(size).to_dict() for module in (san, san_pg))
    assert one["encoder"] == other["encoder"]
    assert one["decoder"] | added == other["decoder"]
    assert [one["data"][side] for side in ("height", "width")] == [other["data"][side] for side in ("height", "width")]
    assert other["data"]["train"] == one["data"]["pit"]


def test_small_configs_use_data_sets_that_can_be_rendered():
    named = {module.get_config("small").data.train for module in (san, baseline, san_pg)}
    assert named == {"synthetic_reid/small", "pit/small"}


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="'tiny' is not one of full, small"):
        san.get_config("tiny")
