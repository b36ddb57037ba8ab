"""Person re-identification by semantics-aligned features: SAN (AAAI 2020) in JAX and Flax.

    import san_jax

    model = san_jax.load("rendered-small")  # or a run, a checkpoint, a file of weights
    feats = model.features(["query.jpg"])

This module is the public API. `import san_jax` alone does not import JAX.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from ml_collections import ConfigDict

    from san_jax.data.picture_batches import Picture
    from san_jax.model import Model
    from san_jax.runtimes.exporting import Exported
    from san_jax.scoring.nearest import Nearest

__all__ = ["evaluate", "export", "load", "search", "train"]


def load(
    source: str | os.PathLike,
    *,
    best: bool = False,
    height: int | None = None,
    width: int | None = None,
    last_stride: int | None = None,
) -> "Model":
    """Loads the networks of a run, a checkpoint or a file of weights; see `san_jax.model.load`."""
    from san_jax import model

    return model.load(source, best=best, height=height, width=width, last_stride=last_stride)


def search(
    query_feats: "np.ndarray", gallery_feats: "np.ndarray", *, k: int, distance: str = "euclidean"
) -> "Nearest":
    """The k nearest gallery pictures of every query: `.distances` and `.rows`, both [Q k], nearest first.

    The search is exact over the features as they are stored. Galleries that do not fit into memory may be mapped:
    `np.load("feats.npy", mmap_mode="r")`, in half precision, too.

    Args:
      query_feats: float [Q D].
      gallery_feats: float [G D].
      k: pictures for each query; at most G.
      distance: euclidean (squared) or cosine.

    Raises:
      UserError: there are fewer than k gallery pictures or no queries, or features are not finite or differ in length.
    """
    import numpy as np

    from san_jax import devices
    from san_jax.errors import UserError
    from san_jax.scoring.gallery_feats import GalleryFeats

    for name, feats in (("query", query_feats), ("gallery", gallery_feats)):
        if np.ndim(feats) != 2:
            raise UserError(f"{name} features have the shape {list(np.shape(feats))}; give [pictures, numbers of each]")
    gallery = GalleryFeats([np.asarray(gallery_feats)], mesh=devices.make_mesh())
    return gallery.nearest(query_feats, k=k, distance=distance)


def evaluate(
    model: "Model",
    sets: Sequence[str] | str,
    *,
    data_dir: str | os.PathLike = "data",
    manual_dir: str | os.PathLike = "",
    pattern: str = "",
    metric: str = "market1501",
    same_camera: str = "remove",
) -> Mapping[str, Mapping[str, float]]:
    """Scores a model on test sets: rank-k, mAP and mINP as fractions; a texture generator by L1, PSNR and SSIM.

    Args:
      model: as `load` returns it.
      sets: names of data sets, such as "cuhk03/labeled", or paths of lists and folders of pictures; in a string,
        separated by commas.
      data_dir: folder of the prepared data sets; missing ones are prepared.
      manual_dir: folder of the release; needed only to prepare a data set.
      pattern: of the names of a folder's pictures, as `data.pattern` in configs/base.py.
      metric: market1501, or cuhk03 (single-gallery-shot).
      same_camera: gallery pictures with the query's pid and camid: remove them, or keep all but the query itself.

    Returns:
      Scores by name, for each test set by its name; that of a list or folder is folder/STEM-HASH8.

    Raises:
      UserError: there is no such data set or metric, or it cannot be read.
    """
    from san_jax.commands import evaluate

    places = dict(data_dir=os.fspath(data_dir), manual_dir=os.fspath(manual_dir), pattern=pattern)
    return evaluate.score_sets(model, sets, places, metric=metric, same_camera=same_camera)


def export(
    model: "Model",
    path: str | os.PathLike,
    *,
    format: str | None = None,
    input: str | None = None,
    textures: bool = False,
    precision: str | None = None,
    half: bool = False,
    calibration: "Sequence[Picture] | None" = None,
) -> "Exported | None":
    """Writes a model as one file for another runtime, which is run and compared with the model before it is there.

    Args:
      model: as `load` returns it.
      path: the file; .onnx, .stablehlo, or .safetensors and .pth for the weights alone.
      format: onnx, stablehlo, safetensors or torch, where the suffix does not say.
      input: of ONNX and StableHLO: float_nchw (the default), float32 pictures [batch 3 H W], normalised; or
        uint8_nhwc, the pictures as they are, [batch H W 3]. docs/deploy.md shows both.
      textures: whether ONNX and StableHLO have the decoder's textures as an output, too.
      precision: of ONNX: float32 (the default), float16, or int8, which needs `calibration`.
      half: whether values of .safetensors and .pth are rounded to float16.
      calibration: some dozens of pictures of the kind that an int8 network will see, as for `Model.features`.

    Returns:
      What was written: `.size` in bytes, `.holds` and `.figures` as texts; None on processes other than the first.

    Raises:
      UserError: an option is wrong, the networks cannot be exported so, the file cannot be written, or it does not
        compute what the model computes; an existing file is kept.
    """
    from san_jax.runtimes import exporting

    options = exporting.Options(format=format, input=input, textures=textures, precision=precision, half=half)
    return exporting.export(model, Path(path), options, calibration=calibration)


def train(config: "ConfigDict", workdir: str | os.PathLike) -> "Model":
    """Trains a model by a config, resuming a run that was interrupted, and returns the model.

    Args:
      config: as `configs.san.get_config()` returns it.
      workdir: folder for everything that the run writes.

    Raises:
      UserError: a field of the config is wrong; the message names it.
      Stopped: a signal stopped the run; its state is saved.
    """
    from san_jax.commands import common

    common.train(config, Path(workdir))
    return load(workdir)
