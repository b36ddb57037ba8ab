"""SAN-PG, the texture generator: SAN's networks on pairs of picture and texture, the reconstruction loss alone.

    python train.py --config=configs/san_pg.py
    python train.py --config=configs/san_pg.py:small             # same job for two CPU cores
    python eval.py --workdir=runs/san_pg --best                  # L1, PSNR, SSIM of held-out pairs
    python train.py --config=configs/san.py --workdir=runs/san --config.init_from=runs/san_pg

The paper says neither at which rate nor how long it was trained: rates, lengths and augmentation are ours. Those of
the full size have not been tried.
"""

from configs import base


def get_config(size: str = "full"):
    """SAN-PG's config; see configs/base.py for the fields."""
    config = base.get_config(size)
    config.mode = "san_pg"
    config.data.train = config.data.pit
    config.augmentation.mirror = 0.0  # the texture would stay as it is
    config.augmentation.erase = 0.0
    config.recon.learning_rate = 2e-4
    config.schedule.warmup_epochs = 0  # of the main optimizer, which has nothing to do here
    config.schedule.epochs = 100
    config.schedule.eval_every = 10
    if size == "small":
        config.batch.identities = 4
        config.decoder.width = 0.5  # at 0.25 four channels draw three colours: nearly all is grey
        config.recon.learning_rate = 1e-3  # at 3e-3 nothing is learnt
        config.schedule.epochs, config.recon.milestones = 5, (4,)
        config.schedule.eval_every = 5
    return config
