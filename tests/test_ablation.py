"""Variants of the ablation, their result files and the tables of them."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs import ablation as ablation_config
from san_jax.errors import UserError
from san_jax.experiments import ablation, ablation_table
from san_jax.report import event_files
from san_jax.training.progress import Progress

ROOT = Path(__file__).parent.parent


def report(variant, seed, rank1, mAP, seconds=60, loss=4.0):
    scores = {"rank1": rank1, "mAP": mAP}
    return {"variant": variant, "seed": seed, "scores": scores, "losses": {"id": loss}, "seconds": seconds}


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_variant_has_a_row_in_the_table():
    assert list(ablation.VARIANTS) == list(ablation_table.TITLES)


def test_variants_differ_only_in_mode_texture_triplets_and_pit_pictures():
    shared = ablation_config.get_config().san
    assert (shared.loss.texture_triplets, shared.batch.pit_pictures, shared.mode) == (1.0, 0, "san")
    whole = {variant: ablation.flattened(shared) | dict(fields) for variant, fields in ablation.VARIANTS.items()}
    used = {name: (f["mode"], f["loss.texture_triplets"], f["batch.pit_pictures"]) for name, f in whole.items()}
    assert used == {
        "baseline": ("baseline", 1.0, 0),
        "reconstruction": ("san", 0.0, 0),
        "triplets": ("san", 1.0, 0),
        "pit": ("san", 0.0, 8),
        "all": ("san", 1.0, 8),
        "true_textures": ("san", 1.0, 8),
    }
    changed = {name for fields in ablation.VARIANTS.values() for name in fields}
    assert changed == {"mode", "loss.texture_triplets", "batch.pit_pictures"}


def test_table_gives_mean_deviation_and_paired_difference():
    reports = [report("baseline", 0, 0.40, 0.30), report("baseline", 1, 0.50, 0.40, seconds=None, loss=5.0)]
    reports += [report("all", 0, 0.45, 0.32, seconds=180), report("all", 1, 0.53, 0.46, seconds=240)]
    head, _, baseline, whole = rows_of(ablation_table.summary(reports))
    assert head[2:4] == ["rank-1", "mAP"]
    assert baseline == ["baseline", "2", "45.0 ± 7.1", "35.0 ± 7.1", "", "", "4.5 ± 0.7", "1.0"]
    assert whole[1:] == ["2", "49.0 ± 5.7", "39.0 ± 9.9", "+4.0 ± 1.4", "+4.0 ± 2.8", "4.0 ± 0.0", "3.5"]


def test_table_pairs_only_seeds_that_both_have_and_shows_every_run():
    reports = [report("baseline", 1, 0.5, 0.4), report("pit", 0, 0.1, 0.1), report("pit", 1, 0.6, 0.3)]
    assert rows_of(ablation_table.summary(reports))[-1][4:6] == ["+10.0", "-10.0"]
    shown = rows_of(ablation_table.every_run(reports))
    assert shown[0][1:] == ["seed 0", "seed 1"]
    assert [row[1:] for row in shown[2:]] == [["-", "50.0 / 40.0"], ["10.0 / 10.0", "60.0 / 30.0"]]


def test_tables_of_each_folder_replace_the_text_between_its_markers(tmp_path):
    for folder, variant in (("short", "all"), ("long", "pit")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.json").write_text(json.dumps(report(variant, 0, 0.5, 0.4)))
    starts = [ablation_table.START.format(folder=folder) for folder in ("short", "long")]
    page = "".join(f"before\n{start}\nold\n{ablation_table.END}\nafter\n" for start in starts)
    short, _, long = ablation_table.with_tables(page, tmp_path).partition("after\n")
    for text, start, variant in ((short, starts[0], "all"), (long.removesuffix("after\n"), starts[1], "pit")):
        assert text.startswith(f"before\n{start}\n\n| in %")
        assert text.endswith(f"{ablation_table.END}\n")
        assert [row[0] for row in rows_of(text)].count(ablation_table.TITLES[variant]) == 2
        assert "old" not in text
    with pytest.raises(UserError, match="no lines"):
        ablation_table.with_tables("nothing here", tmp_path)


def test_errors_name_a_folder_without_scores_and_an_invalid_result_file(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no scores; run python -m san_jax.experiments.ablation"):
        ablation_table.read_reports(tmp_path)
    for text, error in (
        ('{"variant"', "is not a JSON file"),
        ("[]", "has no losses, scores, seconds, seed, variant: it is not a result of the ablation"),
        (json.dumps(report("none", 0, 0.5, 0.4)), "is of the variant 'none': it is not a result of the ablation"),
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
    path = tmp_path / "baseline_3.json"
    path.write_text(json.dumps({"config": about}))
    inputs = dict(variant="baseline", results=tmp_path)
    ablation.train_and_score(shared, {"mode": "baseline", "seed": 3}, tmp_path / "run", **inputs)
    assert not (tmp_path / "run").exists()
    for text, error in (
        (json.dumps({"config": about | {"reid.learning_rate": 1.0}}), "is of a run with another reid.learning_rate;"),
        (json.dumps({"config": about | {"gone": 1}}), "is of a run with another gone;"),
        ("{}", "is not a result of the ablation"),
        ("torn", "is not a result of the ablation"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"baseline_3.json {error}.* delete it"):
            ablation.train_and_score(shared, {"mode": "baseline", "seed": 3}, tmp_path / "run", **inputs)
    assert not (tmp_path / "run").exists()


def test_requested_variants_are_trained_for_every_seed_and_true_textures_replace_pseudo_textures(monkeypatch, tmp_path):
    trained = []
    prepared = lambda config, workdir, total: (config.san, None, f"true, {total} stages")  # noqa: E731
    monkeypatch.setattr(ablation.chain, "prepare", prepared)
    monkeypatch.setattr(
        ablation, "train_and_score", lambda shared, fields, place, *, variant, results: trained.append((place, fields))
    )
    wanted = dict(seeds=(4, 5), variants=("baseline", "true_textures"))
    ablation.run_ablation(ablation_config.get_config(), tmp_path, results=tmp_path, **wanted)
    assert [str(place.relative_to(tmp_path)) for place, _ in trained] == [
        f"{variant}/{seed}" for seed in (4, 5) for variant in wanted["variants"]
    ]
    assert trained[0][1] == {"mode": "baseline", "seed": 4}
    assert trained[3][1] == {"batch.pit_pictures": 8, "seed": 5, "data.train": "true, 6 stages"}
