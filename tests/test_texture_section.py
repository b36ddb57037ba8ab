import base64
import io

import numpy as np
from array_source import ArraySource
from page_reader import Page
from PIL import Image
from report_pages import PEOPLE, page_of, people_set
from small_networks import SHAPE

from san_jax.report import texture_section


def test_true_textures_are_shown_beside_generated_ones(san_page):
    shown = [image for image in Page(san_page[0]).named("img") if image["alt"].startswith(("generated", "true"))]
    assert len(shown) == 2 * texture_section.NUM_PICTURES
    rng = np.random.default_rng(texture_section.SEED)
    row = np.sort(rng.choice(len(PEOPLE), texture_section.NUM_PICTURES, replace=False))[0]
    query = people_set().query
    drawn, true = (decoded(image) for image in shown[:2])
    assert drawn.shape == true.shape == (SHAPE.height, SHAPE.height, 3)
    colour = np.asarray(Image.open(io.BytesIO(query[int(row)]["texture"])))[0, 0]
    np.testing.assert_allclose(true.reshape(-1, 3).mean(axis=0), colour, atol=4)
    assert shown[0]["alt"] == f"generated texture of {query.names[row]}"


def decoded(image):
    data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_sets_without_textures_show_only_generated_ones(tmp_path):
    words = [image["alt"] for image in Page(page_of(tmp_path, people_set(textures=False))).named("img")]
    assert sum(alt.startswith("generated texture of") for alt in words) == texture_section.NUM_PICTURES
    assert not [alt for alt in words if alt.startswith("true texture of")]


def test_texture_generator_shows_scores_in_their_units_and_pairs(tmp_path):
    pairs = ArraySource(PEOPLE, name="test/pairs")
    scores = {"test/pairs": {"L1": 0.25, "PSNR": 20.5, "SSIM": 0.75}}
    text = page_of(tmp_path, pairs, mode="san_pg", scores=scores)
    words = Page(text).texts
    assert words[words.index("this run") + 1 :][:3] == ["0.25", "20.5", "0.75"]
    assert "Hardest queries" not in words
    alts = [image["alt"] for image in Page(text).named("img")]
    assert sum(alt.startswith("true texture of") for alt in alts) == texture_section.NUM_PICTURES
