"""One HTML page of a run: how it scores, what it finds and misses, what it draws, and how its training went."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jaxtyping import Float64, Int, UInt8
from ml_collections import ConfigDict

from san_jax import devices, event_files, html_page
from san_jax.batch import Source
from san_jax.data import input_pipeline
from san_jax.html_page import Markup, element
from san_jax.networks.architecture import Architecture
from san_jax.scoring import camera_pairs, evaluation, ranked_pictures, ranking, references, texture_scores
from san_jax.scoring.chance import chance_scores
from san_jax.scoring.evaluation import TestSet
from san_jax.scoring.feature_extraction import Extractor
from san_jax.scoring.texture_scores import Weights

NUM_QUERIES = 5  # hardest ones, and as many easiest
NUM_FOUND = 10  # gallery pictures of each
NUM_TEXTURES = 8
HEIGHT = 128  # of queries and what they find, in pixels
SEED = 0  # orders queries that score alike, and chooses whose textures are shown; one seed for all reports
MAX_POINTS = 150  # of a curve; more are averaged in groups
CMC_TICKS = (1, 5, 10, 20, 30, 40, 50)
# Scores that have a chart: its title, and what makes the number one in the title's unit.
SHOWN_SCORES = {
    "rank1": ("rank-1, %", 100.0),
    "mAP": ("mAP, %", 100.0),
    "L1": ("L1", 1.0),
    "PSNR": ("PSNR, dB", 1.0),
    "SSIM": ("SSIM", 1.0),
}

METRICS = {
    "market1501": "Market-1501 metric: pictures of the query's person by the query's own camera are left out.",
    "cuhk03": "CUHK03's single-gallery-shot metric: one gallery picture of each person at random, "
    f"mean of {evaluation.DRAWS} draws. The parts below the curve are of the whole gallery.",
}
PAIRS = (
    "Queries of one camera in the pictures of another one alone. Within a camera there is nothing to find: "
    "pictures of the query's person by its own camera do not count."
)
QUERIES = "By average precision in the whole gallery, one query a person; of equal ones a seed chooses."


def page(
    config: ConfigDict,
    weights: Weights,
    *,
    architecture: Architecture,
    workdir: Path,
    checkpoint: Path,
    step: int,
    sets: Sequence[TestSet] | Sequence[Source],
    scores: Mapping[str, Mapping[str, float]],
    mesh: Mesh,
    mirror: bool = False,
) -> str:
    """The page, whole in itself. All processes compute it together, and each has it.

    Args:
      config: of the run; `scoring.metric` is that of the scores.
      weights: `encoder` and `encoder_stats` of a TrainState; `decoder` and `decoder_stats` too if textures are shown.
      architecture: of the networks.
      workdir: whose event files say how the run went.
      checkpoint: where the weights are from.
      step: updates made until then.
      sets: what was scored: test sets, or a texture generator's held-out pairs.
      scores: by set, as scores.json has them.
      mesh: over whose devices pictures and gallery are cut.
      mirror: whether features are means over a picture and its mirror image, as in `scores`.

    Raises:
      UserError: a picture cannot be read.
    """
    options = dict(
        batch_size=config.scoring.batch_size, compute_dtype=config.compute_dtype, workers=config.data.workers
    )
    extractor = Extractor(architecture, mesh, **options, mirror=mirror)
    sections = []
    for one in sets:
        found = isinstance(one, TestSet)
        numbers = [score_table(scores[one.name])]
        if found:
            numbers = of_people(one, weights, scores[one.name], extractor=extractor, metric=config.scoring.metric)
        drawn = of_textures(one.query if found else one, weights, extractor=extractor) if "decoder" in weights else []
        sections.append(element("section", element("h2", one.name), *numbers, *drawn))
    title = f"{config.mode} on {', '.join(one.name for one in sets)}"
    return html_page.page(
        title,
        element("header", element("h1", title), about(config, architecture, checkpoint=checkpoint, step=step)),
        *sections,
        element("section", element("h2", "How the run went"), *of_training(workdir / "events")),
        element("section", element("h2", "Config"), fields(config)),
    )


def about(config: ConfigDict, architecture: Architecture, *, checkpoint: Path, step: int) -> Markup:
    """What was scored."""
    shape, neck = architecture, f" with fc{architecture.fc_dim}" if architecture.fc_dim else ""
    facts = {
        "checkpoint": checkpoint,
        "updates made": f"{step:,}",
        "trained on": config.data.train,
        "encoder": f"ResNet-{shape.depth}{neck}, width {shape.encoder_width:g}",
        "pictures": f"{shape.height} x {shape.width} pixels",
        "seed": config.seed,
    }
    return html_page.fields_table(facts)


def fields(config: ConfigDict) -> Markup:
    """All fields of a config, folded up."""
    resolved = flatten_dict(config.to_dict(), sep=".")
    return element("details", element("summary", f"{len(resolved)} fields"), html_page.fields_table(resolved))


def of_people(
    test: TestSet, weights: Weights, numbers: Mapping[str, float], *, extractor: Extractor, metric: str
) -> list[Markup]:
    """Scores beside references, CMC, camera pairs, hardest and easiest queries of a test set."""
    mesh, workers = extractor.mesh, extractor.workers
    feats = [extractor(weights["encoder"], weights["encoder_stats"], source) for source in (test.query, test.gallery)]
    colours = [references.colours(source, mesh=mesh, workers=workers) for source in (test.query, test.gallery)]
    compared = {
        "this run": evaluation.score_feats(*feats, test, metric=metric, mesh=mesh),
        "colour histogram": evaluation.score_feats(
            *colours, test, metric=metric, mesh=mesh, search=references.BY_COLOURS
        ),
        "chance": chance_scores(**evaluation.labels(test), single_shot=metric == "cuhk03"),
    }
    ranks = np.asarray(ranking.rank(*feats, **evaluation.labels(test), mesh=mesh))
    hardest, easiest = hardest_and_easiest(ranks, test.query.pids)
    shown = functools.partial(of_query, test, *feats, ranks=ranks, architecture=extractor.architecture)
    return [
        element("p", size_of(test), class_="faint"),
        element("p", METRICS[metric], class_="faint"),
        score_table(numbers, **{name: evaluation.in_numbers(compared[name]) for name in list(compared)[1:]}),
        element("h3", "Cumulative matching characteristic"),
        cmc_chart(compared),
        *of_cameras(camera_pairs.score(*feats, **evaluation.labels(test))),
        element("h3", "Hardest queries"),
        element("p", QUERIES, class_="faint"),
        *(part for query in hardest for part in shown(query)),
        element("h3", "Easiest queries"),
        *(part for query in easiest for part in shown(query)),
    ]


def size_of(test: TestSet) -> str:
    """What is searched in what, in words."""
    people, cameras = len(np.unique(test.gallery.pids)), len(np.unique(test.gallery.camids))
    sizes = f"{len(test.query):,} queries in {len(test.gallery):,} gallery pictures"
    return f"{sizes} of {people:,} people under {cameras} cameras, which are counted from 0."


def score_table(numbers: Mapping[str, float], **compared: Mapping[str, float]) -> Markup:
    """Scores of this run, and what they are to be compared with; people's in percent, textures' in their units."""
    people = "mAP" in numbers
    rows = {
        name: [f"{100 * value:.2f}" if people else f"{value:.4g}" for value in row.values()]
        for name, row in {"this run": numbers, **compared}.items()
    }
    caption = "Scores in percent" if people else texture_scores.UNITS
    return html_page.table([name.replace("rank", "rank-") for name in numbers], rows, caption=caption)


def cmc_chart(compared: Mapping[str, ranking.Scores]) -> Markup:
    """Share of the queries with a correct picture among the first 1, 2, ..."""
    curves = {name: 100 * scores.cmc for name, scores in compared.items()}
    ranks = np.arange(1, len(next(iter(curves.values()))) + 1)
    axes = dict(x_label="rank", y_label="queries with a right picture up to that rank, %", x_ticks=CMC_TICKS)
    chart = html_page.line_chart(ranks, curves, **axes, width=480, height=280, top=100.0)
    return element("figure", html_page.legend(list(curves)), chart, class_="chart")


def of_cameras(pairs: camera_pairs.CameraPairs) -> list[Markup]:
    """Two tables by camera of query and gallery; nothing where there is one camera alone."""
    if np.isnan(pairs.mAP).all():
        return []
    titles = dict(
        rows=[f"camera {camid}" for camid in pairs.query_camids],
        columns=[str(camid) for camid in pairs.gallery_camids],
        corner="query \\ gallery",
    )
    tables = [
        html_page.heat_table(shares, **titles, caption=f"{name}, %")
        for name, shares in (("rank-1", pairs.rank1), ("mAP", pairs.mAP))
    ]
    words = element("p", PAIRS, class_="faint")
    return [element("h3", "By pair of cameras"), words, element("div", *tables, class_="beside")]


def average_precisions(ranks: Int[np.ndarray, "Q P"]) -> Float64[np.ndarray, "Q"]:
    """Of every query by the ranks of its correct pictures; NaN where it has none."""
    return np.array([ranking.scores(row[None]).mAP if row.any() else np.nan for row in ranks])


def hardest_and_easiest(ranks: Int[np.ndarray, "Q P"], pids: Int[np.ndarray, "Q"]) -> tuple[list[int], list[int]]:
    """Rows of the queries with the lowest and with the highest average precision, no person twice in a list.

    Queries without a correct picture are none of them, and no query is in both lists.
    """
    precision = average_precisions(ranks)
    shuffled = np.random.default_rng(SEED).permutation(np.flatnonzero(~np.isnan(precision)))
    rows = shuffled[np.argsort(precision[shuffled], kind="stable")]
    hardest = _one_a_person(rows, pids)
    return hardest, _one_a_person(rows[~np.isin(rows, hardest)][::-1], pids)


def _one_a_person(rows, pids):
    first = np.sort(np.unique(pids[rows], return_index=True)[1])
    return rows[first[:NUM_QUERIES]].tolist()


def of_query(
    test: TestSet,
    query_feats: np.ndarray,
    gallery_feats: np.ndarray,
    query: int,
    *,
    ranks: Int[np.ndarray, "Q P"],
    architecture: Architecture,
) -> list[Markup]:
    """A query and what it finds first: right ones framed in green, wrong ones in red."""
    pid, camid = test.query.pids[query], test.query.camids[query]
    first = min(NUM_FOUND, len(test.gallery))
    [found] = ranked_pictures.nearest(test, np.array([query]), query_feats, gallery_feats, first=first)
    found = found.tolist()
    size = dict(height=HEIGHT, width=HEIGHT * architecture.width // architecture.height)
    [asked] = pictures(test.query, [query], **size)
    name = test.query.names[query]
    alt = f"query {name}: person {pid}, camera {camid}"
    entries = [element("li", captioned(asked, alt, f"query, cam {camid}"), class_="asked")]
    for place, (row, hit) in enumerate(zip(found, pictures(test.gallery, found, **size), strict=True), start=1):
        right, camera = test.gallery.pids[row] == pid, test.gallery.camids[row]
        alt = f"{place}: {'right' if right else 'wrong'}, person {test.gallery.pids[row]}, camera {camera}"
        entry = captioned(hit, alt, f"{'✓' if right else '✗'} cam {camera}")
        entries.append(element("li", entry, class_=f"framed {'right' if right else 'wrong'}"))
    numbers = ranks[query][ranks[query] > 0]
    said = (
        f"{name}: average precision {100 * average_precisions(ranks[query : query + 1])[0]:.1f} %, "
        f"first right one at rank {numbers.min():,}, last of {len(numbers)} at {numbers.max():,}"
    )
    return [element("p", said), element("ol", *entries, class_="pictures")]


def of_textures(source: Source, weights: Weights, *, extractor: Extractor) -> list[Markup]:
    """Some pictures, what the decoder draws of them, and the true textures where the set has them."""
    architecture = extractor.architecture
    count = min(NUM_TEXTURES, len(source))
    rows = np.sort(np.random.default_rng(SEED).choice(len(source), count, replace=False)).tolist()
    images = pictures(source, rows, height=architecture.height, width=architecture.width)
    columns = {"picture": images, "drawn": draw(images, weights, extractor=extractor)}
    if source.has_textures:
        columns["true"] = pictures(source, rows, "texture", height=architecture.height, width=architecture.height)
    lists = []
    for place, row in enumerate(rows):
        name = source.names[row]
        entries = [
            element("li", captioned(shown[place], f"{kind} of {name}" if kind != "picture" else name, kind))
            for kind, shown in columns.items()
        ]
        lists.append(element("figure", element("figcaption", name), element("ul", *entries, class_="pictures")))
    words = f"{count} of {len(source):,} pictures, drawn by running statistics."
    return [
        element("h3", "Textures"),
        element("p", words, class_="faint"),
        element("div", *lists, class_="beside"),
    ]


def draw(
    images: UInt8[np.ndarray, "n H W 3"], weights: Weights, *, extractor: Extractor
) -> UInt8[np.ndarray, "n H H 3"]:
    """The decoder's drawings as pictures."""
    drawing = functools.partial(
        texture_scores.draw_textures, architecture=extractor.architecture, compute_dtype=extractor.compute_dtype
    )
    mesh = extractor.mesh
    textures = jax.jit(drawing, out_shardings=devices.replicated(mesh))(weights, devices.put_everywhere(mesh, images))
    return np.round(127.5 * (np.clip(jax.device_get(textures), -1, 1) + 1)).astype(np.uint8)


def pictures(
    source: Source, rows: Sequence[int], field: str = "image", *, height: int, width: int
) -> UInt8[np.ndarray, "n {height} {width} 3"]:
    """Some records' pictures or textures."""
    records = [source[row] for row in rows]
    return input_pipeline.decode_all(source, records, field, height=height, width=width)


def captioned(pixels: UInt8[np.ndarray, "H W 3"], alt: str, caption: str) -> Markup:
    """A picture with a few words under it."""
    return element("figure", html_page.picture(pixels, alt), element("figcaption", caption))


def of_training(events: Path) -> list[Markup]:
    """A chart of each loss term, of the scores on the way, and of each learning rate."""
    curves = {"loss": [], "score": [], "rate": []}
    for tag, points in sorted(event_files.read_scalars(events).items()):
        group, _, name = tag.rpartition("/")
        if len(points) < 2:
            continue
        if group in ("loss", "rate"):
            curves[group].append(curve(f"{group}: {name.replace('_', ' ')}", points))
        elif name in SHOWN_SCORES:
            title, factor = SHOWN_SCORES[name]
            curves["score"].append(curve(f"{group}: {title}", points, factor=factor))
    charts = [chart for group in curves.values() for chart in group]
    if not charts:
        return [element("p", "The run's folder of events holds no curves: nothing was logged twice.")]
    return [element("div", *charts, class_="charts")]


def curve(title: str, points: Mapping[int, float], *, factor: float = 1.0) -> Markup:
    """A chart of numbers by step, which says where they end; groups of points are averaged where there are many."""
    steps, values = np.array(list(points)), factor * np.array(list(points.values()))
    groups = [np.array_split(numbers, min(len(steps), MAX_POINTS)) for numbers in (steps, values)]
    x, y = (np.array([group.mean() for group in numbers]) for numbers in groups)
    size = -(-len(steps) // len(x))
    each = f"; each point is the mean of up to {size}" if size > 1 else ""
    caption = element("figcaption", f"{title}: {values[-1]:.4g} at step {steps[-1]:,}{each}")
    chart = html_page.line_chart(x, {title: y}, x_label="step", y_label="", width=340, height=190)
    return element("figure", caption, chart)
