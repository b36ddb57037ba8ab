"""All stages of SAN: a texture generator, the textures it generates, SAN trained with them, and the baseline.

    python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/chain
    python -m san_jax.experiments.chain --config=configs/chain.py --workdir=runs/chain \
        --config.manual_dir=RELEASE                             # CUHK03 at the paper's size
    python -m san_jax.experiments.chain --config=configs/chain.py:small --workdir=runs/chain_cuhk03 \
        --config.manual_dir=RELEASE --config.san.data.train=cuhk03/labeled_texture

`san` and `san_pg` are the configs of these runs: --config.san.schedule.epochs=20. The baseline uses the config of `san`
in mode baseline. At `:small` the generator that comes with the package draws the textures, and the other networks start
from it; `--config.generator= --config.san.init_from=` trains all of them from random weights. The chain sets data_dir
and manual_dir of both parts to folders in its workdir.
"""

from ml_collections import ConfigDict

from configs import san, san_pg


def get_config(size: str = "full") -> ConfigDict:
    """The config of the chain."""
    config = ConfigDict()
    config.manual_dir = ""  # folder of the released data sets, as data.manual_dir in configs/base.py
    config.generator = ""  # what draws the textures: a run, weights or rendered-small-pg; "" = train one, by san_pg
    config.san_pg = san_pg.get_config(size)
    config.san = san.get_config(size)
    config.san.batch.pit_pictures = 16  # the paper mixes in PIT pictures too, but does not say how many
    if size == "small":
        config.generator = config.san.init_from = "rendered-small-pg"
        config.san.data.train = "synthetic_reid/small_pseudo"
        config.san.batch.pit_pictures = 0  # keeps the chain within ten minutes; 8 would be the same share
        config.san.schedule.epochs, config.san.reid.milestones = 5, (3, 4)
    return config.lock()
