"""SAN on Market-1501 (paper: rank-1 96.1, mAP 88.0). Not run here yet: the pictures need the owners' release.

    python -m san_jax.experiments.chain --config=configs/chain.py --workdir=runs/chain --config.manual_dir=RELEASE \
        --config.san.data.train=market1501/texture                      # draws the textures first
    python train.py --config=configs/san_market1501.py --config.data.manual_dir=RELEASE
"""

from configs import san


def get_config(size: str = "full"):
    """SAN's config on Market-1501; see configs/base.py for the fields."""
    config = san.get_config(size)
    config.data.train = "market1501/texture"
    return config
