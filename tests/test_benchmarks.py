import argparse
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finished_runs import made_once, shared_folder
from flax import nnx

from benchmarks import elastic, exports, loop, on_device, processes, runtimes, scoring, searching, table, variants
from benchmarks.on_device import Part
from configs import baseline, san, san_pg
from san_jax.networks import layers
from san_jax.networks.architecture import Architecture

ROOT = pathlib.Path(__file__).parent.parent
ABSENT = ("tensorflow_datasets", "grain", "ml_collections", "array_record", "tensorboardX")


def row(framework, seconds, options=(), **fields):
    same = {"task": "san", "dtype": "float32", "batch": 16, "height": 256, "width": 128, "depth": 50, "fc_dim": 512}
    same |= {"encoder_width": 1.0, "decoder_width": 1.0, "num_pids": 767, "framework": framework, "options": options}
    measured = {"seconds": seconds, "pictures_per_second": 16 / seconds, "compile_seconds": 30.0, "peak_bytes": 2.5e9}
    counted = {"flops_per_second": 1e13 / seconds} if framework == "jax" else {}
    return same | measured | counted | fields


def report(*rows):
    about = {"device": "Chip, 2 cores", "platform": "cpu", "cpu": {"instructions": ["avx2"]}, "keep_heap": True}
    return about | {"date": "2026-11-22T12:00:00", "versions": {"jax": "1.0"}, "xla_flags": "", "measurements": rows}


def cells(page):
    """The cells of the last row of the page's last table."""
    return [cell.strip() for cell in page.splitlines() if cell.startswith("|")][-1].strip("| ").split(" | ")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Folder of the reports of `on_device --tiny`, run where packages of the data sets cannot be imported."""
    return made_once(shared_folder(tmp_path_factory) / "suite", run_suite) / "results"


def run_suite(folder):
    (folder / "sitecustomize.py").write_text(f"""
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
""")
    out = folder / "out"
    command = [sys.executable, "-m", "benchmarks.on_device", "--tiny", f"--out={out}"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    ended = {name: part["ended"] for name, part in json.loads((out / "stages.json").read_text()).items()}
    assert ended
    assert set(ended.values()) == {"well"}, (out / "log.txt").read_text() + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "reports.zip", "stages.json"]
    with zipfile.ZipFile(out / "reports.zip") as reports:
        reports.extractall(folder / "results")


def only_report(folder):
    [path] = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_stage_leaves_its_reports(suite):
    names = {path.name for path in suite.glob("on_device/*/*")}
    assert names == {
        *("machine.json", "variants_san_bfloat16.json", "kernels_san_bfloat16.json", "kernels_san_bfloat16.hlo.gz"),
        *("learning.json", "learning.png"),
    }
    for path in suite.glob("on_device/*/*.json"):
        assert json.loads(path.read_text())["device"], path
    learning = json.loads(next(suite.glob("on_device/*/learning.json")).read_text())["parts"]
    assert {"san_pg", "baseline_random", "baseline_pg", "san_pg_start"} < set(learning)


@pytest.mark.slow
def test_tables_can_be_written_from_the_reports_of_the_suite(suite):
    page = f"{table.START}{table.END}{table.SCORING}{table.END}{table.LOOP}{table.END}"
    page = table.with_tables(page, table.read_reports(suite))
    page = table.with_scoring(page, table.read_reports(suite / "scoring"))
    page = table.with_loop(page, table.read_reports(suite / "loop"))
    lines = page.splitlines()
    assert [line.split(" | ")[:3] for line in lines if "bfloat16" in line] == [
        ["| baseline", "bfloat16", "8"],
        ["| features", "bfloat16", "4"],
    ]
    assert any(line.startswith("| distances, ranks, scores |") for line in lines)
    assert any("| baseline | float32 | 32 of 32 x 16 |" in line for line in lines)


@pytest.mark.slow
def test_benchmark_reports_time_memory_and_compile_time_of_every_case(suite):
    measured = only_report(suite)
    assert {"device", "platform", "cpu", "date", "keep_heap", "xla_flags"} < set(measured)
    assert {"jax", "jaxlib", "flax"} < set(measured["versions"])
    baseline, features = measured["measurements"]
    assert (baseline["task"], baseline["batch"], features["task"], features["batch"]) == ("baseline", 8, "features", 4)
    for case in (baseline, features):
        assert len(case["all_seconds"]) == 2
        assert case["seconds"] == pytest.approx(np.mean(case["all_seconds"]))
        assert case["pictures_per_second"] == pytest.approx(case["batch"] / case["seconds"])
        assert case["compile_seconds"] > case["seconds"]
        assert case["peak_bytes"] > 50e6
        assert case["flops_per_second"] > 1e6
        assert "ratio" not in case


@pytest.mark.parametrize("name", [name for name, changes in variants.VARIANTS.items() if changes])
def test_networks_can_be_traced_with_every_variant(name):
    def drawn(images):
        rngs, shape = nnx.Rngs(0), Architecture(10, 8, 1, 0.1, 4, 0.1, True, 32, 16)
        return shape.new_decoder(rngs)(shape.new_encoder(rngs)(images).stages).texture

    with variants.in_place(variants.VARIANTS[name]):
        texture = jax.eval_shape(drawn, jax.ShapeDtypeStruct((2, 32, 16, 3), jnp.float32))
    assert texture.shape == (2, 32, 32, 3)


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
def test_sides_of_the_scoring_benchmark_agree_on_the_scores(suite):
    measured = {row["side"]: row for row in only_report(suite / "scoring")["measurements"]}
    assert list(measured) == ["product", "rank", "argsort", "nearest", "tpr", "single_shot"]
    assert measured["rank"]["result"] == pytest.approx(measured["argsort"]["result"], abs=1e-6)
    assert 0.05 < measured["rank"]["result"] < 1
    for row in measured.values():
        assert len(row["all_seconds"]) == 2
        assert row["first_seconds"] > 0
        assert row["bytes_above_features"] > 0


def test_loop_with_fewer_pictures_than_a_batch_needs_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["loop", "--tiny", "--pictures=4", f"--out={tmp_path}"])
    with pytest.raises(SystemExit, match=r"^error: .*identities"):
        loop.main()
    assert not list(tmp_path.iterdir())


def test_table_compares_with_the_fastest_pytorch_case():
    rows = row("jax", 2.0), row("torch", 5.0, ratio=0.4), row("torch", 4.0, ("channels_last",), ratio=0.5)
    page = table.with_tables(f"Top {table.START} old {table.END} end", [report(*rows)])
    assert page.startswith(f"Top {table.START}\n\n### Chip, 2 cores")
    assert page.endswith(f"{table.END} end")
    assert " old " not in page
    ours, theirs = ["2.00", "8.00", "5.00", "30.0", "2.50"], ["5.00", "4.00", "channels_last", "2.50", "0.500"]
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
def test_rendering_benchmark_writes_its_rate_and_the_device(suite):
    found = only_report(suite / "rendering")
    assert (found["pictures"], found["height"], found["width"], len(found["all_seconds"])) == (24, 32, 16, 1)
    assert found["pictures_per_second"] == pytest.approx(24 / found["all_seconds"][0])
    assert found["device"]


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


def test_table_of_runtimes_has_a_line_for_every_side_and_none_before_it_is_measured():
    page = f"Top\n{table.RUNTIMES}\nold\n{table.END}\nend"
    assert "Not measured yet." in table.with_runtimes(page, [])
    ours, theirs = (row(name, seconds, network="small") for name, seconds in (("jax", 0.4), ("openvino", 0.1)))
    rows = [ours, theirs | {"options": ("parts",), "dtype": "int8", "ratio": 4.0}]
    page = table.with_runtimes(page, [report(*rows)])
    assert cells(page) == ["small", "openvino", "parts", "int8", "0.100", "160", "2.50", "4.00"]
    assert "| small | san_jax | - | float32 | 0.400 | 40.0 | 2.50 | - |" in page
    assert "Chip, 2 cores, 2026-11-22; jax 1.0; 16 pictures:" in page
    assert "old" not in page


def test_page_holds_the_tables_of_the_stored_reports_of_runtimes_and_exports():
    page = table.PAGE.read_text()
    assert table.with_runtimes(page, table.read_reports(table.RESULTS / "runtimes")) == page
    page, measured = exports.PAGE.read_text(), ROOT / "docs" / "measured" / "exports.json"
    assert table.replaced(page, exports.START, exports.table_of(json.loads(measured.read_text()))) == page


@pytest.mark.slow
def test_runtimes_compute_the_same_features_from_the_same_pictures(tmp_path, monkeypatch):
    words = ["--networks=tiny", "--pictures=12", "--rounds=1", "--repeats=1", "--warmup=1", "--torch="]
    monkeypatch.setattr(sys, "argv", ["runtimes", *words, f"--out={tmp_path}"])
    assert runtimes.main() == 0
    rows = {(one["framework"], one["dtype"], *one["options"]): one for one in only_report(tmp_path)["measurements"]}
    ours = rows["jax", "float32"]["loss"]
    for side in (("onnxruntime", "float32"), ("onnxruntime", "float32", "parts")):
        assert rows[side]["loss"] == pytest.approx(ours, rel=1e-4)
        assert rows[side]["ratio"] == pytest.approx(rows["jax", "float32"]["seconds"] / rows[side]["seconds"])
    assert rows["onnxruntime", "int8", "parts"]["loss"] == pytest.approx(ours, rel=0.5)


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


def test_stage_that_fails_or_times_out_does_not_stop_the_next(tmp_path):
    parts = [
        Part(1, "fails", "-c 'raise SystemExit(3)'", 30),
        Part(2, "hangs", "-c 'import time; print(5, flush=True); time.sleep(60)'", 6),
        Part(3, "works", "-c 'print(7)'", 30),
    ]
    out, reports = tmp_path / "out", tmp_path / "reports"
    reports.mkdir()
    (reports / "some.json").write_text("{}")
    on_device.run(parts, reports, out, minutes=1)
    ended = {name: stage["ended"] for name, stage in json.loads((out / "stages.json").read_text()).items()}
    assert ended == {"fails": "exit code 3", "hangs": "stopped after 6 s", "works": "well"}
    assert [line for line in (out / "log.txt").read_text().splitlines() if line.isdigit()] == ["5", "7"]
    assert zipfile.ZipFile(out / "reports.zip").namelist() == ["some.json"]


def test_stages_are_numbers_and_ranges_of_those_that_exist():
    assert on_device.stages("1,3") == {1, 3}
    assert on_device.stages("1-3,7") == {1, 2, 3, 7}
    for text in ("", "0", "8", "6-8", "3-1", "one"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"1-7|stages 1 to 7"):
            on_device.stages(text)


def test_no_stage_starts_when_no_time_is_left(tmp_path):
    on_device.run([Part(1, "late", "-c 'print(7)'", 30)], tmp_path / "none", tmp_path, minutes=0.01)
    assert json.loads((tmp_path / "stages.json").read_text())["late"]["ended"] == "no time left"


def test_elastic_compares_each_resumed_run_with_the_unbroken_one_of_its_seed():
    unbroken = [{"rank1": 0.5, "mAP": 0.4}, {"rank1": 0.6, "mAP": 0.2}]
    resumed = [{"rank1": 0.5, "mAP": 0.5}, {"rank1": 0.5, "mAP": 0.2}]
    unbroken.append({"rank1": 0.7, "mAP": 0.3})  # of a seed that was not resumed
    found = elastic.compared({elastic.UNBROKEN: unbroken, "8, resumed on 1": resumed})
    assert found["largest_difference"] == {"8, resumed on 1": pytest.approx({"rank1": 0.1, "mAP": 0.1})}
    assert found["spread_over_seeds"]["mAP"] == pytest.approx({"deviation": 0.1, "range": 0.2})
    assert found["means"]["8, resumed on 1"] == pytest.approx({"rank1": 0.5, "mAP": 0.35})


def test_processes_draw_the_features_of_their_parts_as_one_draws_all(monkeypatch):
    monkeypatch.setattr(processes, "BLOCK", 64)
    size, options = scoring.SIZES["tiny"], {"of_people": 150, "seed": 2}
    whole, pids = processes.some_features(size, slice(0, 200), **options)
    assert len(np.unique(whole[:, 0])) == 200
    assert set(pids[:150]) == set(range(size.people))
    assert set(pids[150:]) == {-1}
    for rows in (slice(0, 50), slice(50, 130), slice(190, 200), slice(150, 208)):
        part, of_part = processes.some_features(size, rows, **options)
        np.testing.assert_array_equal(part[: 200 - rows.start], whole[rows])
        np.testing.assert_array_equal(of_part[: 200 - rows.start], pids[rows])


def test_table_of_processes_names_what_each_holds():
    row = {"side": "rank", "size": "tiny", "holds": "split", "processes": 2, "queries": 30, "gallery": 200}
    row |= {"bytes_above_start": [4e8, 5e8], "bytes_of_features": [2e8, 2e8], "seconds": 1.0, "result": 0.5}
    about = {"device": "Chip, 2 cores", "date": "2026-11-29T12:00:00", "jax": "1.0", "dim": 512}
    page = table.with_processes(f"a\n{table.PROCESSES}outdated{table.END}\nb", [about | {"measurements": [row]}])
    assert cells(page)[3:] == ["distances, ranks, scores", "200", "512", "30", "split", "2", "0.20", "0.40, 0.50"]
    assert "outdated" not in page


def test_search_finds_the_rows_that_queries_are_made_from(tmp_path):
    path = tmp_path / "feats.npy"
    searching.make_features(path, 3000, "float16")
    feats = np.load(path, mmap_mode="r")
    queries = searching.make_queries(feats, 20)
    rows = np.sort(np.random.default_rng(10**9).integers(0, 3000, 20))
    search, _ = searching.ours(feats)
    np.testing.assert_array_equal(search(queries)[:, 0], rows)
    assert feats.dtype == np.float16


def test_summary_of_searches_has_medians_ratios_and_agreement(tmp_path):
    for side, rows in {"san_jax": [[1, 2], [3, 4]], "faiss": [[1, 2], [4, 3]]}.items():
        np.save(tmp_path / f"found_{side}.npy", np.array(rows))
    ours, theirs = [{"seconds": {"1": [0.1, 0.3]}}, {"seconds": {"1": [0.2]}}], [{"seconds": {"1": [0.8]}}]
    parts = {"san_jax": ours, "faiss": theirs}
    found = searching.summary(parts, argparse.Namespace(folder=tmp_path, queries=[1]))
    assert found["seconds"] == {"san_jax": {1: 0.2}, "faiss": {1: 0.8}}
    assert (found["san_jax_over_faiss"], found["same_rows"]) == ({1: 0.25}, 0.5)


def test_table_of_searches_has_a_line_for_each_number_of_queries():
    parts = {side: [{"anonymous_bytes": 3e8}, {"anonymous_bytes": 4e8}] for side in ("san_jax", "faiss")}
    seconds = {"san_jax": {"1": 0.02, "16": 0.1}, "faiss": {"1": 0.04, "16": 0.5}}
    about = {"device": "Chip", "date": "2026-11-29T10:00", "rows": 2_500_000, "dtype": "float32", "seconds": seconds}
    about |= {"san_jax_over_faiss": {"1": 0.5, "16": 0.2}, "processes": parts}
    page = table.with_searching(f"a\n{table.SEARCHING}outdated{table.END}\nb", [about])
    assert cells(page) == ["Chip", "2026-11-29", "2,500,000", "float32", "16", "0.100", "0.500", "0.20", "0.40", "0.40"]


@pytest.mark.parametrize("words", [["faults", "kills"], ["elastic"], ["processes"]])
def test_folder_that_cannot_be_created_is_one_line(words, tmp_path):
    (tmp_path / "file").touch()
    name, *others = words
    command = [sys.executable, "-m", f"benchmarks.{name}", *others, f"--out={tmp_path / 'file' / 'out'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    wanted = f"error: argument --out: {tmp_path / 'file' / 'out'} cannot be created (Not a directory); give another"
    assert done.stderr.splitlines()[-1].endswith(wanted)
