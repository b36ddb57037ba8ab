"""What learning textures first is worth: three starts that differ in what the same number of pictures taught.

    python train.py --config=configs/starts.py:reid             # into runs/starts_reid
    python train.py --config=configs/starts.py:pictures
    python train.py --config=configs/starts.py:textures
    python -m san_jax.experiments.ablation --config=configs/starts.py --workdir=runs/starts --variant=baseline_reid \
        --variant=baseline_pictures --variant=baseline_textures --results=runs/starts/results

`textures` is the recipe of `rendered-small-pg`, a sixth as long. `pictures` draws the picture itself in place of the
texture, which is all that differs. `reid` learns to tell apart the 200 people of `synthetic_reid/small`.
"""

from ml_collections import ConfigDict

from configs import ablation, baseline, pretrained

PARTS = ("reid", "pictures", "textures")


def get_config(part: str = "") -> ConfigDict:
    """The config of the training that makes one of the starts or, of "", what the variants from them share."""
    if not part:
        config = ablation.get_config().unlock()
        after = config.starts.pg.to_dict()
        config.starts = ConfigDict({part: after | {"init_from": f"runs/starts_{part}"} for part in PARTS})
        return config.lock()
    if part not in PARTS:
        raise ValueError(f"part {part!r} is not one of {', '.join(PARTS)}")
    if part == "reid":
        config = baseline.get_config("small")
        # On synthetic_reid/many, with 1,000 people, these losses do not begin to learn from random weights.
        config.reid.learning_rate = 2e-3
        config.schedule.epochs, config.reid.milestones = 54, (46, 50)  # 2,695 steps with the warm-up
        return config
    config = pretrained.get_config("san_pg")
    config.data.train = "pit/many:pictures" if part == "pictures" else "pit/many"
    config.schedule.epochs, config.schedule.eval_every = 3, 3  # 2,670 steps
    return config
