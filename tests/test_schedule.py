import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import config_of

from configs import baseline, san, san_pg
from san_jax.data.identity_sampler import Plan
from san_jax.training import schedule


def test_default_schedule_is_that_of_the_paper_on_cuhk03():
    """20 warm-up and 300 main epochs; the rate is 8e-4 at step 0 of the main phase and half of it after epoch 40."""
    config = san.get_config()
    plan = Plan(np.zeros((320 * 93, 64), np.int32), 93 * np.arange(321))
    phases = schedule.Phases.of(config, plan)
    rates, *_ = schedule.make_optimizers(config, phases)
    assert plan.num_steps == 29_760
    assert phases.warmup == 20 * 93
    expected = {0: 8e-6, 93: 8e-6 * 1.259, 1859: 8e-6 * 1.259**19, 1860: 8e-4, 1860 + 40 * 93 - 1: 8e-4}
    expected |= {1860 + 40 * 93: 4e-4, 1860 + 280 * 93: 8e-4 / 2**7, 29_759: 8e-4 / 2**7}
    np.testing.assert_allclose([rates["reid"](step) for step in expected], list(expected.values()), rtol=1e-5)
    assert {float(rates["recon"](step)) for step in expected} == {float(np.float32(1e-5))}


def test_only_the_rates_of_a_modes_own_optimizers_are_given():
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    fields = {"schedule.warmup_epochs": 1, "schedule.epochs": 3, "recon.milestones": (1,), "recon.gamma": 0.5}
    fields |= {"recon.decay": "milestones", "recon.warmup_steps": 0, "recon.decoder_learning_rate": None}
    for module, names in ((san, {"reid", "recon"}), (baseline, {"reid"}), (san_pg, {"recon"})):
        config = config_of(module, **fields)
        rates, *_ = schedule.make_optimizers(config, schedule.Phases.of(config, plan))
        assert rates.keys() == names
        if "recon" in rates:
            assert [rates["recon"](step) / config.recon.learning_rate for step in (14, 15)] == [1, 0.5]


def test_milestones_are_first_steps_of_epochs_of_varying_length():
    config = config_of(**{"schedule.warmup_epochs": 1, "schedule.epochs": 3, "reid.milestones": (1, 2, 9)})
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    phases = schedule.Phases.of(config, plan)
    assert (phases.warmup, phases.milestones) == (7, (8, 18))


def test_run_is_scored_every_n_epochs_and_at_the_end():
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    assert schedule.score_at(plan, 2) == {15, 31}
    assert schedule.score_at(plan, 3) == {25, 31}
    assert schedule.score_at(plan, 50) == {31}


def test_zero_turns_scoring_off():
    plan = Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    assert schedule.score_at(plan, 0) == frozenset()


@pytest.mark.parametrize(("encoder", "decoder"), [(1e-4, 1e-3), (1e-3, 1e-4), (0.0, 1e-3), (1e-3, 0.0), (1e-4, None)])
def test_decoder_has_a_learning_rate_of_its_own(encoder, decoder):
    """The first step of Adam is as long as the rate, whatever the gradient; after the milestone a half of it."""
    fields = {"recon.learning_rate": encoder, "recon.decoder_learning_rate": decoder}
    fields |= {"schedule.warmup_epochs": 0, "schedule.epochs": 4, "recon.milestones": (1,), "recon.gamma": 0.5}
    config, plan = config_of(san, **fields), Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    rates, _, tx = schedule.make_optimizers(config, schedule.Phases.of(config, plan))
    params = {"stem": jnp.ones(3), "decoder": {"final": jnp.ones(2)}}
    updates, _ = tx.update(jax.tree.map(lambda x: -0.3 * x, params), tx.init(params), params)
    own = encoder if decoder is None else decoder
    np.testing.assert_allclose(updates["stem"], encoder, rtol=1e-5)
    np.testing.assert_allclose(updates["decoder"]["final"], own, rtol=1e-5)
    np.testing.assert_allclose([rates["recon"](step) for step in (6, 7)], [encoder, encoder / 2], rtol=1e-6)
    assert ("recon_decoder" in rates) == (decoder is not None)
    if decoder is not None:
        np.testing.assert_allclose([rates["recon_decoder"](step) for step in (6, 7)], [own, own / 2], rtol=1e-6)


def test_texture_rates_rise_in_a_line_and_fall_along_half_a_cosine_to_the_end_of_the_run():
    fields = {"recon.learning_rate": 2e-3, "recon.decoder_learning_rate": 4e-3, "recon.milestones": (1,)}
    fields |= {"recon.warmup_steps": 4, "recon.decay": "cosine", "schedule.warmup_epochs": 0, "schedule.epochs": 4}
    config, plan = config_of(san_pg, **fields), Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    rates, *_ = schedule.make_optimizers(config, schedule.Phases.of(config, plan))
    for step, share in ((0, 0.25), (3, 1.0), (4, 1.0), (20, 1.0), (30, 1.0), (31, 1.0)):
        expected = share * (1 + np.cos(np.pi * step / 31)) / 2
        np.testing.assert_allclose(rates["recon"](step), 2e-3 * expected, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(rates["recon_decoder"](step), 4e-3 * expected, rtol=1e-5, atol=1e-9)


def test_texture_rates_rise_before_their_milestones_too():
    fields = {"recon.learning_rate": 1e-3, "recon.milestones": (1,), "recon.gamma": 0.5, "recon.warmup_steps": 10}
    fields |= {"recon.decay": "milestones", "schedule.warmup_epochs": 0, "schedule.epochs": 4}
    config, plan = config_of(san_pg, **fields), Plan(np.zeros((31, 16), np.int32), np.array([0, 7, 15, 25, 31]))
    rates, *_ = schedule.make_optimizers(config, schedule.Phases.of(config, plan))
    found = [rates["recon"](step) for step in (0, 6, 7, 9, 20)]
    np.testing.assert_allclose(found, [1e-4, 7e-4, 4e-4, 5e-4, 5e-4], rtol=1e-5)
