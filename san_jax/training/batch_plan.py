"""The rows of every batch of a run, from its config and data."""

import numpy as np

from san_jax.batch import Source
from san_jax.data import identity_sampler
from san_jax.data.identity_sampler import Plan
from san_jax.errors import UserError
from san_jax.training.run_config import Config
from san_jax.training.train_step import Networks


def make_plan(
    config: Config, source: Source, pairs: Source | None, *, networks: Networks, num_devices: int
) -> Plan:
    """The rows of every batch of a run.

    Args:
      config: see configs/base.py.
      source: the training set.
      pairs: (picture, texture) pairs, of which `batch.pit_pictures` are added to every batch; their rows follow those
        of `source`.
      networks: determine how rows are sampled, and whether pairs are allowed.
      num_devices: number of devices that share a batch.

    Raises:
      UserError: batches do not fit the data or the devices; names the field.
    """
    check_pairs(config, pairs, networks=networks)
    check_size(config, num_devices=num_devices)
    plan = plan_of_people(config, source, networks=networks)
    if pairs is None:
        return plan
    return identity_sampler.with_pairs(
        plan, num_rows=len(pairs), first_row=len(source), pictures=config.batch.pit_pictures, seed=config.seed
    )


def check_size(config: Config, *, num_devices: int) -> None:
    """Raises a UserError if a batch cannot be divided evenly among the devices."""
    identities, instances, pairs = config.batch.identities, config.batch.instances, config.batch.pit_pictures
    size = identities * instances
    if (size + pairs) % num_devices:
        fitting = max(count for count in range(1, num_devices) if (size + pairs) % count == 0)
        beside = f" and batch.pit_pictures {pairs} pairs" if pairs else ""
        raise UserError(
            f"a batch of batch.identities {identities} x batch.instances {instances} pictures{beside} cannot be "
            f"divided by {num_devices} devices; change {'batch.pit_pictures' if pairs else 'batch.identities'}, or use "
            f"{fitting} of them, on which a run can also be resumed"
        )


def plan_of_people(config: Config, source: Source, *, networks: Networks) -> Plan:
    """Batches of `batch.identities` identities with `batch.instances` pictures each; of any pictures in mode san_pg."""
    identities, size = config.batch.identities, config.batch.identities * config.batch.instances
    epochs = config.schedule.fixbase_epoch + config.schedule.warmup_epochs + config.schedule.epochs
    if not networks.learns_people:
        plan = identity_sampler.shuffled_plan(len(source), batch_size=size, epochs=epochs, seed=config.seed)
    else:
        num_pids = len(np.unique(source.pids))
        if identities > num_pids:
            raise UserError(f"batch.identities is {identities}, but {source.name} has only {num_pids} identities")
        plan = identity_sampler.identity_plan(
            source.pids, identities=identities, instances=config.batch.instances, epochs=epochs, seed=config.seed
        )
    if not plan.num_steps:
        raise UserError(
            f"{epochs} epochs of {source.name} give no batch of {size}; raise schedule.epochs or lower batch.identities"
        )
    return plan


def check_pairs(config: Config, pairs: Source | None, *, networks: Networks) -> None:
    """Raises a UserError if the (picture, texture) pairs cannot be added to this run's batches."""
    pictures = config.batch.pit_pictures
    if pictures < 0:
        raise UserError(f"batch.pit_pictures is {pictures}; it must be at least 0")
    if pictures and not networks.compares_textures:
        raise UserError(f"batch.pit_pictures is {pictures}, but mode {config.mode} uses no pairs; set it to 0")
    if pairs is None:
        return
    if not pairs.has_textures:
        raise UserError(f"data.pit is {pairs.name}, which has no textures; batch.pit_pictures needs them")
    if pictures > len(pairs):
        raise UserError(f"batch.pit_pictures is {pictures}, but {pairs.name} has only {len(pairs)} pairs")
