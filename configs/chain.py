"""All of SAN: a texture generator, the textures that it draws, SAN trained with them, and the baseline beside it.

    python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/chain
    python -m san_jax.experiments.chain --config=configs/chain.py --workdir=runs/chain \
        --config.manual_dir=RELEASE                             # CUHK03 at the paper's size
    python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/chain_cuhk03 \
        --config.manual_dir=RELEASE --config.san.data.train=cuhk03/labeled_texture

The parts are the configs of the single trainings: --config.san.schedule.epochs=20. The baseline's is that of `san` in
another mode. The parts' data_dir and manual_dir are given by the chain, in folders of its workdir.
"""

from ml_collections import ConfigDict

from configs import san, san_pg


def get_config(size: str = "full") -> ConfigDict:
    """The config of the chain."""
    config = ConfigDict()
    config.manual_dir = ""  # folder that holds releases, as data.manual_dir of configs/base.py
    config.san_pg = san_pg.get_config(size)
    config.san = san.get_config(size)
    config.san.batch.pit_pictures = 16  # as in the paper, which does not say how many
    if size == "small":
        config.san.data.train = "synthetic_reid/small_pseudo"
        config.san.batch.pit_pictures = 0  # ten minutes are for the other stages; 8 is the same share
        config.san.schedule.epochs, config.san.reid.milestones = 5, (3, 4)
        config.san_pg.schedule.epochs, config.san_pg.recon.milestones = 3, (2,)
    return config.lock()
