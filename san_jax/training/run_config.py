"""The resolved config of a run, in its workdir."""

import json
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from san_jax import files, remote
from san_jax.errors import UserError

# A ConfigDict with the fields of configs/base.py, or any mapping whose fields are attributes too: what trains does not
# need ml_collections.
Config = Any
NAME = "config.json"
# Fields that older runs do not have, with the values that describe what those runs did.
LATER = {
    "deterministic": False,
    "onednn": False,
    "data": {"cache": "stream", "cache_gb": 0.0, "pattern": ""},
    "loss": {"reconstruction": 1.0},
    "decoder": {"min_channels": 1, "coarse": 0},
    "recon": {"optimizer": "adam", "decoder_learning_rate": None, "warmup_steps": 0, "decay": "milestones"},
    "encoder": {"neck": "none", "stem": "torchvision"},
    "schedule": {"save_minutes": 0.0},
    "scoring": {"same_camera": "remove"},
}


def keep(config: Config, workdir: Path) -> None:
    """Writes the config into the workdir; if it replaces a different one, as of a resumed run, prints what changed.

    Raises:
      UserError: the file cannot be read or written.
    """
    path, text = workdir / NAME, config.to_json(indent=2) + "\n"
    if jax.process_index():
        return
    if path.exists():
        old, new = (flatten_dict(fields, sep=".") for fields in (read(workdir).to_dict(), json.loads(text)))
        changed = [f"{name} {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name]]
        if changed:
            print(f"{remote.named(path)} changes: {', '.join(changed)}", flush=True)
    files.write(path, text)


def read(workdir: Path) -> Config:
    """The config of a run.

    Raises:
      UserError: the folder is not the workdir of a run.
    """
    from ml_collections import ConfigDict  # here, since it may be missing where only measurements are made

    path = workdir / NAME
    try:
        fields = files.read_json(path)
        for name, value in LATER.items():
            if not isinstance(value, dict):
                fields.setdefault(name, value)
            elif name in fields:
                fields[name] = {**value, **fields[name]}
        return ConfigDict(fields)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error  # an OSError repeats the path
        raise UserError(f"{path} cannot be read ({reason}); give the --workdir of a run of train.py") from error
