import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import jax_san, loop, on_device, table, variants
from benchmarks.case import Case
from benchmarks.on_device import Part
from configs import baseline, san, san_pg
from san_jax.networks import layers

ROOT = pathlib.Path(__file__).parent.parent
TINY = ["--depth=10", "--height=32", "--width=16", "--encoder_width=0.1", "--fc_dim=8", "--num_pids=4", "--batch=8"]


def row(framework, seconds, options=(), **fields):
    same = {"task": "san", "dtype": "float32", "batch": 16, "height": 256, "width": 128, "depth": 50, "fc_dim": 512}
    same |= {"encoder_width": 1.0, "decoder_width": 1.0, "num_pids": 767, "framework": framework, "options": options}
    measured = {"seconds": seconds, "pictures_per_second": 16 / seconds, "compile_seconds": 30.0, "peak_bytes": 2.5e9}
    return same | measured | fields


def report(*rows):
    about = {"device": "Chip, 2 cores", "platform": "cpu", "cpu": {"instructions": ["avx2"]}, "keep_heap": True}
    return about | {"date": "2026-11-22T12:00:00", "versions": {"jax": "1.0"}, "xla_flags": "", "measurements": rows}


def cells(page):
    """The cells of the last row of the page's last table."""
    return [cell.strip() for cell in page.splitlines() if cell.startswith("|")][-1].strip("| ").split(" | ")


@pytest.mark.slow
def test_benchmark_reports_time_memory_and_compile_time_of_every_case(tmp_path):
    cases = ["--tasks=baseline,features", "--dtypes=float32", "--pictures=4", "--torch="]
    often = ["--warmup=0", "--repeats=3", "--rounds=1"]
    command = [sys.executable, "-m", "benchmarks.train_step", *TINY, *cases, *often, f"--out={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True)
    (path,) = tmp_path.iterdir()
    measured = json.loads(path.read_text())
    assert {"device", "platform", "cpu", "date", "keep_heap", "xla_flags"} < set(measured)
    assert {"jax", "jaxlib", "flax"} < set(measured["versions"])
    baseline, features = measured["measurements"]
    assert (baseline["task"], baseline["batch"], features["task"], features["batch"]) == ("baseline", 8, "features", 4)
    for case in (baseline, features):
        assert len(case["all_seconds"]) == 3
        assert case["seconds"] == sorted(case["all_seconds"])[1]
        assert case["pictures_per_second"] == pytest.approx(case["batch"] / case["seconds"])
        assert case["compile_seconds"] > case["seconds"]
        assert case["peak_bytes"] > 50e6
        assert "ratio" not in case


@pytest.mark.parametrize("name", [name for name, changes in variants.VARIANTS.items() if changes])
def test_every_variant_of_the_step_can_be_traced(name):
    case = Case("san", "jax", (), "bfloat16", "cpu", 8, 32, 16, 10, 8, 0.1, 0.1, 4, warmup=0, repeats=1)
    jax.clear_caches()
    step, arguments = jax_san.step_of(case)
    with variants.in_place(variants.VARIANTS[name]):
        state, _ = jax.eval_shape(step, *arguments)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, arguments[0])


@pytest.mark.parametrize("padding", [0, 1])
def test_windowed_max_pool_replaces_that_of_the_layers(padding):
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 3))
    with variants.in_place(variants.VARIANTS["windowed max-pool"]):
        windowed = layers.max_pool(x, padding=padding)
    np.testing.assert_array_equal(windowed, layers.max_pool(x, padding=padding))


def test_invalid_flag_ends_the_benchmark_before_it_measures(tmp_path):
    command = [sys.executable, "-m", "benchmarks.train_step", "--batch=6", f"--out={tmp_path}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--batch is 6; it must be a multiple of 4" in ended.stderr


@pytest.mark.slow
def test_sides_of_the_scoring_benchmark_agree_on_the_scores(tmp_path):
    sides = ["product", "rank", "argsort", "nearest", "tpr", "single_shot"]
    command = [sys.executable, "-m", "benchmarks.scoring", "--sizes=tiny", f"--sides={','.join(sides)}"]
    subprocess.run([*command, "--rounds=1", "--repeats=2", f"--out={tmp_path}"], cwd=ROOT, check=True)
    (path,) = tmp_path.iterdir()
    measured = {row["side"]: row for row in json.loads(path.read_text())["measurements"]}
    assert list(measured) == sides
    assert measured["rank"]["result"] == pytest.approx(measured["argsort"]["result"], abs=1e-6)
    assert 0.05 < measured["rank"]["result"] < 1
    for row in measured.values():
        assert len(row["all_seconds"]) == 2
        assert row["first_seconds"] > 0
        assert row["bytes_above_features"] > 0


def test_table_compares_with_the_fastest_pytorch_case():
    rows = row("jax", 2.0), row("torch", 5.0, ratio=0.4), row("torch", 4.0, ("channels_last",), ratio=0.5)
    page = table.with_tables(f"Top {table.START} old {table.END} end", [report(*rows)])
    assert page.startswith(f"Top {table.START}\n\n### Chip, 2 cores")
    assert page.endswith(f"{table.END} end")
    assert " old " not in page
    ours, theirs = ["2.00", "8.00", "30.0", "2.50"], ["5.00", "4.00", "channels_last", "2.50", "0.500"]
    assert cells(page) == ["san", "float32", "16", *ours, *theirs]


def test_reports_of_one_day_and_device_share_a_table_and_the_last_result_of_a_case_counts():
    reports = [report(row("jax", 2.0), row("jax", 3.0, task="baseline")), report(row("jax", 1.0))]
    page = table.with_tables(table.START + table.END, reports)
    assert page.count("### Chip") == 1
    assert [line.split(" | ")[3] for line in page.splitlines() if "float32" in line] == ["1.00", "3.00"]


def test_table_shows_dashes_for_failed_measurements():
    failed = {field: value for field, value in row("torch", 1.0).items() if field != "seconds"} | {"error": "no memory"}
    page = table.with_tables(table.START + table.END, [report(row("jax", 2.0), failed)])
    assert cells(page)[-5:] == ["-"] * 5


def test_page_holds_the_tables_of_the_stored_reports():
    page = table.PAGE.read_text()
    assert table.with_tables(page, table.read_reports(table.RESULTS)) == page


@pytest.mark.slow
def test_rendering_benchmark_writes_its_rate_and_the_device(tmp_path):
    flags = ["--people=1", "--height=32", "--rounds=3", f"--out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rendering", *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert path.name.startswith("32x16_")
    assert (found["pictures"], found["height"], found["width"], len(found["all_seconds"])) == (6, 32, 16, 3)
    assert found["pictures_per_second"] == pytest.approx(6 / sorted(found["all_seconds"])[1])
    assert found["device"]
    assert f"{found['pictures_per_second']:.1f} pictures/s of 32 x 16" in done.stdout


def test_scoring_table_has_a_row_per_side_and_a_column_per_size_smallest_first():
    def row(side, size, seconds):
        sizes = {"size": size, "query": 1400, "gallery": 5328}
        return {"side": side, **sizes, "seconds": seconds, "bytes_above_features": 2.5e8}

    failed = {"side": "rank", "size": "b", "query": 3000, "gallery": 5328, "error": "no memory"}
    report = {"device": "Chip", "date": "2026-11-22T12", "jax": "1", "dim": 512}
    report["measurements"] = [failed, row("rank", "a", 0.5), row("product", "a", 0.25)]
    page = table.with_scoring(f"Top {table.SCORING} old {table.END} end", [report])
    assert page.startswith(f"Top {table.SCORING}\n\n### Chip\n\n2026-11-22; jax 1; dim 512.")
    assert page.endswith(f"{table.END} end")
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    assert lines[0] == ["s / GB", "a: 1,400 x 5,328", "b: 3,000 x 5,328"]
    assert [line[1:] for line in lines[2:]] == [["0.250 / 0.250", "-"], ["0.500 / 0.250", "-"]]


def test_loop_table_has_a_line_per_report_with_the_ratio_to_the_step_alone():
    report = {"device": "Chip", "date": "2026-11-28", "jax": "1.0", "task": "san", "dtype": "float32", "batch": 32}
    report |= {"height": 128, "width": 64, "threads": 2}
    report["seconds"] = {"alone": 0.2, "device": 0.201, "host": 0.21, "stream": 0.4}
    page = table.with_loop(f"Top {table.LOOP} old {table.END} end", [report])
    ours = ["200.0", "201.0 (1.00)", "210.0 (1.05)", "400.0 (2.00)"]
    assert cells(page) == ["Chip", "2026-11-28", "1.0", "san", "float32", "32 of 128 x 64", "2", *ours]
    assert page.endswith(f"{table.END} end")
    assert " old " not in page


def test_page_holds_the_loop_table_of_the_stored_reports():
    page = table.PAGE.read_text()
    assert table.with_loop(page, table.read_reports(table.RESULTS / "loop")) == page


@pytest.mark.parametrize("module", [san, baseline, san_pg])
def test_stored_configs_are_those_of_the_configs_folder(module):
    path = loop.CONFIGS / f"{module.__name__.rpartition('.')[2]}.json"
    assert path.read_text() == module.get_config().to_json(indent=1) + "\n", "write it again"


def test_config_from_json_has_fields_as_attributes_and_groups_that_unpack():
    config = loop.config_of("san", {"data": {"height": 128}, "compute_dtype": "bfloat16"})
    assert (config.data.height, config.data.width, config.compute_dtype) == (128, 128, "bfloat16")
    assert dict(**config.augmentation) == {"crop": 0.5, "erase": 0.5, "mirror": 0.5}
    with pytest.raises(AttributeError, match="depht"):
        _ = config.encoder.depht


ABSENT = ("tensorflow_datasets", "grain", "ml_collections", "array_record", "tensorboardX")


@pytest.mark.slow
@pytest.mark.parametrize("stages", ["1,4", "5,7"])
def test_stages_run_where_packages_of_the_data_sets_are_missing(stages, tmp_path):
    """`--tiny`, in processes in which these packages cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
""")
    command = [sys.executable, "-m", "benchmarks.on_device", "--tiny", f"--stages={stages}"]
    command += [f"--out={tmp_path / 'out'}"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    ended = {name: part["ended"] for name, part in json.loads((tmp_path / "out" / "stages.json").read_text()).items()}
    assert ended
    assert set(ended.values()) == {"well"}, (tmp_path / "out" / "log.txt").read_text() + done.stderr
    assert len(list((tmp_path / "out").glob("*.json"))) == 1 + len(ended)  # with stages.json


def test_stage_that_fails_or_times_out_does_not_stop_the_next(tmp_path):
    parts = [
        Part(1, "fails", "-c 'raise SystemExit(3)'", 30),
        Part(2, "hangs", "-c 'import time; print(5, flush=True); time.sleep(60)'", 6),
        Part(3, "works", "-c 'print(7)'", 30),
    ]
    on_device.run(parts, out=tmp_path, minutes=1)
    ended = {name: stage["ended"] for name, stage in json.loads((tmp_path / "stages.json").read_text()).items()}
    assert ended == {"fails": "exit code 3", "hangs": "stopped after 6 s", "works": "well"}
    assert [line for line in (tmp_path / "log.txt").read_text().splitlines() if line.isdigit()] == ["5", "7"]


def test_no_stage_starts_when_no_time_is_left(tmp_path):
    on_device.run([Part(1, "late", "-c 'print(7)'", 30)], out=tmp_path, minutes=0.01)
    assert json.loads((tmp_path / "stages.json").read_text())["late"]["ended"] == "no time left"
