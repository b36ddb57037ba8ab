"""The schedule of a run: its phases in steps, the optimizers and their rates, and when it is scored."""

import dataclasses
from collections.abc import Sequence

import optax

from san_jax.data.identity_sampler import Plan
from san_jax.training import optimizers
from san_jax.training.run_config import Config

DECAYS = ("milestones", "cosine")  # of the texture losses' rates


@dataclasses.dataclass(frozen=True)
class Phases:
    """The phases of a schedule in steps; the plan determines where epochs start.

    Attributes:
      fixbase: number of steps in which only some layers are trained.
      warmup: number of steps of the warm-up.
      warmup_starts: first step of each of its epochs, counted from the start of the warm-up; (0,) without a warm-up.
      milestones: steps at which the re-ID rate changes, counted from the start of the main phase.
      recon_milestones: steps at which the texture losses' rate changes, counted from the end of `fixbase`.
      drawing: number of steps from the end of `fixbase` to the end of the run.
    """

    fixbase: int
    warmup: int
    warmup_starts: tuple[int, ...]
    milestones: tuple[int, ...]
    recon_milestones: tuple[int, ...]
    drawing: int

    @classmethod
    def of(cls, config: Config, plan: Plan) -> "Phases":
        """Converts the config's epochs to steps of the plan."""
        schedule, starts = config.schedule, plan.epoch_starts
        warmup, main = schedule.fixbase_epoch, schedule.fixbase_epoch + schedule.warmup_epochs

        def in_steps(milestones: Sequence[int], *, first: int) -> tuple[int, ...]:
            reached = [main + epoch for epoch in milestones if main + epoch < len(starts)]
            return tuple(int(starts[epoch] - starts[first]) for epoch in reached)

        return cls(
            fixbase=int(starts[warmup]),
            warmup=int(starts[main] - starts[warmup]),
            warmup_starts=tuple(int(start - starts[warmup]) for start in starts[warmup : max(main, warmup + 1)]),
            milestones=in_steps(config.reid.milestones, first=main),
            recon_milestones=in_steps(config.recon.milestones, first=warmup),
            drawing=int(plan.num_steps - starts[warmup]),
        )


def make_optimizers(
    config: Config, phases: Phases
) -> tuple[dict[str, optax.Schedule], optax.GradientTransformation, optax.GradientTransformation]:
    """Learning rates of the mode's optimizers by step, the re-ID optimizer, and that of the texture losses."""
    reid, recon, schedule = config.reid, config.recon, config.schedule
    decoder_rate = recon.learning_rate if recon.decoder_learning_rate is None else recon.decoder_learning_rate
    faster = max(decoder_rate, recon.learning_rate)

    def main(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        return optimizers.make_optimizer(
            reid.optimizer,
            rate,
            weight_decay=reid.weight_decay,
            b1=reid.b1,
            b2=reid.b2,
            momentum=reid.momentum,
            nesterov=reid.nesterov,
        )

    def texture(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        """The optimizer at `rate`, which is that of the faster of decoder and encoder."""
        tx = optimizers.make_optimizer(recon.optimizer, rate, b1=recon.b1, b2=recon.b2)
        if decoder_rate == recon.learning_rate:
            return tx
        return optimizers.scaled(tx, lambda name: (decoder_rate if name == "decoder" else recon.learning_rate) / faster)

    def falling(rate: float) -> optax.Schedule:
        if recon.decay == "cosine":
            fall = optax.cosine_decay_schedule(rate, max(1, phases.drawing))
        else:
            fall = optimizers.multistep(rate, phases.recon_milestones, recon.gamma)
        return optimizers.rising(fall, recon.warmup_steps)

    warmup_rate = optimizers.exponential_by_epoch(schedule.warmup_rate, schedule.warmup_growth, phases.warmup_starts)
    main_rate = optimizers.multistep(reid.learning_rate, phases.milestones, reid.gamma)
    warmup = optimizers.make_optimizer("adam", warmup_rate, weight_decay=reid.weight_decay, b1=reid.b1, b2=reid.b2)
    recon_rate, drawing_rate, texture_rate = (falling(rate) for rate in (recon.learning_rate, decoder_rate, faster))
    open_layers = tuple(schedule.open_layers)
    reid_tx = optimizers.in_phases(
        [
            (phases.fixbase, optimizers.frozen_except(main(reid.learning_rate), open_layers)),
            (phases.warmup, warmup),
            (None, main(main_rate)),
        ]
    )
    recon_tx = optimizers.in_phases(
        [
            (phases.fixbase, optimizers.frozen_except(texture(faster), (*open_layers, "decoder"))),
            (None, texture(texture_rate)),
        ]
    )
    boundaries = [phases.fixbase, phases.fixbase + phases.warmup]
    rates = {
        "reid": optax.join_schedules([lambda _: reid.learning_rate, warmup_rate, main_rate], boundaries),
        "recon": optax.join_schedules([lambda _: recon.learning_rate, recon_rate], boundaries[:1]),
    }
    if decoder_rate != recon.learning_rate:
        rates["recon_decoder"] = optax.join_schedules([lambda _: decoder_rate, drawing_rate], boundaries[:1])
    idle = {"baseline": ("recon", "recon_decoder"), "san_pg": ("reid",)}.get(config.mode, ())
    return {name: rate for name, rate in rates.items() if name not in idle}, reid_tx, recon_tx


def score_at(plan: Plan, eval_every: int) -> frozenset[int]:
    """Steps after which a run is scored: at the end of every `eval_every`th epoch and of the run; none if it is 0."""
    if not eval_every:
        return frozenset()
    return frozenset(map(int, plan.epoch_starts[eval_every::eval_every])) | {plan.num_steps}
