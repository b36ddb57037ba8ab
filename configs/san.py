"""SAN on CUHK03 labeled (paper: rank-1 80.1, mAP about 76.4; others report 72.0 / 68.2 with the released code).

    python train.py --config=configs/san.py --config.data.manual_dir=RELEASE
    python train.py --config=configs/san.py --workdir=runs/san_pit --config.batch.pit_pictures=16
    python train.py --config=configs/san.py:small               # for two CPU cores, on rendered people
"""

from configs import base


def get_config(size: str = "full"):
    """SAN's config; see configs/base.py for the fields."""
    config = base.get_config(size)
    config.mode = "san"
    return config
