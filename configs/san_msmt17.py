"""SAN on MSMT17 (paper: rank-1 79.2, mAP 55.7). Not run here yet: the pictures need the owners' release.

    python -m san_jax.experiments.chain --config=configs/chain.py --workdir=runs/chain --config.manual_dir=RELEASE \
        --config.san.data.train=msmt17/v1_texture                   # draws the textures first
    python train.py --config=configs/san_msmt17.py --config.data.manual_dir=RELEASE
"""

from configs import san


def get_config(size: str = "full"):
    """SAN's config on MSMT17; see configs/base.py for the fields."""
    config = san.get_config(size)
    config.data.train = "msmt17/v1_texture"
    return config
