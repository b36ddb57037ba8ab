"""The encoder alone on CUHK03 labeled: SAN's schedule and re-ID losses, without the decoder and its losses.

    python train.py --config=configs/baseline.py --config.data.manual_dir=RELEASE
    python train.py --config=configs/baseline.py:small
"""

from configs import base


def get_config(size: str = "full"):
    """The baseline's config; see configs/base.py for the fields."""
    config = base.get_config(size)
    config.mode = "baseline"
    if size == "full":
        config.data.train = "cuhk03/labeled"
    return config
