import json
import shutil

import commands
import pytest
from page_reader import Page
from report_pages import page_of, people_set, table_rows


def test_page_needs_no_other_file_and_no_network_access(san_page):
    page = Page(san_page[0])  # parses, and every element closes
    assert "://" not in san_page[0]
    assert not page.named("script")
    assert not page.named("link")
    links = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert len(san_page[0]) < 1e6


def test_page_shows_checkpoint_step_and_config(san_page):
    words = Page(san_page[0]).texts
    assert "1,234" in words
    assert any(word.endswith("checkpoints/7") for word in words)
    assert words[words.index("reid.learning_rate") + 1] == "0.001"


def test_baseline_has_no_texture_section_and_every_test_set_has_its_section(tmp_path):
    sets = [people_set("test/one"), people_set("test/<b>two</b>")]
    text = page_of(tmp_path, *sets, mode="baseline")
    assert "Textures" not in Page(text).texts
    assert [Page(text).texts.count(one.name) for one in sets] == [1, 1]
    assert "<b>" not in text
    assert text.count("Hardest queries") == 2


def test_names_are_escaped_in_html(tmp_path):
    test = people_set()
    test.query.names = [f"<i>{name}</i>&" for name in test.query.names]
    text = page_of(tmp_path, test)
    assert "<i>" not in text
    assert any(words.startswith("<i>") for words in Page(text).texts)


@pytest.mark.slow
def test_eval_writes_the_page_with_the_scores_beside_it(finished, tmp_path):
    workdir = shutil.copytree(finished("san")[0], tmp_path / "run")
    status, _, errors = commands.run("eval.py", "--report", f"--workdir={workdir}", "--metric=cuhk03")
    assert status == 0, errors
    page = (workdir / "report.html").read_text()
    assert "Textures" in Page(page).texts
    scores = json.loads((workdir / "scores.json").read_text())
    assert scores["recon_over_constant"] > 0
    assert "that of the best texture that is the same for everybody" in page
    assert table_rows(page)["this run"][0] == f"{100 * scores['rank1']:.2f}"
