"""Ablation of SAN's parts, on rendered identities that played no part in choosing these hyperparameters.

    python -m san_jax.experiments.ablation --workdir=runs/ablation

Every variant is `san` with a few fields changed, see san_jax/experiments/ablation.py. The hyperparameters were chosen
on `synthetic_reid/small`, which has other identities in another world.
"""

from ml_collections import ConfigDict

from configs import chain


def get_config(size: str = "small") -> ConfigDict:
    """The config that all variants share, and the config of the texture generator."""
    config = chain.get_config(size)
    config.generator = config.san.init_from = ""
    # As in docs/ablation.md; `:small` has other values now.
    config.san.decoder.coarse, config.san.loss.texture_triplets = 0, 1.0
    config.san.recon.decoder_learning_rate = None
    config.san.data.train = "synthetic_reid/ablation_pseudo"
    config.san.data.test = "synthetic_reid/ablation"  # the same pictures, under one name for all variants
    config.san.schedule.epochs, config.san.reid.milestones = 8, (6, 7)
    config.san_pg.schedule.epochs = 20
    return config
