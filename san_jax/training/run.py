"""Builds a run from a config: everything that the training loop needs."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from san_jax import devices, remote
from san_jax.batch import Batch, Source
from san_jax.data import augmentation, input_pipeline
from san_jax.data.decoded_store import DecodedStore
from san_jax.data.input_pipeline import Feed, Resident, TrainingData
from san_jax.data.joined_source import JoinedSource
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture, check_same
from san_jax.scoring import evaluation
from san_jax.training import batch_plan, constant_texture, resuming, schedule, starting_weights, train_step
from san_jax.training.run_config import Config
from san_jax.training.schedule import Phases
from san_jax.training.train_step import Networks, TrainState
from san_jax.training.validation import Validation, make_validation
from san_jax.weights import stored

Step = Callable[[TrainState, Batch | Resident], tuple[TrainState, dict[str, dict[str, jax.Array]]]]


@dataclasses.dataclass(frozen=True)
class Run:
    """All parts of a run, ready to be trained.

    Attributes:
      workdir: folder for everything that the run writes.
      config: the config; written into the workdir when the training begins.
      networks: the networks that are trained.
      people: what the outputs of the classifier stand for, as in `Source.people`; None for a texture generator.
      state: abstract TrainState with the shardings to restore into.
      make_state: returns a fresh TrainState.
      constant_loss: returns the reconstruction loss of the best constant texture; None without a decoder.
      open_feed: decodes the training set if it is to be kept decoded; returns the batches of the run.
      step_of: step -> the jitted train step to use for it.
      total: number of steps.
      batch_size: pictures per step.
      score_at: steps after which the run is scored.
      save_every: steps between checkpoints; 0 = not saved by steps, but when scored, at the end, and by time
        (`schedule.save_minutes`).
      validation: how the run is scored.
      notes: lines for the user, printed before the training.
    """

    workdir: Path
    config: Config
    networks: Networks
    people: Sequence[str] | None
    state: TrainState
    make_state: Callable[[], TrainState]
    constant_loss: Callable[[], float] | None
    open_feed: Callable[[], Feed]
    step_of: Callable[[int], Step]
    total: int
    batch_size: int
    score_at: frozenset[int]
    save_every: int
    validation: Validation
    notes: tuple[str, ...]

    def is_saved_at(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` updates: every `save_every`, before each scoring, and at the end."""
        every = self.save_every
        return step in self.score_at or step == self.total or (every > 0 and step % every == 0)


def build(
    config: Config,
    workdir: Path,
    *,
    source: Source,
    pairs: Source | None = None,
    test_sets: Sequence[evaluation.RetrievalSet] | Sequence[Source],
    mesh: Mesh,
) -> Run:
    """Builds a run from its config and data; writes nothing.

    Args:
      config: see configs/base.py.
      workdir: folder of the run.
      source: the training set.
      pairs: (picture, texture) pairs, of which `batch.pit_pictures` are added to every batch.
      test_sets: the sets to score on; sources of held-out pairs in mode san_pg.
      mesh: all devices.

    Raises:
      UserError: a field does not fit the data, the devices, another field or the workdir's checkpoint; names it.
    """
    stored.check_name(workdir)
    resumed = resuming.newest_of_all(workdir)
    resuming.check_config(config, workdir)
    people = source.people if train_step.learns_people(config.mode) else None
    found = None
    if resumed is not None:
        found, _, known = stored.read_about(resumed)
        if people is not None:
            resuming.check_people(known, people, name=source.name, checkpoint=resumed)
    architecture = architecture_of(config, num_pids=num_pids_of(config.mode, source, found=found))
    networks = Networks(config.mode, architecture, config.compute_dtype)
    architecture.check(draws=networks.draws)
    if found is not None:
        check_same(found, architecture, where=str(resumed))
    evaluation.check_metric(config.scoring.metric)
    if networks.draws and not source.has_textures:
        raise UserError(
            f"data.train is {source.name}, which has no textures; mode {config.mode} needs them: "
            "generate_textures.py draws them for a list of pictures, san_jax.experiments.chain for a data set"
        )
    plan = batch_plan.make_plan(config, source, pairs, networks=networks, num_devices=mesh.size)
    due = schedule.score_at(plan, config.schedule.eval_every)
    if due and networks.learns_people:
        for test in test_sets:
            evaluation.check_matches(test)
    phases = Phases.of(config, plan)
    rates, reid_tx, recon_tx = schedule.make_optimizers(config, phases)
    make_state = functools.partial(
        train_step.make_state, networks, reid_tx=reid_tx, recon_tx=recon_tx, seed=config.seed
    )
    everywhere = devices.replicated(mesh)
    pictures = source if pairs is None else JoinedSource.of([source, pairs])
    state = devices.with_sharding(jax.eval_shape(make_state), everywhere)
    if resumed is not None:
        resuming.check_state(resumed, state)

    def make_first_state() -> TrainState:
        state = jax.jit(make_state, out_shardings=everywhere, compiler_options=fast_compilation(mesh))()
        if not config.init_from:
            return state
        path = Path(config.init_from)
        return starting_weights.start_from(path, state, architecture=architecture, people=people)

    return Run(
        workdir=workdir,
        config=config,
        networks=networks,
        people=people,
        state=state,
        make_state=make_first_state,
        constant_loss=functools.partial(
            constant_texture.reconstruction_loss, pictures, plan.rows, side=config.data.height
        )
        if networks.draws
        else None,
        open_feed=functools.partial(
            input_pipeline.open_feed,
            TrainingData(
                pictures,
                plan.rows,
                people=plan.rows.shape[1] - config.batch.pit_pictures,
                height=config.data.height,
                width=config.data.width,
                with_textures=networks.draws,
            ),
            mesh=mesh,
            cache=config.data.cache,
            workers=config.data.workers,
            store=store_of(config.data),
        ),
        step_of=make_steps(
            config, networks, phases=phases, reid_tx=reid_tx, recon_tx=recon_tx, rates=rates, mesh=mesh
        ),
        total=plan.num_steps,
        batch_size=plan.rows.shape[1],
        score_at=due,
        save_every=config.schedule.save_every,
        validation=make_validation(config, networks, test_sets=test_sets, mesh=mesh),
        notes=notes_on(source, pairs, config=config, networks=networks),
    )


def fast_compilation(mesh: Mesh) -> dict[str, int]:
    """Compiler options for a program that runs once: on a CPU, 2.5 times as fast to compile, with the same bits.

    There are none if XLA_FLAGS say how far to optimize.
    """
    option = "xla_backend_optimization_level"
    return {option: 1} if devices.platform_of(mesh) == "cpu" and option not in os.environ.get("XLA_FLAGS", "") else {}


def num_pids_of(mode: str, source: Source, *, found: Architecture | None) -> int:
    """Outputs of the classifier: the identities of the training set; 1 for a texture generator, which trains none.

    `found` is the architecture of the checkpoint to go on from. Older ones of a generator have an output for every
    wardrobe, and keep them.
    """
    if train_step.learns_people(mode):
        return len(np.unique(source.pids))
    return 1 if found is None else found.num_pids


def architecture_of(config: Config, *, num_pids: int) -> Architecture:
    """The architecture that a config describes."""
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
        neck=config.encoder.neck,
        stem=config.encoder.stem,
        min_channels=config.decoder.min_channels,
        coarse=config.decoder.coarse,
    )


def store_of(data: Config) -> DecodedStore | None:
    """Where decoded pictures are kept: in `data.data_dir` or its local copy, unless `data.cache_gb` is 0."""
    if not data.cache_gb:
        return None
    return DecodedStore(remote.data_folder(data.data_dir) / "decoded", max_bytes=int(data.cache_gb * 1e9))


def make_steps(
    config: Config,
    networks: Networks,
    *,
    phases: Phases,
    reid_tx: optax.GradientTransformation,
    recon_tx: optax.GradientTransformation,
    rates: Mapping[str, optax.Schedule],
    mesh: Mesh,
) -> Callable[[int], Step]:
    """Step number -> jitted train step, with frozen layers during fixbase; it donates the state that it is given.

    A step returns the new state, and what is shown of it by kind and name: {"loss": ..., "rate": ...}.
    """
    augment = functools.partial(
        augmentation.augment, height=config.data.height, width=config.data.width, **config.augmentation
    )
    options = devices.compiler_options(mesh, onednn=config.onednn, deterministic=config.deterministic)
    objective = train_step.Objective(instances=config.batch.instances, **config.loss)

    def jitted(networks: Networks) -> Step:
        def step(state: TrainState, fed: Batch | Resident):
            new, losses = train_step.train_step(
                state,
                input_pipeline.batch_of(fed, state.step),
                networks=networks,
                objective=objective,
                augment=augment,
                reid_tx=reid_tx,
                recon_tx=recon_tx,
                seed=config.seed,
            )
            return new, {"loss": losses, "rate": {name: rate(state.step) for name, rate in rates.items()}}

        # Without the pinned sharding, XLA may choose another one for the state, and the second step compiles again.
        return jax.jit(step, donate_argnums=0, out_shardings=devices.replicated(mesh), compiler_options=options)

    frozen = jitted(dataclasses.replace(networks, open_layers=tuple(config.schedule.open_layers)))
    whole = jitted(networks)
    return lambda step: frozen if step < phases.fixbase else whole


def notes_on(source: Source, pairs: Source | None, *, config: Config, networks: Networks) -> tuple[str, ...]:
    """Lines for the user about the training set."""
    if not networks.learns_people:
        return (f"{source.name}: {len(source)} training pairs of picture and texture",)
    _, counts = np.unique(source.pids, return_counts=True)
    cameras, instances = len(np.unique(source.camids)), config.batch.instances
    notes = [f"{source.name}: {len(source)} training pictures of {len(counts)} identities from {cameras} cameras"]
    if few := int((counts < instances).sum()):
        notes.append(
            f"{few} identities have fewer than batch.instances ({instances}) pictures: sampled with replacement"
        )
    if config.batch.identities == 1:
        notes.append("batch.identities is 1: batches hold no negatives, so the triplet losses are 0")
    if instances == 1:
        notes.append("batch.instances is 1: each anchor is its own positive, so no loss pulls an identity together")
    if pairs is not None:
        notes.append(f"{pairs.name}: {len(pairs)} pairs of picture and texture, {config.batch.pit_pictures} per batch")
    return tuple(notes)
