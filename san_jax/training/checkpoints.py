"""Checkpoints by orbax: a run's newest state and its best by a score, each with a description of its networks."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx
from jaxtyping import PyTree

from san_jax import devices
from san_jax.errors import UserError
from san_jax.networks.architecture import Architecture
from san_jax.training.train_step import TrainState, arrays_of

STATE = "state"  # the item with TrainState's fields
ABOUT = "about"  # the item that says what the networks are, so that nobody needs the config that made them


class BestBy(NamedTuple):
    """The score by which one state is better than another, and whether the higher one is."""

    score: str
    higher_is_better: bool


BY_MAP = BestBy("mAP", higher_is_better=True)


class Checkpoints:
    """The checkpoints of one run; saves in the background, and a write that was cut off leaves nothing that counts.

    Newest and best lie in folders of their own, one checkpoint each, named by its step.

    Args:
      workdir: of the run.
      architecture: of the networks that are saved.
      best_by: says which state is the best.
    """

    def __init__(self, workdir: Path, architecture: Architecture, *, best_by: BestBy = BY_MAP):
        self._about = dataclasses.asdict(architecture)
        self._newest = _manager(workdir / "checkpoints")
        self._best_by = best_by
        mode = "max" if best_by.higher_is_better else "min"
        self._best = _manager(workdir / "best", best_fn=lambda scores: scores[best_by.score], best_mode=mode)
        best = self._best.best_step()
        self._best_score = None if best is None else self._best.metrics(best)[best_by.score]

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        # However a run ends, what it saved last must reach the disk before the interpreter takes its threads away.
        self.close()

    def save(self, step: int, state: TrainState) -> None:
        """Starts to write the state after `step` updates; once a step.

        Raises:
          UserError: this save, or the one before it, could not be written.
        """
        if self._newest.latest_step() != step:
            self._save(self._newest, step, state)

    def save_if_best(self, step: int, state: TrainState, scores: Mapping[str, float]) -> None:
        """Likewise, if it is better than all that were scored; the one before it goes when this is whole."""
        score, best = scores[self._best_by.score], self._best_score
        if best is None or (score > best if self._best_by.higher_is_better else score < best):
            self._best_score = score
            self._save(self._best, step, state, metrics=dict(scores))

    def _save(self, manager: ocp.CheckpointManager, step: int, state: TrainState, **options) -> None:
        items = {STATE: ocp.args.StandardSave(vars(state)), ABOUT: ocp.args.JsonSave(self._about)}
        with failed_write_as_user_error(Path(manager.directory)):
            manager.save(step, args=ocp.args.Composite(**items), force=True, **options)

    def reached_preemption(self, step: int) -> bool:
        """Whether the cluster is about to stop this run (SIGTERM at any of its processes); all agree on the step."""
        return self._newest.reached_preemption(step)

    def wait(self) -> None:
        """Returns when what was saved is on disk; raises UserError if it could not be written."""
        for manager in (self._newest, self._best):
            with failed_write_as_user_error(Path(manager.directory)):
                manager.wait_until_finished()

    def close(self) -> None:
        """Waits and frees the threads."""
        self.wait()
        self._newest.close()
        self._best.close()


def _manager(folder: Path, **options) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True, **options)
    return ocp.CheckpointManager(folder.resolve(), options=options)


@contextlib.contextmanager
def failed_write_as_user_error(folder: Path) -> Iterator[None]:
    """One line in place of orbax's and tensorstore's traces when the disk takes no more."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"cannot write a checkpoint under {folder}: {reason}; the last whole one stays, "
            "make room and start again on the same workdir"
        ) from error


def newest(workdir: Path, *, best: bool = False) -> Path | None:
    """The folder of a run's newest checkpoint, or of its best; None if there is none."""
    return _highest_step(workdir / ("best" if best else "checkpoints"))


def _highest_step(folder: Path) -> Path | None:
    if not os.path.isdir(folder):  # False, where Path's own methods raise, for what cannot be a path
        return None
    steps = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit() and (entry / STATE).is_dir()]
    return folder / str(max(steps)) if steps else None


def find(path: Path, *, best: bool = False) -> Path:
    """The checkpoint that somebody means by a run's workdir, its folder of checkpoints, or one checkpoint's own folder.

    Raises:
      UserError: there is none; or the best is asked for of something else than a workdir.
    """
    if best:
        if (found := newest(path, best=True)) is None:
            raise UserError(f"{path} holds no best checkpoint; that needs the workdir of a run that was scored")
        return found
    found = path if os.path.isdir(path / STATE) else newest(path) or _highest_step(path)
    if found is None:
        raise UserError(f"{path} holds no checkpoint; give the workdir of a run, or one of its checkpoints")
    return found


def read_architecture(checkpoint: Path) -> Architecture:
    """What the networks of a checkpoint look like."""
    with unreadable_as_user_error(checkpoint), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return Architecture(**reader.restore((checkpoint / ABOUT).resolve()))


def restore(checkpoint: Path, like: TrainState) -> TrainState:
    """The state of a checkpoint.

    Args:
      checkpoint: its folder.
      like: shapes, dtypes and shardings to restore into (`jax.ShapeDtypeStruct`s).
    """
    return TrainState(**restore_parts(checkpoint, vars(like)))


def restore_parts(checkpoint: Path, like: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Some fields of a checkpoint's TrainState, by their names; nothing else is read."""
    like = dict(like)
    args = ocp.args.PyTreeRestore(
        item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
    )
    with unreadable_as_user_error(checkpoint), ocp.PyTreeCheckpointer() as reader:
        return reader.restore((checkpoint / STATE).resolve(), args=args)


def restore_encoder(checkpoint: Path, sharding: jax.sharding.Sharding) -> tuple[PyTree, PyTree, int]:
    """Parameters and running statistics of a checkpoint's encoder, and the updates made; nothing else is read."""
    parts, step = restore_networks(checkpoint, sharding, draws=False)
    return parts["encoder"], parts["encoder_stats"], step


def restore_networks(
    checkpoint: Path, sharding: jax.sharding.Sharding, *, draws: bool
) -> tuple[dict[str, PyTree], int]:
    """Parameters and running statistics of a checkpoint's networks, and the updates made; nothing else is read.

    Args:
      checkpoint: its folder.
      sharding: to read in.
      draws: whether the decoder is wanted too.

    Returns:
      The fields of its TrainState from `encoder` to `decoder_stats`, or to `encoder_stats`; and the step.

    Raises:
      UserError: it cannot be read, or has no decoder where one is wanted.
    """
    if draws and not has_decoder(checkpoint):
        raise UserError(f"{checkpoint} has no decoder, a baseline's has none; give one of a run in mode san or san_pg")
    like = network_shapes(read_architecture(checkpoint), draws=draws) | {"step": jax.ShapeDtypeStruct((), jnp.int32)}
    parts = restore_parts(checkpoint, devices.with_sharding(like, sharding))
    return parts, int(parts.pop("step"))


def has_decoder(checkpoint: Path) -> bool:
    """Whether a checkpoint's networks draw."""
    return bool(shapes(checkpoint).get("decoder"))


def network_shapes(architecture: Architecture, *, draws: bool) -> dict[str, PyTree]:
    """Shapes and dtypes of encoder and, where it draws, decoder, by TrainState's fields."""
    encoder, encoder_stats = arrays_of(nnx.eval_shape(lambda: architecture.new_encoder(nnx.Rngs(0))))
    fields = {"encoder": encoder, "encoder_stats": encoder_stats}
    if draws:
        decoder, decoder_stats = arrays_of(nnx.eval_shape(lambda: architecture.new_decoder(nnx.Rngs(0))))
        fields |= {"decoder": decoder, "decoder_stats": decoder_stats}
    return fields


def shapes(checkpoint: Path) -> dict[str, PyTree]:
    """Shapes and dtypes of all arrays of a checkpoint, as nested dictionaries."""
    with unreadable_as_user_error(checkpoint), ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata((checkpoint / STATE).resolve()).item_metadata.tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@contextlib.contextmanager
def unreadable_as_user_error(checkpoint: Path) -> Iterator[None]:
    """One line in place of a trace when a checkpoint is damaged or is none."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f"{checkpoint} cannot be read as a checkpoint ({reason}); try another one") from error
