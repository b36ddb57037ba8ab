"""Variants of the ablation, their result files and the tables of them."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax.traverse_util import flatten_dict

from configs import ablation as ablation_config
from configs import chain as chain_config
from configs import starts as starts_config
from san_jax.errors import UserError
from san_jax.experiments import ablation, ablation_table
from san_jax.report import event_files
from san_jax.training import config_fields
from san_jax.training.progress import Progress

ROOT = Path(__file__).parent.parent


def report(variant, seed, rank1, mAP, seconds=60, loss=4.0, drawn=None):
    numbers = {"scores": {"rank1": rank1, "mAP": mAP}, "losses": {"id": loss}, "recon_over_constant": drawn}
    return {"variant": variant, "seed": seed, "id_floor": 1.5, "seconds": seconds} | numbers


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_variant_has_a_row_in_the_table():
    assert list(ablation.PARTS) == list(ablation_table.PARTS)
    starts = [config.starts for config in (ablation_config.get_config(), starts_config.get_config())]
    assert {start for some in starts for start in some} == set(ablation_table.STARTS)
    assert all(ablation_table.is_variant(name) for some in starts for name in ablation.variants_of(some))
    assert not any(map(ablation_table.is_variant, ("baseline", "all_imagenet", "none_pg", "pg", "")))


@pytest.mark.parametrize(("start", "weights"), [("random", ""), ("pg", "rendered-small-pg")])
def test_variants_differ_only_in_mode_texture_triplets_pit_pictures_and_start(start, weights):
    shared, starts = ablation_config.get_config().san, ablation_config.get_config().starts
    assert (shared.loss.texture_triplets, shared.batch.pit_pictures, shared.mode) == (0.01, 0, "san")
    changed = {variant: ablation.fields_of(variant, starts) for variant in ablation.variants_of(starts)}
    whole = {variant: ablation.flattened(shared) | fields for variant, fields in changed.items()}
    names = "mode", "loss.texture_triplets", "batch.pit_pictures", "init_from"
    used = {variant: tuple(map(fields.get, names)) for variant, fields in whole.items() if variant.endswith(start)}
    assert used == {
        f"baseline_{start}": ("baseline", 0.01, 0, weights),
        f"reconstruction_{start}": ("san", 0.0, 0, weights),
        f"triplets_{start}": ("san", 0.01, 0, weights),
        f"pit_{start}": ("san", 0.0, 8, weights),
        f"all_{start}": ("san", 0.01, 8, weights),
        f"true_textures_{start}": ("san", 0.01, 8, weights),
    }
    schedule = {"schedule.epochs", "reid.learning_rate", "reid.milestones", "recon.learning_rate"}
    assert {name for fields in changed.values() for name in fields} == {*names, *schedule}


def test_variants_of_one_start_have_one_schedule():
    starts = ablation_config.get_config().starts
    for start in starts:
        names = [name for name in ablation.variants_of(starts) if name.endswith(start)]
        found = [ablation.fields_of(name, starts) for name in names]
        of_start = flatten_dict(starts[start].to_dict(), sep=".")
        assert all({name: fields[name] for name in of_start} == of_start for fields in found)


def test_table_gives_mean_deviation_and_paired_gain_with_its_interval():
    reports = [report("baseline_pg", 0, 0.40, 0.30), report("baseline_pg", 1, 0.50, 0.40, seconds=None, loss=5.0)]
    reports += [report("all_pg", 0, 0.45, 0.32, 180, drawn=0.5), report("all_pg", 1, 0.53, 0.46, 240, drawn=0.7)]
    head, _, baseline, whole = rows_of(ablation_table.summary(reports))
    assert head[:5] == ["start", "parts", "seeds", "rank-1", "mAP"]
    assert baseline == ["SAN-PG", "baseline", "2", "45.0 ± 7.1", "35.0 ± 7.1", "", "", "3.00 ± 0.71", "", "1.0"]
    # Student's t with one degree of freedom is 12.706; the gains are 5 and 3, and 2 and 6 points.
    gains = ["+4.0 [-8.7, +16.7]", "+4.0 [-21.4, +29.4]"]
    assert whole[2:] == ["2", "49.0 ± 5.7", "39.0 ± 9.9", *gains, "2.50 ± 0.00", "0.60 ± 0.14", "3.5"]


def test_interval_is_that_of_a_paired_t_test():
    first, second = np.random.default_rng(0).normal(size=(2, 5))
    mean = np.mean(second - first)
    low, high = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    assert ablation_table.mean_and_interval(list(second - first)) == f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def test_table_pairs_only_runs_of_one_start_from_seeds_that_both_have_and_shows_every_run():
    reports = [report("baseline_random", 0, 0.5, 0.4), report("baseline_pg", 1, 0.5, 0.4)]
    reports += [report("pit_pg", 0, 0.1, 0.1), report("pit_pg", 1, 0.6, 0.3), report("all_random", 1, 0.2, 0.2)]
    gains = {(row[0], row[1]): row[5:7] for row in rows_of(ablation_table.summary(reports))[2:]}
    assert gains["SAN-PG", ablation_table.PARTS["pit"]] == ["+10.0", "-10.0"]
    assert gains["random", ablation_table.PARTS["all"]] == ["", ""]
    shown = rows_of(ablation_table.every_run(reports))
    assert shown[0][2:] == ["seed 0", "seed 1"]
    assert [row[2:] for row in shown[2:]] == [
        ["50.0 / 40.0", "-"],
        ["-", "20.0 / 20.0"],
        ["-", "50.0 / 40.0"],
        ["10.0 / 10.0", "60.0 / 30.0"],
    ]


def test_last_start_is_compared_with_the_others_for_parts_that_have_several():
    reports = [report("baseline_random", 0, 0.5, 0.4), report("baseline_random", 1, 0.6, 0.5)]
    reports += [report("baseline_pg", 0, 0.7, 0.7), report("all_pg", 0, 0.2, 0.2)]
    head, _, *rows = rows_of(ablation_table.starts(reports))
    assert head == ["parts", "starts", "rank-1", "mAP"]
    assert rows == [["baseline", "SAN-PG - random", "+20.0", "+30.0"]]
    reports += [report("baseline_textures", 0, 0.4, 0.4)]
    others = [row[1:] for row in rows_of(ablation_table.starts(reports))[2:]]
    assert others == [["textures - random", "-10.0", "+0.0"], ["textures - SAN-PG", "-30.0", "-30.0"]]
    assert ablation_table.starts(reports[:2]) == ""


def test_tables_of_each_folder_replace_the_text_between_its_markers(tmp_path):
    for folder, variant in (("short", "all_pg"), ("long", "pit_random")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.json").write_text(json.dumps(report(variant, 0, 0.5, 0.4)))
    starts = [ablation_table.START.format(folder=folder) for folder in ("short", "long")]
    page = "".join(f"before\n{start}\nold\n{ablation_table.END}\nafter\n" for start in starts)
    short, _, long = ablation_table.with_tables(page, tmp_path).partition("after\n")
    for text, start, variant in ((short, starts[0], "all"), (long.removesuffix("after\n"), starts[1], "pit")):
        assert text.startswith(f"before\n{start}\n\n| start |")
        assert text.endswith(f"{ablation_table.END}\n")
        assert [row[1] for row in rows_of(text)].count(ablation_table.PARTS[variant.partition("_")[0]]) == 2
        assert "old" not in text
    with pytest.raises(UserError, match="no lines"):
        ablation_table.with_tables("nothing here", tmp_path)


def test_errors_name_a_folder_without_scores_and_an_invalid_result_file(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no scores; run python -m san_jax.experiments.ablation"):
        ablation_table.read_reports(tmp_path)
    for text, error in (
        ('{"variant"', "is not a JSON file"),
        ("[]", "has no id_floor, losses, recon_over_constant, scores, seconds, seed, variant: it is not a result of"),
        (json.dumps(report("none_pg", 0, 0.5, 0.4)), "is of the variant 'none_pg': it is not a result of the ablation"),
    ):
        (tmp_path / "all_0.json").write_text(text)
        with pytest.raises(UserError, match=f"all_0.json {error}"):
            ablation_table.read_reports(tmp_path)


def test_losses_are_means_over_the_last_sixth_of_the_steps(tmp_path):
    with Progress(tmp_path / "events", start=0, total=12, batch_size=4) as progress:
        for step in range(12):
            progress.show(step, {"loss": {"id": jnp.float32(step)}, "rate": {}})
        progress.settle()
    written = event_files.read_scalars(tmp_path / "events")["loss/id"]
    last = max(written)
    assert ablation.last_losses(tmp_path) == {"id": np.mean([x for step, x in written.items() if step > last * 5 / 6])}


def test_run_with_a_result_file_is_not_trained_again_and_a_file_of_another_config_is_refused(tmp_path):
    shared = ablation_config.get_config().san
    config = ablation.flattened(shared) | {"seed": 3, "mode": "baseline"}
    about = {name: value for name, value in config.items() if name not in ablation.PLACES}
    path = tmp_path / "baseline_pg_3.json"
    path.write_text(json.dumps({"config": about}))
    inputs = dict(variant="baseline_pg", results=tmp_path)
    ablation.train_and_score(shared, {"mode": "baseline", "seed": 3}, tmp_path / "run", **inputs)
    assert not (tmp_path / "run").exists()
    for text, error in (
        (json.dumps({"config": about | {"reid.learning_rate": 1.0}}), "is of a run with another reid.learning_rate;"),
        (json.dumps({"config": about | {"gone": 1}}), "is of a run with another gone;"),
        ("{}", "is not a result of the ablation"),
        ("torn", "is not a result of the ablation"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"baseline_pg_3.json {error}.* delete it"):
            ablation.train_and_score(shared, {"mode": "baseline", "seed": 3}, tmp_path / "run", **inputs)
    assert not (tmp_path / "run").exists()


def test_requested_variants_are_trained_for_every_seed_and_true_textures_replace_pseudo_textures(monkeypatch, tmp_path):
    trained = []
    prepared = lambda config, workdir, total: (config.san, None, f"true, {total} stages")  # noqa: E731
    monkeypatch.setattr(ablation.chain, "prepare", prepared)
    monkeypatch.setattr(
        ablation, "train_and_score", lambda shared, fields, place, *, variant, results: trained.append((place, fields))
    )
    wanted = dict(seeds=(4, 5), variants=("baseline_random", "true_textures_pg"))
    ablation.run_ablation(ablation_config.get_config(), tmp_path, results=tmp_path, **wanted)
    assert [str(place.relative_to(tmp_path)) for place, _ in trained] == [
        f"{variant}/{seed}" for seed in (4, 5) for variant in wanted["variants"]
    ]
    starts = ablation_config.get_config().starts
    assert trained[0][1] == ablation.fields_of("baseline_random", starts) | {"seed": 4}
    assert trained[3][1] == ablation.fields_of("true_textures_pg", starts) | {"seed": 5, "data.train": "true, 6 stages"}


def test_config_without_starts_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="the config has no part starts; use one like configs"):
        ablation.run_ablation(chain_config.get_config("small"), tmp_path / "new", seeds=(0,), results=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"starts.pg.recon.learning_rate": -1.0}, "starts.pg.recon.learning_rate is -1.0; it must be a number of at"),
        ({"starts.pg.schedule.epochs": 0, "san.schedule.warmup_epochs": 0}, "starts.pg.schedule.epochs, warmup_epochs"),
        ({"san.batch.identities": 0}, "san.batch.identities is 0; it must be an integer of at least 1"),
    ],
)
def test_value_that_is_not_allowed_is_an_error_before_anything_is_written(tmp_path, changes, error):
    config = ablation_config.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=error):
        ablation.run_ablation(config, tmp_path / "new", seeds=(0,), results=tmp_path, variants=("all_pg",))
    assert not any(tmp_path.iterdir())


def test_variant_that_does_not_exist_is_an_error_before_anything_is_written(tmp_path):
    wanted = dict(seeds=(0,), results=tmp_path, variants=("baseline_pg", "baseline_textures"))
    with pytest.raises(UserError, match="there is no variant baseline_textures; there are baseline_pg, "):
        ablation.run_ablation(ablation_config.get_config(), tmp_path / "new", **wanted)
    assert not any(tmp_path.iterdir())


def test_starts_are_trained_alike_and_go_on_alike():
    parts = {part: starts_config.get_config(part) for part in starts_config.PARTS}
    for config in parts.values():
        config_fields.check(config)
    shared = starts_config.get_config()
    assert set(shared.starts) == set(parts)
    assert {start.init_from for start in shared.starts.values()} == {f"runs/starts_{part}" for part in parts}
    after = ablation_config.get_config().starts.pg
    for start in shared.starts.values():
        assert start.to_dict() | {"init_from": after.init_from} == after.to_dict()
    textures, pictures = (ablation.flattened(parts[part]) for part in ("textures", "pictures"))
    assert {name for name in textures if textures[name] != pictures[name]} == {"data.train"}
    assert parts["reid"].encoder == parts["textures"].encoder
