"""Small models, a test set and a training log, and the report pages that show them."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from array_source import ArraySource
from flax import nnx
from small_networks import SHAPE

from configs import base
from san_jax import devices
from san_jax.model import Model
from san_jax.networks.architecture import arrays_of
from san_jax.report import report
from san_jax.scoring import evaluation
from san_jax.scoring.evaluation import RetrievalSet
from san_jax.training.progress import Progress

PEOPLE = np.arange(12)


def people_set(name="test/people", textures=True):
    """Twelve identities, each once in the query and four times in the gallery, under two cameras."""
    query, gallery = PEOPLE, np.repeat(PEOPLE, 4)
    return RetrievalSet(name, *(ArraySource(pids, name=name, textures=textures) for pids in (query, gallery)))


@functools.cache
def networks(draws):
    encoder, encoder_stats = arrays_of(SHAPE.new_encoder(nnx.Rngs(params=jax.random.key(0, impl="rbg"))))
    weights = {"encoder": encoder, "encoder_stats": encoder_stats}
    if draws:
        decoder, decoder_stats = arrays_of(SHAPE.new_decoder(nnx.Rngs(params=jax.random.key(1, impl="rbg"))))
        weights |= {"decoder": decoder, "decoder_stats": decoder_stats}
    return weights


def config_of(mode, metric="market1501"):
    config = base.get_config("small")
    config.mode, config.data.workers, config.scoring.batch_size, config.scoring.metric = mode, 0, 16, metric
    return config


def model_of(mode, workdir):
    source = str(workdir / "checkpoints" / "7")
    return Model(SHAPE, mode, networks(mode != "baseline"), devices.make_mesh(), source=source, step=1234)


def scores_of(test, metric):
    model = model_of("baseline", Path("run"))
    return evaluation.evaluate(model, [test], metric=metric, batch_size=16, workers=0)


def page_of(workdir, *sets, mode="san", scores=None, metric="market1501"):
    model = model_of(mode, workdir)
    tested = [one for one in sets if isinstance(one, RetrievalSet)]
    feats = {test.name: evaluation.features(model, test, batch_size=16, workers=0) for test in tested}
    found = {test.name: evaluation.score(feats[test.name], test, metric=metric, mesh=model.mesh) for test in tested}
    config = config_of(mode, metric)
    return report.page(config, model, workdir=workdir, sets=sets, scores=scores or found, feats=feats)


def log(workdir, steps=25):
    with Progress(workdir / "events", start=0, total=steps, batch_size=8) as progress:
        for step in range(steps):
            losses = {"id": jnp.float32(8 - step / 5), "texture_triplets": jnp.float32(1)}
            progress.show(step, {"loss": losses, "rate": {"reid": jnp.float32(0.5)}})
        progress.settle()
        for step in (10, 20):
            progress.add_scores(step, {"test/people": {"rank1": step / 100, "rank5": 0.5, "mAP": 0.25}})


def table_rows(text):
    """Rows of the first score table, as text, by name."""
    [body] = re.findall(r"Scores in percent.*?<tbody>(.*?)</tbody>", text, re.S)[:1]
    return {name: re.findall(r"<td>(.*?)</td>", row) for name, row in re.findall(r'row">(.*?)</th>(.*?)</tr>', body)}
