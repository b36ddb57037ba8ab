import json

import pytest

from configs import baseline, san
from san_jax.errors import UserError
from san_jax.training import run_config


def test_config_comes_back_as_it_was_kept(tmp_path, capsys):
    config = san.get_config("small")
    run_config.keep(config, tmp_path / "run")
    kept = run_config.read(tmp_path / "run")
    assert kept.to_dict() == json.loads(config.to_json())
    run_config.keep(config, tmp_path / "run")
    assert capsys.readouterr().out == ""


def test_run_that_goes_on_under_another_config_says_what_changed(tmp_path, capsys):
    config = san.get_config("small")
    run_config.keep(config, tmp_path)
    config.reid.learning_rate = 1e-4
    run_config.keep(config, tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}/config.json changes: reid.learning_rate 0.0008 -> 0.0001\n"


def test_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json cannot be read .* --workdir of a run"):
        run_config.read(tmp_path)


def test_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*config\.json .*; choose another place"):
        run_config.keep(san.get_config(), tmp_path / "file" / "run")


def test_baseline_differs_from_san_in_mode_and_data_alone():
    one, other = (module.get_config("small").to_dict() for module in (san, baseline))
    differ = {key for key in one if one[key] != other[key]}
    assert differ == {"mode", "data"}
    assert {key for key in one["data"] if one["data"][key] != other["data"][key]} == {"train"}


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="'tiny' is none of full, small"):
        san.get_config("tiny")
