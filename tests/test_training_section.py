import pytest
from page_reader import Page

from san_jax.report import training_section


def test_every_loss_term_has_its_chart_followed_by_scores_and_rates(san_page):
    captions = [words for words in Page(san_page[0]).texts if " at step " in words]
    assert captions == [
        "loss: id: 4 at step 20",
        "loss: texture triplets: 1 at step 20",
        "test/people: mAP, %: 25 at step 20",
        "test/people: rank-1, %: 20 at step 20",
        "rate: reid: 0.5 at step 20",
    ]


def test_run_without_events_says_so(tmp_path):
    [words] = training_section.elements(tmp_path / "events")
    assert "no curves" in words


def test_long_curve_is_averaged_and_shows_its_true_last_value():
    points = {10 * step: float(step % 2) for step in range(3 * training_section.MAX_POINTS + 1)}
    text = training_section.curve("loss: id", points)
    assert len(Page(text).named("rect")) == training_section.MAX_POINTS
    [caption] = [words for words in Page(text).texts if "at step" in words]
    assert caption == "loss: id: 0 at step 4,500; each point is the mean of up to 4"


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.5, "The reconstruction loss is 0.50 times that of the best texture that is the same for everybody."),
        (
            1.0,
            "The reconstruction loss is 1.00 times that of the best texture that is the same for everybody: "
            "the decoder has learnt nothing.",
        ),
    ],
)
def test_report_says_when_the_decoder_has_learnt_nothing(share, words):
    [found] = training_section.verdict({10: 3.0, 20: share})
    assert Page(found).texts == [words]
    assert training_section.verdict({}) == []
