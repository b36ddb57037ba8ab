"""How a config becomes a run: networks, batches, phases of the schedule, optimizers, scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from san_jax import devices
from san_jax.batch import Batch, Source
from san_jax.data import augmentation, identity_sampler, input_pipeline
from san_jax.data.identity_sampler import Plan
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture, check_same
from san_jax.scoring import evaluation, texture_scores
from san_jax.scoring.feature_extraction import Extractor
from san_jax.scoring.texture_scores import Painter, Weights
from san_jax.training import checkpoints, optimizers, resuming, starting_weights, train_step
from san_jax.training.checkpoints import BestBy
from san_jax.training.train_step import Networks, TrainState

HASTE = {"xla_backend_optimization_level": 1}  # of what runs once: compiled in 0.4 of the time, the same bits
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


class Scored(NamedTuple):
    """Scores by test set and name, and a sheet of pictures uint8 [H W 3] where textures are scored."""

    scores: dict[str, dict[str, float]]
    sheet: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How a run's networks are scored.

    Attributes:
      score: by their weights, fields of a TrainState.
      metric: its name.
      units: of the table, in words.
      as_table: the scores for people.
      best_by: which of two states is the better one.
    """

    score: Callable[[Weights], Scored]
    metric: str
    units: str
    as_table: Callable[[Mapping[str, Mapping[str, float]]], str]
    best_by: BestBy


@dataclasses.dataclass(frozen=True)
class Run:
    """All parts of a run, ready to go.

    Attributes:
      workdir: holds everything that the run leaves behind.
      config: its fields, which stand in the workdir once the run has begun.
      networks: what is trained.
      state: abstract TrainState with the shardings to restore it in.
      make_state: a fresh one.
      batches: batches on the devices, from a step on.
      step_of: the jitted train step that holds at a step.
      rates: learning rates at a step, for the eye.
      total: steps in all.
      batch_size: pictures a step.
      score_at: steps after which the run is scored.
      save_every: steps between checkpoints.
      scoring: how.
      notes: what its user should know before it starts, a line each.
    """

    workdir: Path
    config: ConfigDict
    networks: Networks
    state: TrainState
    make_state: Callable[[], TrainState]
    batches: Callable[[int], Iterator[Batch]]
    step_of: Callable[[int], Step]
    rates: Callable[[int], Mapping[str, float]]
    total: int
    batch_size: int
    score_at: frozenset[int]
    save_every: int
    scoring: Scoring
    notes: tuple[str, ...]


def build(
    config: ConfigDict,
    workdir: Path,
    *,
    source: Source,
    pairs: Source | None = None,
    test_sets: Sequence[evaluation.TestSet] | Sequence[Source],
    mesh: Mesh,
) -> Run:
    """A run from its config and data; nothing is written.

    Args:
      config: see configs/base.py.
      workdir: of the run.
      source: the training set.
      pairs: of picture and texture, of which `batch.pit_pictures` go into every batch.
      test_sets: what is scored; held-out pairs in mode san_pg.
      mesh: all devices.

    Raises:
      UserError: a field that does not fit the data, the devices, another field or the workdir's checkpoint; names it.
    """
    resumed = resuming.newest_of_all(workdir)
    resuming.check_config(config, workdir)
    architecture = architecture_of(config, num_pids=len(np.unique(source.pids)))
    networks = Networks(config.mode, architecture, config.compute_dtype)
    architecture.check(draws=networks.draws)
    if resumed is not None:
        check_same(checkpoints.read_architecture(resumed), architecture, where=str(resumed))
    evaluation.check_metric(config.scoring.metric)
    if networks.draws and not source.has_textures:
        raise UserError(f"data.train is {source.name}, which has no textures; mode {config.mode} needs them")
    check_pairs(config, pairs, networks=networks)
    plan = make_plan(config, source, networks=networks, num_devices=mesh.size)
    people = plan.rows.shape[1]
    if pairs is not None:
        plan = identity_sampler.with_pairs(
            plan, num_rows=len(pairs), first_row=len(source), pictures=config.batch.pit_pictures, seed=config.seed
        )
    phases = Phases.of(config, plan)
    rate, reid_tx, recon_tx = make_optimizers(config, phases)
    make_state = functools.partial(
        train_step.make_state, networks, reid_tx=reid_tx, recon_tx=recon_tx, seed=config.seed
    )
    everywhere = devices.replicated(mesh)
    state = devices.with_sharding(jax.eval_shape(make_state), everywhere)
    if resumed is not None:
        resuming.check_state(resumed, state)
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def make_first_state() -> TrainState:
        state = jax.jit(make_state, out_shardings=everywhere, compiler_options=HASTE if on_cpu else None)()
        if not config.init_from:
            return state
        return starting_weights.start_from(Path(config.init_from), state, architecture=architecture)

    return Run(
        workdir=workdir,
        config=config,
        networks=networks,
        state=state,
        make_state=make_first_state,
        batches=lambda start: input_pipeline.training_batches(
            source if pairs is None else JoinedSource.of([source, pairs]),
            plan.rows,
            start=start,
            people=people,
            height=config.data.height,
            width=config.data.width,
            with_textures=networks.draws,
            mesh=mesh,
            workers=config.data.workers,
        ),
        step_of=make_steps(config, networks, phases=phases, reid_tx=reid_tx, recon_tx=recon_tx),
        rates=lambda step: {"reid": float(rate(step))} if networks.learns_people else {},
        total=plan.num_steps,
        batch_size=plan.rows.shape[1],
        score_at=score_at(plan, config.schedule.eval_every),
        save_every=config.schedule.save_every,
        scoring=make_scoring(config, networks, test_sets=test_sets, mesh=mesh),
        notes=notes_on(source, pairs, config=config, networks=networks),
    )


def architecture_of(config: ConfigDict, *, num_pids: int) -> Architecture:
    """The networks that a config asks for."""
    return Architecture(
        depth=config.encoder.depth,
        fc_dim=config.encoder.fc_dim,
        last_stride=config.encoder.last_stride,
        encoder_width=config.encoder.width,
        num_pids=num_pids,
        decoder_width=config.decoder.width,
        skips=config.decoder.skips,
        height=config.data.height,
        width=config.data.width,
    )


def check_pairs(config: ConfigDict, pairs: Source | None, *, networks: Networks) -> None:
    """Raises a UserError if the pairs of picture and texture cannot be mixed into this run's batches."""
    pictures = config.batch.pit_pictures
    if pictures < 0:
        raise UserError(f"batch.pit_pictures is {pictures}; give 0 or more")
    if pictures and not networks.compares_textures:
        raise UserError(f"batch.pit_pictures is {pictures}, but mode {config.mode} mixes in no pairs; set it to 0")
    if pairs is None:
        return
    if not pairs.has_textures:
        raise UserError(f"data.pit is {pairs.name}, which has no textures; batch.pit_pictures needs them")
    if pictures > len(pairs):
        raise UserError(f"batch.pit_pictures is {pictures}, but {pairs.name} has only {len(pairs)} pairs")


def make_plan(config: ConfigDict, source: Source, *, networks: Networks, num_devices: int) -> Plan:
    """The rows of the training set for every step; checks that batches fit the devices and the data."""
    identities, instances, pairs = config.batch.identities, config.batch.instances, config.batch.pit_pictures
    size = identities * instances
    if (size + pairs) % num_devices:
        beside = f" and batch.pit_pictures {pairs} pairs" if pairs else ""
        raise UserError(
            f"a batch of batch.identities {identities} x batch.instances {instances} pictures{beside} cannot be "
            f"divided by {num_devices} devices; change {'batch.pit_pictures' if pairs else 'batch.identities'}"
        )
    epochs = config.schedule.fixbase_epoch + config.schedule.warmup_epochs + config.schedule.epochs
    if not networks.learns_people:
        plan = identity_sampler.shuffled_plan(len(source), batch_size=size, epochs=epochs, seed=config.seed)
    else:
        people = len(np.unique(source.pids))
        if identities > people:
            raise UserError(f"batch.identities is {identities}, but {source.name} has only {people} people to train on")
        plan = identity_sampler.identity_plan(
            source.pids, identities=identities, instances=instances, epochs=epochs, seed=config.seed
        )
    if not plan.num_steps:
        raise UserError(
            f"{epochs} epochs of {source.name} make no batch of {size}; raise schedule.epochs or lower batch.identities"
        )
    return plan


@dataclasses.dataclass(frozen=True)
class Phases:
    """The schedule in steps; an epoch of a phase starts where the plan says.

    Attributes:
      fixbase: steps in which only some layers learn.
      warmup: steps of the warm-up.
      warmup_starts: first step of each of its epochs, counted from the phase's first; (0,) without a warm-up.
      milestones: steps of the main phase, counted from its first, at which the re-ID rate falls.
      recon_milestones: the same of the texture losses' rate, counted from the end of `fixbase`.
    """

    fixbase: int
    warmup: int
    warmup_starts: tuple[int, ...]
    milestones: tuple[int, ...]
    recon_milestones: tuple[int, ...]

    @classmethod
    def of(cls, config: ConfigDict, plan: Plan) -> "Phases":
        """Epochs of the config to steps of the plan."""
        schedule, starts = config.schedule, plan.epoch_starts
        warmup, main = schedule.fixbase_epoch, schedule.fixbase_epoch + schedule.warmup_epochs

        def falls(milestones: Sequence[int], *, first: int) -> tuple[int, ...]:
            reached = [main + epoch for epoch in milestones if main + epoch < len(starts)]
            return tuple(int(starts[epoch] - starts[first]) for epoch in reached)

        return cls(
            fixbase=int(starts[warmup]),
            warmup=int(starts[main] - starts[warmup]),
            warmup_starts=tuple(int(start - starts[warmup]) for start in starts[warmup : max(main, warmup + 1)]),
            milestones=falls(config.reid.milestones, first=main),
            recon_milestones=falls(config.recon.milestones, first=warmup),
        )


def make_optimizers(
    config: ConfigDict, phases: Phases
) -> tuple[optax.Schedule, optax.GradientTransformation, optax.GradientTransformation]:
    """The re-ID learning rate by step, the main optimizer, and the texture losses' Adam."""
    reid, recon, schedule = config.reid, config.recon, config.schedule

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
        return optimizers.make_optimizer("adam", rate, b1=recon.b1, b2=recon.b2)

    warmup_rate = optimizers.exponential_by_epoch(schedule.warmup_rate, schedule.warmup_growth, phases.warmup_starts)
    main_rate = optimizers.multistep(reid.learning_rate, phases.milestones, reid.gamma)
    warmup = optimizers.make_optimizer("adam", warmup_rate, weight_decay=reid.weight_decay, b1=reid.b1, b2=reid.b2)
    recon_rate = optimizers.multistep(recon.learning_rate, phases.recon_milestones, recon.gamma)
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
            (phases.fixbase, optimizers.frozen_except(texture(recon.learning_rate), (*open_layers, "decoder"))),
            (None, texture(recon_rate)),
        ]
    )
    boundaries = [phases.fixbase, phases.fixbase + phases.warmup]
    rate = optax.join_schedules([lambda _: reid.learning_rate, warmup_rate, main_rate], boundaries)
    return rate, reid_tx, recon_tx


def make_steps(
    config: ConfigDict,
    networks: Networks,
    *,
    phases: Phases,
    reid_tx: optax.GradientTransformation,
    recon_tx: optax.GradientTransformation,
) -> Callable[[int], Step]:
    """The jitted train step by step number: one with frozen layers, one without. Uses up the state it is given."""
    augment = functools.partial(
        augmentation.augment, height=config.data.height, width=config.data.width, **config.augmentation
    )
    objective = train_step.Objective(instances=config.batch.instances, **config.loss)

    def jitted(networks: Networks) -> Step:
        step = functools.partial(
            train_step.train_step,
            networks=networks,
            objective=objective,
            augment=augment,
            reid_tx=reid_tx,
            recon_tx=recon_tx,
            seed=config.seed,
        )
        return jax.jit(step, donate_argnums=0)

    frozen = jitted(dataclasses.replace(networks, open_layers=tuple(config.schedule.open_layers)))
    whole = jitted(networks)
    return lambda step: frozen if step < phases.fixbase else whole


def score_at(plan: Plan, eval_every: int) -> frozenset[int]:
    """Steps after which a run is scored: the ends of every `eval_every`th epoch, and of the last."""
    return frozenset(map(int, plan.epoch_starts[eval_every::eval_every])) | {plan.num_steps}


def make_scoring(
    config: ConfigDict,
    networks: Networks,
    *,
    test_sets: Sequence[evaluation.TestSet] | Sequence[Source],
    mesh: Mesh,
    search: evaluation.Search = evaluation.PLAIN,
    mirror: bool = False,
    tpr: bool = False,
) -> Scoring:
    """Scores by the people that the encoder finds, or by the textures that encoder and decoder draw.

    People are found by `search`, and with `mirror` by the mean features of pictures and their mirror images; `tpr` adds
    the TPR of pairs.
    """
    options = dict(
        batch_size=config.scoring.batch_size, compute_dtype=config.compute_dtype, workers=config.data.workers
    )
    if networks.learns_people:
        extractor = Extractor(networks.architecture, mesh, **options, mirror=mirror)
        metric = config.scoring.metric
        how = dict(extractor=extractor, metric=metric, search=search, tpr=tpr)

        def score(weights: Weights) -> Scored:
            return Scored(evaluation.evaluate(weights["encoder"], weights["encoder_stats"], test_sets, **how))

        return Scoring(score, metric, f"{metric} metric, in percent", evaluation.as_table, checkpoints.BY_MAP)
    painter = Painter(networks.architecture, mesh, **options)

    def score_textures(weights: Weights) -> Scored:
        return Scored(*texture_scores.evaluate(weights, test_sets, painter=painter))

    by_l1 = BestBy("L1", higher_is_better=False)
    return Scoring(score_textures, "textures", texture_scores.UNITS, texture_scores.as_table, by_l1)


def notes_on(
    source: Source, pairs: Source | None, *, config: ConfigDict, networks: Networks
) -> tuple[str, ...]:
    """Lines about the training set."""
    if not networks.learns_people:
        return (f"{source.name}: {len(source)} pairs of picture and texture to train on",)
    _, counts = np.unique(source.pids, return_counts=True)
    cameras, instances = len(np.unique(source.camids)), config.batch.instances
    notes = [f"{source.name}: {len(source)} pictures of {len(counts)} people under {cameras} cameras to train on"]
    if few := int((counts < instances).sum()):
        notes.append(f"{few} people have fewer than batch.instances {instances} pictures: drawn with replacement")
    if pairs is not None:
        notes.append(f"{pairs.name}: {len(pairs)} pairs of picture and texture, {config.batch.pit_pictures} in a batch")
    return tuple(notes)
