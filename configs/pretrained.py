"""The weights that come with the package, rendered-small-pg and rendered-small (docs/models.md).

    make pretrained                                                # both, and their export into san_jax/pretrained
    python train.py --config=configs/pretrained.py:san_pg          # into runs/pretrained_san_pg
    python train.py --config=configs/pretrained.py:san             # starts from that run, into runs/pretrained_san
"""

from ml_collections import ConfigDict

from configs import san, san_pg

PARTS = ("san_pg", "san")


def get_config(part: str = "san") -> ConfigDict:
    """The config of the texture generator, "san_pg", or of the re-ID network that starts from it, "san"."""
    if part not in PARTS:
        raise ValueError(f"part {part!r} is not one of {', '.join(PARTS)}")
    if part == "san_pg":
        config = san_pg.get_config("small")
        config.data.train = "pit/many"
        config.batch.identities = 8
        config.recon.warmup_steps = 100
        config.schedule.epochs, config.schedule.eval_every = 18, 6
        return config
    config = san.get_config("small")
    config.init_from = "runs/pretrained_san_pg"
    config.data.train, config.data.test = "synthetic_reid/many", "synthetic_reid/small"
    config.decoder.width = 0.0
    config.loss.texture_triplets = 0.0
    config.schedule.epochs, config.reid.milestones = 8, (5, 7)
    return config
