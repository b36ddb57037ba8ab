import base64
import functools
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_source import ArraySource
from cuhk03_release import write_release
from flax import nnx
from PIL import Image
from test_html_page import Page
from test_train_step import SHAPE

from configs import base
from san_jax import devices
from san_jax.scoring import evaluation, report
from san_jax.scoring.evaluation import TestSet
from san_jax.scoring.feature_extraction import Extractor
from san_jax.training.progress import Progress
from san_jax.training.train_step import arrays_of

ROOT = Path(__file__).parent.parent
PEOPLE = np.arange(12)


def people_set(name="test/people", textures=True):
    """Twelve people, each once in the query and four times in the gallery, under two cameras."""
    query, gallery = PEOPLE, np.repeat(PEOPLE, 4)
    return TestSet(name, *(ArraySource(pids, name=name, textures=textures) for pids in (query, gallery)))


@functools.cache
def networks(draws):
    encoder, encoder_stats = arrays_of(SHAPE.new_encoder(nnx.Rngs(params=jax.random.key(0, impl="rbg"))))
    weights = {"encoder": encoder, "encoder_stats": encoder_stats}
    if draws:
        decoder, decoder_stats = arrays_of(SHAPE.new_decoder(nnx.Rngs(params=jax.random.key(1, impl="rbg"))))
        weights |= {"decoder": decoder, "decoder_stats": decoder_stats}
    return weights


def config_of(mode, metric="market1501"):
    config = base.get_config("small")
    config.mode, config.data.workers, config.scoring.batch_size, config.scoring.metric = mode, 0, 16, metric
    return config


def scores_of(sets, metric):
    weights, extractor = networks(False), Extractor(SHAPE, devices.make_mesh(), batch_size=16, workers=0)
    return evaluation.evaluate(
        weights["encoder"], weights["encoder_stats"], sets, extractor=extractor, metric=metric
    )


def page_of(workdir, *sets, mode="san", scores=None, metric="market1501"):
    return report.page(
        config_of(mode, metric),
        networks(mode != "baseline"),
        architecture=SHAPE,
        workdir=workdir,
        checkpoint=workdir / "checkpoints" / "7",
        step=1234,
        sets=sets,
        scores=scores or scores_of(sets, metric),
        mesh=devices.make_mesh(),
    )


def log(workdir, steps=25):
    rates = {"reid": 0.5}
    with Progress(workdir / "events", start=0, total=steps, batch_size=8, rates=lambda step: rates) as progress:
        for step in range(steps):
            progress.show(step, {"id": jnp.float32(8 - step / 5), "texture_triplets": jnp.float32(1)})
        progress.settle()
        for step in (10, 20):
            progress.add_scores(step, {"test/people": {"rank1": step / 100, "rank5": 0.5, "mAP": 0.25}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page of a SAN run on one test set, and its scores."""
    workdir = tmp_path_factory.mktemp("run")
    log(workdir)
    scores = scores_of([people_set()], "market1501")
    return page_of(workdir, people_set(), scores=scores), scores


def titles(text, kind="title"):
    """What a browser shows where one points."""
    return [words for words in Page(text).texts if words.startswith(kind)]


def table_rows(text):
    """Rows of the first table of scores by their names, as text."""
    [body] = re.findall(r"Scores in percent.*?<tbody>(.*?)</tbody>", text, re.S)[:1]
    return {name: re.findall(r"<td>(.*?)</td>", row) for name, row in re.findall(r'row">(.*?)</th>(.*?)</tr>', body)}


def test_page_needs_no_other_file_and_no_network(whole):
    page = Page(whole[0])  # parses, and every element closes
    assert "://" not in whole[0]
    assert not page.named("script")
    assert not page.named("link")
    links = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert len(whole[0]) < 1e6


def test_scores_are_those_of_scores_json_with_references_below(whole):
    rows = table_rows(whole[0])
    assert list(rows) == ["this run", "colour histogram", "chance"]
    assert rows["this run"] == [f"{100 * value:.2f}" for value in whole[1]["test/people"].values()]
    assert rows["chance"][0] == f"{100 * 2 / 46:.2f}"


@pytest.mark.parametrize("metric", evaluation.METRICS)
def test_curve_goes_through_the_scores(tmp_path, metric):
    scores = scores_of([people_set()], metric)["test/people"]
    text = page_of(tmp_path, people_set(), mode="baseline", metric=metric)
    ranks = titles(text, "rank ")
    assert len(ranks) == 50
    for rank in evaluation.SHOWN_RANKS:
        assert f"this run: {100 * scores[f'rank{rank}']:.4g}\n" in ranks[rank - 1]
    assert report.METRICS[metric] in "".join(Page(text).texts)


def test_checkpoint_step_and_config_are_named(whole):
    words = Page(whole[0]).texts
    assert "1,234" in words
    assert any(word.endswith("checkpoints/7") for word in words)
    assert words[words.index("reid.learning_rate") + 1] == "0.001"


def test_right_pictures_are_marked_right_and_wrong_ones_wrong(whole):
    page = Page(whole[0])
    framed = [found["class"].split()[1] for found in page.named("li") if found.get("class", "").startswith("framed")]
    found = [image["alt"] for image in page.named("img") if re.match(r"\d+: ", image["alt"])]
    asked = [image["alt"] for image in page.named("img") if image["alt"].startswith("query ")]
    assert len(asked) == 2 * report.NUM_QUERIES
    assert len(found) == len(framed) == report.NUM_FOUND * len(asked)
    pids = [int(re.search(r"person (\d+)", alt)[1]) for alt in found]
    expected = np.repeat([int(re.search(r"person (\d+)", alt)[1]) for alt in asked], report.NUM_FOUND)
    assert framed == ["right" if right else "wrong" for right in pids == expected]
    assert len(set(framed)) == 2
    assert all(kind in alt for kind, alt in zip(framed, found, strict=True))


def test_pictures_by_the_query_s_own_camera_of_its_person_are_not_shown(whole):
    for image in Page(whole[0]).named("img"):
        if image["alt"].startswith("query "):
            asked = re.search(r"person \d+, camera \d+", image["alt"])[0]
        elif "right" in image["alt"]:
            assert not image["alt"].endswith(asked)


def test_true_textures_stand_beside_drawn_ones(whole):
    shown = [image for image in Page(whole[0]).named("img") if image["alt"].startswith(("drawn of", "true of"))]
    assert len(shown) == 2 * report.NUM_TEXTURES
    row = np.sort(np.random.default_rng(report.SEED).choice(len(PEOPLE), report.NUM_TEXTURES, replace=False))[0]
    query = people_set().query
    drawn, true = (decoded(image) for image in shown[:2])
    assert drawn.shape == true.shape == (SHAPE.height, SHAPE.height, 3)
    colour = np.asarray(Image.open(io.BytesIO(query[int(row)]["texture"])))[0, 0]
    np.testing.assert_allclose(true.reshape(-1, 3).mean(axis=0), colour, atol=4)
    assert shown[0]["alt"] == f"drawn of {query.names[row]}"


def decoded(image):
    data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_sets_without_textures_show_what_is_drawn_alone(tmp_path):
    words = [image["alt"] for image in Page(page_of(tmp_path, people_set(textures=False))).named("img")]
    assert sum(alt.startswith("drawn of") for alt in words) == report.NUM_TEXTURES
    assert not [alt for alt in words if alt.startswith("true of")]


def test_baseline_draws_nothing_and_every_test_set_has_its_section(tmp_path):
    sets = [people_set("test/one"), people_set("test/<b>two</b>")]
    text = page_of(tmp_path, *sets, mode="baseline")
    assert "Textures" not in Page(text).texts
    assert [Page(text).texts.count(one.name) for one in sets] == [1, 1]
    assert "<b>" not in text
    assert text.count("Hardest queries") == 2


def test_names_are_escaped(tmp_path):
    test = people_set()
    test.query.names = [f"<i>{name}</i>&" for name in test.query.names]
    text = page_of(tmp_path, test)
    assert "<i>" not in text
    assert any(words.startswith("<i>") for words in Page(text).texts)


def test_texture_generator_shows_scores_in_their_units_and_pairs(tmp_path):
    pairs = ArraySource(PEOPLE, name="test/pairs")
    scores = {"test/pairs": {"L1": 0.25, "PSNR": 20.5, "SSIM": 0.75}}
    text = page_of(tmp_path, pairs, mode="san_pg", scores=scores)
    words = Page(text).texts
    assert words[words.index("this run") + 1 :][:3] == ["0.25", "20.5", "0.75"]
    assert "Hardest queries" not in words
    assert sum(image["alt"].startswith("true of") for image in Page(text).named("img")) == report.NUM_TEXTURES


def test_every_loss_term_has_its_chart_and_scores_and_rates_follow(whole):
    captions = [words for words in Page(whole[0]).texts if " at step " in words]
    assert captions == [
        "loss: id: 4 at step 20",
        "loss: texture triplets: 1 at step 20",
        "test/people: mAP, %: 25 at step 20",
        "test/people: rank-1, %: 20 at step 20",
        "rate: reid: 0.5 at step 20",
    ]


def test_run_without_events_says_so(tmp_path):
    [words] = report.of_training(tmp_path / "events")
    assert "no curves" in words


def test_long_curve_is_averaged_and_says_where_it_really_ends():
    points = {10 * step: float(step % 2) for step in range(3 * report.MAX_POINTS + 1)}
    text = report.curve("loss: id", points)
    assert len(Page(text).named("rect")) == report.MAX_POINTS
    [caption] = [words for words in Page(text).texts if "at step" in words]
    assert caption == "loss: id: 0 at step 4,500; each point is the mean of up to 4"


def test_hardest_and_easiest_are_by_average_precision_one_a_person():
    pids = np.repeat(np.arange(12), 2)
    ranks = np.arange(1, 25)[:, None]  # query 0 is the easiest, 23 the hardest
    hardest, easiest = report.hardest_and_easiest(ranks, pids)
    assert hardest == [23, 21, 19, 17, 15]
    assert easiest == [0, 2, 4, 6, 8]


def test_query_is_in_one_list_alone_and_without_a_right_picture_in_none():
    ranks = np.array([[3, 0], [0, 0], [1, 2], [1, 0]])
    hardest, easiest = report.hardest_and_easiest(ranks, np.arange(4))
    assert hardest[0] == 0
    assert sorted(hardest + easiest) == [0, 2, 3]


def test_equally_hard_queries_are_chosen_by_the_seed():
    ranks = np.ones((100, 1), int)
    found = report.hardest_and_easiest(ranks, np.arange(100))
    assert found == report.hardest_and_easiest(ranks, np.arange(100))
    assert found[0] != list(range(5))


@pytest.mark.slow
def test_eval_writes_the_page_with_the_scores_beside_it(tmp_path):
    write_release(tmp_path / "release")
    fields = {
        "data.train": "cuhk03/labeled_texture",
        "data.manual_dir": tmp_path / "release",
        "data.data_dir": tmp_path / "prepared",
        "data.height": 32,
        "data.width": 16,
        "data.workers": 1,
        "encoder.depth": 10,
        "encoder.width": 0.125,
        "encoder.fc_dim": 16,
        "decoder.width": 0.05,
        "batch.identities": 4,
        "batch.instances": 2,
        "schedule.epochs": 1,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    workdir = tmp_path / "run"
    start("train.py", "--config=configs/san.py:small", f"--workdir={workdir}", *overrides)
    start("eval.py", "--report", f"--workdir={workdir}", "--metric=cuhk03")
    page = (workdir / "report.html").read_text()
    assert "Textures" in Page(page).texts
    scores = json.loads((workdir / "scores.json").read_text())
    assert table_rows(page)["this run"][0] == f"{100 * scores['rank1']:.2f}"


def start(*arguments):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
