"""SAN-PG, the texture generator: SAN's networks on (picture, texture) pairs, with the reconstruction loss only.

    python train.py --config=configs/san_pg.py
    python train.py --config=configs/san_pg.py:small             # for two CPU cores
    python eval.py --workdir=runs/san_pg --best                  # L1, PSNR, SSIM on held-out pairs
    python train.py --config=configs/san.py --workdir=runs/san --config.init_from=runs/san_pg

The paper gives neither its learning rate nor the length of its training: rates, epochs and augmentation are ours. At
the full size the decoder is the released code's; Muon, the warm-up and the cosine are what taught most at the small
size (docs/models.md) and have not been tried at this one.
"""

from configs import base


def get_config(size: str = "full"):
    """SAN-PG's config; see configs/base.py for the fields."""
    config = base.get_config(size)
    config.mode = "san_pg"
    config.data.train = config.data.pit
    config.augmentation.mirror = 0.0  # the texture would not be mirrored with the picture
    config.augmentation.erase = 0.0
    config.recon.optimizer, config.recon.learning_rate = "muon", 4e-3
    config.recon.warmup_steps, config.recon.decay = 100, "cosine"
    config.schedule.warmup_epochs = 0  # a phase of the re-ID optimizer, which is unused here
    config.schedule.epochs = 100
    config.schedule.eval_every = 10
    if size == "small":
        config.batch.identities = 4
        # Convolutions take two thirds of the time, in which more steps teach more (docs/synthesis.md)
        config.decoder.width = 0.0
        config.recon.decoder_learning_rate = None
        config.recon.warmup_steps = 30
        config.schedule.epochs, config.schedule.eval_every = 5, 5
    return config
