"""One HTML page of a run: its scores, the queries that it gets right and wrong, its textures and its training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from san_jax.batch import Source
from san_jax.drawing import html_page
from san_jax.drawing.html_page import Markup, element
from san_jax.model import Model
from san_jax.report import retrieval_section, texture_section, training_section
from san_jax.scoring.evaluation import RetrievalFeats, RetrievalSet


def page(
    config: ConfigDict,
    model: Model,
    *,
    workdir: Path | None,
    sets: Sequence[RetrievalSet] | Sequence[Source],
    scores: Mapping[str, Mapping[str, float]],
    feats: Mapping[str, RetrievalFeats],
) -> str:
    """The page as text; it needs no other file. All processes compute it together, and each gets the whole page.

    Args:
      config: of the run; `scoring.metric` is the metric of the scores.
      model: what was scored; if it has a decoder, the page shows textures.
      workdir: of the run, for its curves; None if the weights come without a run.
      sets: what it was scored on: test sets or, for a texture generator, sets of held-out pairs.
      scores: scores by name of the set, as scores.json has them.
      feats: for test sets, by name: the features that were scored.

    Raises:
      UserError: a picture cannot be read.
    """
    sections = []
    for one in sets:
        if isinstance(one, RetrievalSet):
            options = dict(architecture=model.architecture, mesh=model.mesh)
            options |= dict(metric=config.scoring.metric, workers=config.data.workers)
            parts = retrieval_section.elements(one, feats[one.name], scores[one.name], **options)
            pictures = one.query
        else:
            parts, pictures = [texture_section.score_table(scores[one.name])], one
        textures = texture_section.elements(pictures, model) if model.draws else []
        sections.append(element("section", element("h2", one.name), *parts, *textures))
    if workdir is not None:
        curves = training_section.elements(workdir / "events")
        sections.append(element("section", element("h2", "Training"), *curves))
    title = f"{model.mode} on {', '.join(one.name for one in sets)}"
    return html_page.page(
        title,
        element("header", element("h1", title), facts_table(config, model)),
        *sections,
        element("section", element("h2", "Config"), config_table(config)),
    )


def facts_table(config: ConfigDict, model: Model) -> Markup:
    """The main facts about the model: checkpoint, architecture and training data."""
    shape = model.architecture
    neck = f" with fc{shape.fc_dim}" if shape.fc_dim else ""
    facts = {
        "checkpoint": model.source,
        "training steps": f"{model.step:,}",
        "encoder": f"ResNet-{shape.depth}{neck}, width {shape.encoder_width:g}",
        "pictures": f"{shape.height} x {shape.width} pixels",
    }
    if config.data.train:  # empty for weights without a run
        facts |= {"trained on": config.data.train, "seed": config.seed}
    return html_page.fields_table(facts)


def config_table(config: ConfigDict) -> Markup:
    """All fields of a config, in a collapsed part of the page."""
    resolved = flatten_dict(config.to_dict(), sep=".")
    return element("details", element("summary", f"{len(resolved)} fields"), html_page.fields_table(resolved))
