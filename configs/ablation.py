"""Ablation of SAN's parts, on rendered identities that played no part in choosing these hyperparameters.

    python -m san_jax.experiments.ablation --workdir=runs/ablation

Every variant is `san` with a few fields changed: those of its parts, see san_jax/experiments/ablation.py, and those of
its start, below. Rates and lengths were chosen on `synthetic_reid/small`, which has other identities in another world,
for each start by itself (docs/ablation.md).
"""

from ml_collections import ConfigDict

from configs import chain


def get_config(size: str = "small") -> ConfigDict:
    """The config that all variants share, the config of the texture generator, and what each start changes."""
    config = chain.get_config(size).unlock()
    config.san.data.train = "synthetic_reid/ablation_pseudo"
    config.san.data.test = "synthetic_reid/ablation"  # the same pictures, under one name for all variants
    config.starts = ConfigDict()
    config.starts.random = start("", rates=(2e-3, 1e-3), epochs=26, milestones=(20, 23))
    config.starts.pg = start("rendered-small-pg", rates=(1e-3, 1e-3), epochs=12, milestones=(9, 11))
    return config.lock()


def start(init_from: str, *, rates: tuple[float, float], epochs: int, milestones: tuple[int, ...]) -> ConfigDict:
    """The fields of `san` that belong to a start: its weights, and the rates of both optimizers that suit them."""
    reid = dict(learning_rate=rates[0], milestones=milestones)
    recon = dict(learning_rate=rates[1])
    return ConfigDict(dict(init_from=init_from, schedule=dict(epochs=epochs), reid=reid, recon=recon))
