"""Trains the paper's networks on rendered people kept on the device: SAN-PG, then the baseline and SAN.

    python -m benchmarks.learning --minutes=5 --out=FOLDER
    python -m benchmarks.learning --tiny                       # a trial run, a minute on two CPU cores

Pictures and textures are rendered into the device's memory and gathered inside the jitted step; data sets, worker
processes and files are not involved. Three networks are then trained for the same number of steps: the baseline from
random weights, the baseline from SAN-PG's encoder, and SAN from SAN-PG's encoder and decoder. Writes learning.json
after every part, and a sheet of held-out pictures with their generated and their true textures.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from PIL import Image

from benchmarks.case import new_folder
from san_jax import model
from san_jax.batch import Batch
from san_jax.data import augmentation, identity_sampler
from san_jax.networks.architecture import Architecture
from san_jax.scoring import ranking
from san_jax.synthesis import splits, studio
from san_jax.synthesis.scene import Shot
from san_jax.synthesis.sitting import Sitting, sit
from san_jax.synthesis.studio import Moment
from san_jax.training import optimizers, train_step
from san_jax.training.train_step import Networks, TrainState

INSTANCES = 4
SCORED = 128  # pictures in one call of the encoder when scoring


class Pictures(NamedTuple):
    """Rendered pictures on the device.

    Attributes:
      images: uint8 [n H W 3].
      textures: uint8 [m S S 3], one per person.
      texture_of: row of `textures` for each picture, int32 [n].
      pids: label of each picture, int32 [n].
      camids: camera of each picture, int32 [n], on the host.
    """

    images: Array
    textures: Array
    texture_of: Array
    pids: Array
    camids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of pictures, networks and runs; the defaults are the paper's networks and people of synthetic_reid/full.

    Attributes:
      height: of the pictures, in pixels, twice their width; also the height and width of the textures.
      depth, width, fc_dim, decoder_width: of the networks, as in `Architecture`.
      identities: number of identities in one batch.
      train_people, test_people: number of people.
      pairs: number of pairs of picture and texture, including the held-out ones.
      held_out: of them, those kept for scoring the generated textures.
      pg_steps: training steps of SAN-PG.
      reid_steps: training steps of each re-ID network.
      at_once: pictures in one call of the renderer.
      compute_dtype: of the networks during training.
    """

    height: int = 256
    depth: int = 50
    width: float = 1.0
    fc_dim: int = 512
    decoder_width: float = 1.0
    identities: int = 16
    train_people: int = 767
    test_people: int = 300
    pairs: int = 6000
    held_out: int = 200
    pg_steps: int = 2000
    reid_steps: int = 1500
    at_once: int = 16
    compute_dtype: str = "bfloat16"


TINY = Size(  # of pictures and textures for which tests render too, so that the program is compiled once
    height=32, depth=10, width=0.125, fc_dim=32, decoder_width=0.125, identities=4, train_people=8, test_people=4,
    pairs=24, held_out=8, pg_steps=3, reid_steps=3, compute_dtype="float32",
)  # fmt: skip


def main() -> None:
    """Renders, trains and scores as the flags say."""
    flags = parse_flags()
    deadline = time.monotonic() + 60 * flags.minutes
    size = dataclasses.replace(
        TINY if flags.tiny else Size(),
        **{name: value for name in ("pg_steps", "reid_steps", "at_once") if (value := getattr(flags, name))},
    )
    report: dict[str, Any] = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    report |= {"date": time.strftime("%Y-%m-%d"), "size": dataclasses.asdict(size), "parts": {}}

    def keep(name: str, part: dict[str, Any]) -> None:
        report["parts"][name] = part
        (flags.out / "learning.json").write_text(json.dumps(report, indent=1) + "\n")
        print(name, json.dumps({key: value for key, value in part.items() if key != "curve"}), flush=True)

    with ThreadPoolExecutor(4) as pool:  # programs compile while pictures are rendered
        trainers = {mode: Trainer.begin(mode, size, pool) for mode in ("san_pg", "baseline", "san")}
        learn(size, trainers, keep=keep, deadline=deadline, sheet=flags.out / "learning.png")


def parse_flags() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--minutes", type=float, default=5, help="minutes after which no training starts (default: 5)")
    add("--pg_steps", type=int, default=0, help="training steps of SAN-PG (default: 2,000)")
    add("--reid_steps", type=int, default=0, help="training steps of each re-ID network (default: 1,500)")
    add("--at_once", type=int, default=0, help="pictures in one call of the renderer (default: 16)")
    add("--tiny", action="store_true", help="small sizes for two CPU cores")
    add("--out", type=new_folder, default="runs/learning", help="output folder (default: runs/learning)")
    return parser.parse_args()


def learn(size: Size, trainers: dict[str, "Trainer"], *, keep: Callable, deadline: float, sheet: Path) -> None:
    """Runs all parts, the most important first; parts that would start after the deadline are skipped and reported."""
    begin = time.perf_counter()
    pairs, held_out = render_pairs(size)
    keep("render_pairs", {"pictures": len(pairs.pids) + size.held_out, "seconds": time.perf_counter() - begin})
    begin = time.perf_counter()
    people = render_people(size)
    num_pictures = sum(len(pictures.pids) for pictures in people.values())
    keep("render_people", {"pictures": num_pictures, "seconds": time.perf_counter() - begin})

    rows = identity_sampler.shuffled_plan(len(pairs.pids), batch_size=batch_size(size), epochs=1000, seed=0).rows
    generator, part = trainers["san_pg"].train(pairs, rows[: size.pg_steps])
    part |= texture_scores(size, generator, pairs, held_out, sheet=sheet)
    keep("san_pg", part)

    plan = functools.partial(identity_sampler.identity_plan, identities=size.identities, instances=INSTANCES)
    rows = plan(np.asarray(people["train"].pids), epochs=400, seed=0).rows[: size.reid_steps]
    for name, mode, start in (
        ("baseline_pg", "baseline", generator),
        ("baseline_random", "baseline", None),
        ("san_pg_start", "san", generator),
    ):
        if time.monotonic() > deadline:
            keep(name, {"left_out": "no time"})
            continue
        state, part = trainers[mode].train(people["train"], rows, start=start)
        part |= reid_scores(size, state, people["query"], people["gallery"])
        keep(name, part)


def batch_size(size: Size) -> int:
    """Pictures in one training step."""
    return size.identities * INSTANCES


def architecture_of(size: Size) -> Architecture:
    """The architecture of the networks."""
    return Architecture(
        depth=size.depth,
        fc_dim=size.fc_dim,
        last_stride=1,
        encoder_width=size.width,
        num_pids=size.train_people,
        decoder_width=size.decoder_width,
        skips=True,
        height=size.height,
        width=size.height // 2,
    )


# ---- Training.


@dataclasses.dataclass
class Trainer:
    """The training step of one mode, compiled in the background for pictures on the device.

    Attributes:
      networks: mode, architecture and compute type.
      fresh: returns the initial state.
      step: jitted (state, images, textures, texture_of, pids, rows) -> state and loss terms.
      warmed: future of the compiled step and the seconds that compilation took.
    """

    networks: Networks
    fresh: Callable[[], TrainState]
    step: Callable
    warmed: Future | None = None

    @classmethod
    def begin(cls, mode: str, size: Size, pool: ThreadPoolExecutor) -> "Trainer":
        """Starts to compile the step of a mode, for data of the shapes that `expected` returns."""
        networks = Networks(mode, architecture_of(size), size.compute_dtype)
        steps = size.pg_steps if mode == "san_pg" else size.reid_steps
        reid_tx = optimizers.make_optimizer("amsgrad", warm_cosine(8e-4, steps), weight_decay=5e-4)
        recon_tx = optimizers.make_optimizer("adam", warm_cosine(1e-3 if mode == "san_pg" else 1e-4, steps), b1=0.5)
        make = functools.partial(train_step.make_state, networks, reid_tx=reid_tx, recon_tx=recon_tx, seed=0)
        flips = dict(mirror=0.0, erase=0.0) if mode == "san_pg" else dict(mirror=0.5, erase=0.5)
        augment = functools.partial(
            augmentation.augment, height=size.height, width=size.height // 2, crop=0.5, **flips
        )
        # Texture triplets are left out: they sum squared activations and would outweigh the reconstruction by far.
        objective = train_step.Objective(instances=INSTANCES, texture_triplets=0.0)
        options = dict(networks=networks, objective=objective, augment=augment, reid_tx=reid_tx, recon_tx=recon_tx)
        trainer = cls(networks, jax.jit(make), jax.jit(functools.partial(gathered_step, **options), donate_argnums=0))
        trainer.warmed = pool.submit(trainer.compile, jax.eval_shape(make), expected(mode, size))
        return trainer

    def compile(self, state: TrainState, data: Sequence[jax.ShapeDtypeStruct]) -> tuple[Callable, float]:
        """The compiled step, and the seconds that compilation took."""
        begin = time.perf_counter()
        compiled = self.step.lower(state, *data).compile()
        return compiled, time.perf_counter() - begin

    def train(self, data: Pictures, rows: np.ndarray, *, start: TrainState | None = None) -> tuple[TrainState, dict]:
        """Trains one step for each row of `rows`; returns the state, and speed and loss terms for the report."""
        step, compile_seconds = self.warmed.result()
        state = self.fresh()
        if start is not None:
            state = started(state, start)
        arrays = (data.images, data.textures, data.texture_of, data.pids)
        rows = jax.device_put(rows.astype(np.int32))
        curve, begin = [], time.perf_counter()
        for number in range(len(rows)):
            state, terms = step(state, *arrays, rows[number])
            if number % 50 == 0 or number == len(rows) - 1:
                curve.append((number, terms))
        jax.block_until_ready(state)
        seconds = time.perf_counter() - begin
        curve = [{"step": number} | {key: float(value) for key, value in terms.items()} for number, terms in curve]
        part = {"steps": len(rows), "seconds": seconds, "steps_per_second": len(rows) / seconds}
        return state, part | {"compile_seconds": compile_seconds, "last": curve[-1], "curve": curve}


def gathered_step(state, images, textures, texture_of, pids, rows, *, networks, **options):
    """One training step on the given rows of the pictures on the device."""
    batch = Batch(
        roomy(images[rows]),
        textures[texture_of[rows]] if networks.draws else None,
        pids[rows],
    )
    return train_step.train_step(state, batch, networks=networks, seed=0, **options)


def roomy(images: Array) -> Array:
    """Pictures enlarged to 9/8 of their size, as the random crop expects them."""
    shape = (len(images), images.shape[1] * 9 // 8, images.shape[2] * 9 // 8, 3)
    return jnp.round(jax.image.resize(images.astype(jnp.float32), shape, "linear")).astype(jnp.uint8)


def expected(mode: str, size: Size) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of images, textures, texture_of and pids that a mode is trained on."""
    if mode == "san_pg":
        num_pictures, num_textures = size.pairs - size.held_out, size.pairs - size.held_out
    else:
        moments = splits.splits(seed=1, train_people=size.train_people, test_people=0)["train"]
        num_pictures, num_textures = len(moments), size.train_people
    shaped = jax.ShapeDtypeStruct
    return (
        shaped((num_pictures, size.height, size.height // 2, 3), jnp.uint8),
        shaped((num_textures, size.height, size.height, 3), jnp.uint8),
        shaped((num_pictures,), jnp.int32),
        shaped((num_pictures,), jnp.int32),
        shaped((batch_size(size),), jnp.int32),
    )


def warm_cosine(peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up for a twentieth of the steps, then a cosine down to a hundredth of the peak."""
    warmup = max(1, steps // 20)
    return optax.warmup_cosine_decay_schedule(peak / 100, peak, warmup, max(steps, warmup + 1), peak / 100)


def started(fresh: TrainState, generator: TrainState) -> TrainState:
    """A fresh state with the generator's encoder, except fc and classifier, and its decoder if the mode has one."""
    heads = ("fc", "classifier")

    def body(own, other):
        return {name: own[name] if name in heads else jax.tree.map(jnp.copy, other[name]) for name in own}

    drawn = dict(decoder=generator.decoder, decoder_stats=generator.decoder_stats) if fresh.decoder else {}
    return dataclasses.replace(
        fresh,
        encoder=body(fresh.encoder, generator.encoder),
        encoder_stats=body(fresh.encoder_stats, generator.encoder_stats),
        **jax.tree.map(jnp.copy, drawn),
    )


# ---- Rendering.


def render_pairs(size: Size) -> tuple[Pictures, Pictures]:
    """Pairs of picture and texture, each with a different wardrobe: those to train on, and the held-out ones."""
    dresser, sitter = jax.random.split(jax.random.key(3))
    numbers = np.arange(size.pairs, dtype=np.int32)
    sittings = Sitting(numbers, np.zeros_like(numbers), None)
    images, textures = taken(size, sit, sitter, dresser, numbers, sittings)
    cut = size.pairs - size.held_out

    def part(rows: slice) -> Pictures:
        own = jnp.arange(len(numbers[rows]), dtype=jnp.int32)
        return Pictures(jnp.asarray(images[rows]), jnp.asarray(textures[rows]), own, own, numbers[rows])

    return part(slice(cut)), part(slice(cut, None))


def render_people(size: Size) -> dict[str, Pictures]:
    """Train, query and gallery of the world of synthetic_reid/full, with fewer test people."""
    world = studio.make_world(jax.random.key(1), cameras=splits.CAMERAS, occlusion=0.25, sloppiness=0.5)
    plan = splits.splits(seed=1, train_people=size.train_people, test_people=size.test_people)
    found = {}
    for split, pictures in plan.items():
        moments = Moment(*np.array(pictures, np.int32).T)
        images, textures = taken(size, studio.before_a_camera, world, world.people, moments.person, moments)
        _, first, texture_of = np.unique(moments.person, return_index=True, return_inverse=True)
        found[split] = Pictures(
            jnp.asarray(images),
            jnp.asarray(textures[first]) if split == "train" else jnp.zeros((1, 1, 1, 3), jnp.uint8),
            jnp.asarray(texture_of.astype(np.int32)),
            jnp.asarray(moments.person),
            moments.camera,
        )
    return found


def taken(size: Size, take: Callable, setting, dresser, numbers, shots) -> tuple[np.ndarray, np.ndarray]:
    """All pictures and textures that `studio.render` yields, uint8 [n H W 3] and [n S S 3]."""
    shapes = dict(height=size.height, width=size.height // 2, texture_side=size.height, at_once=size.at_once)
    shots, textures = zip(*studio.render(take, setting, dresser, numbers, shots, **shapes), strict=True)
    images = [shot.picture if isinstance(shot, Shot) else shot for shot in shots]
    return np.stack(images), np.stack(textures)


# ---- Scores.


def texture_scores(size: Size, state: TrainState, pairs: Pictures, held_out: Pictures, *, sheet: Path) -> dict:
    """Mean L1 distance of generated to true textures of held-out pairs, pixels in [-1, 1]; also writes the sheet.

    For comparison, the distance of the median training texture to the true ones is returned too.
    """
    options = dict(architecture=architecture_of(size), compute_dtype="float32")
    draw = jax.jit(lambda state, images: model.drawn_by(vars(state), images, **options))
    drawn = np.concatenate([np.asarray(draw(state, held_out.images[i : i + 50])) for i in range(0, size.held_out, 50)])
    true = np.asarray(held_out.textures, np.float32) / 127.5 - 1
    some = np.asarray(pairs.textures[:: max(1, len(pairs.pids) // 1000)], np.float32) / 127.5 - 1
    rows = [
        np.concatenate([np.asarray(held_out.images[i]), as_picture(drawn[i]), as_picture(true[i])], 1)
        for i in range(8)
    ]
    Image.fromarray(np.concatenate(rows)).save(sheet)
    return {
        "held_out_L1": float(np.abs(drawn - true).mean()),
        "median_texture_L1": float(np.abs(np.median(some, axis=0) - true).mean()),
    }


def as_picture(texture: np.ndarray) -> np.ndarray:
    """A picture in [-1, 1] as uint8."""
    return np.clip(np.round((texture + 1) * 127.5), 0, 255).astype(np.uint8)


def reid_scores(size: Size, state: TrainState, query: Pictures, gallery: Pictures) -> dict[str, float]:
    """Rank-1 and mAP of float32 features."""
    options = dict(architecture=architecture_of(size), compute_dtype="float32", flip=False)
    feats = jax.jit(lambda state, images: model.feats_of(vars(state), images, **options))

    def all_feats(pictures: Pictures) -> np.ndarray:
        starts = range(0, len(pictures.pids), SCORED)
        return np.concatenate([np.asarray(feats(state, pictures.images[i : i + SCORED])) for i in starts])

    ranks = ranking.rank(
        all_feats(query),
        all_feats(gallery),
        query_pids=np.asarray(query.pids),
        gallery_pids=np.asarray(gallery.pids),
        query_camids=query.camids,
        gallery_camids=gallery.camids,
    )
    found = ranking.scores(ranks)
    return {"rank_1": float(found.cmc[0]), "mAP": found.mAP, "queries": found.num_queries}


if __name__ == "__main__":
    main()
