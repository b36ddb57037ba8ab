"""TrainState and the step: one forward pass, two backward passes at the same parameters, two updates.

The only file that asks for the mode:

  baseline   encoder               re-ID losses
  san        encoder and decoder   re-ID losses; reconstruction and texture triplets
  san_pg     encoder and decoder   reconstruction alone
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from san_jax.batch import Batch
from san_jax.data import augmentation, streams
from san_jax.errors import UserError
from san_jax.networks.architecture import COMPUTE_DTYPES, MODES, Architecture, arrays_of
from san_jax.networks.decoder import DecoderOutput
from san_jax.networks.encoder import EncoderOutput
from san_jax.training import losses


def learns_people(mode: str) -> bool:
    """Whether a mode has the re-ID losses, and so is scored by finding people; else by what it draws."""
    return mode != "san_pg"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a resumed run needs: nested dictionaries of arrays. Decoder and its kin are empty in `baseline`.

    Attributes:
      step: updates made, int32; also the position in the data and the seed of the augmentation.
      encoder: parameters.
      encoder_stats: running statistics of its BatchNorms.
      decoder: parameters.
      decoder_stats: running statistics.
      reid_opt: state of the main optimizer, over the encoder; empty in `san_pg`.
      recon_opt: state of the texture losses' optimizer, over decoder and encoder; empty in `baseline`.
    """

    step: PyTree
    encoder: PyTree
    encoder_stats: PyTree
    decoder: PyTree
    decoder_stats: PyTree
    reid_opt: PyTree
    recon_opt: PyTree


@dataclasses.dataclass(frozen=True)
class Networks:
    """Encoder and decoder without their numbers, which losses they serve, and which of the encoder's children learn.

    Attributes:
      mode: one of MODES.
      architecture: what they look like.
      compute_dtype: float32 or bfloat16.
      open_layers: names of the encoder's children that learn; the others keep to their running statistics, unmoved,
        and the optimizers must leave them alone (`optimizers.frozen_except`). None = all learn.
    """

    mode: str
    architecture: Architecture
    compute_dtype: str = "float32"
    open_layers: Sequence[str] | None = None

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"mode is {self.mode!r}; there are {', '.join(MODES)}")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise UserError(f"compute_dtype is {self.compute_dtype!r}; there are {', '.join(COMPUTE_DTYPES)}")

    @property
    def learns_people(self) -> bool:
        """Whether the re-ID losses are computed."""
        return learns_people(self.mode)

    @property
    def draws(self) -> bool:
        """Whether there is a decoder, and so a texture to read for every picture."""
        return self.mode != "baseline"

    @property
    def compares_textures(self) -> bool:
        """Whether the texture triplets are computed, and pairs may stand behind the rows of people."""
        return self.mode == "san"

    def encode(self, encoder: PyTree, stats: PyTree, images: Float[Array, "B H W 3"]) -> tuple[EncoderOutput, PyTree]:
        """The encoder's outputs in training, and its running statistics after the pass."""
        model = nnx.eval_shape(lambda: self.architecture.new_encoder(nnx.Rngs(0), self.compute_dtype))
        for name, child in vars(model).items():
            if self.open_layers is not None and isinstance(child, nnx.Module) and name not in self.open_layers:
                child.eval()
        return run(model, encoder, stats, images)

    def draw(self, decoder: PyTree, stats: PyTree, stages: Sequence[Array]) -> tuple[DecoderOutput, PyTree]:
        """The decoder's outputs in training, and its running statistics after the pass."""
        model = nnx.eval_shape(lambda: self.architecture.new_decoder(nnx.Rngs(0), self.compute_dtype))
        return run(model, decoder, stats, tuple(stages))


def run(model: nnx.Module, params: PyTree, stats: PyTree, x) -> tuple[PyTree, PyTree]:
    """Outputs of a model whose own arrays are replaced by `params` and `stats`, and the statistics after the pass."""
    graph, *_ = nnx.split(model, nnx.Param, nnx.BatchStat)
    # Without the copy BatchNorm cannot write its statistics inside a trace.
    model = nnx.merge(graph, params, stats, copy=True)
    return model(x), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def make_state(
    networks: Networks, *, reid_tx: optax.GradientTransformation, recon_tx: optax.GradientTransformation, seed: int
) -> TrainState:
    """Fresh networks and optimizers; to be called under `jax.jit`, with the shardings it shall have."""
    encoder_key, decoder_key = (streams.key(seed, part) for part in ("encoder", "decoder"))
    shape = networks.architecture
    encoder, encoder_stats = arrays_of(shape.new_encoder(nnx.Rngs(params=encoder_key)))
    decoder, decoder_stats = arrays_of(shape.new_decoder(nnx.Rngs(params=decoder_key))) if networks.draws else ({}, {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        encoder=encoder,
        encoder_stats=encoder_stats,
        decoder=decoder,
        decoder_stats=decoder_stats,
        reid_opt=reid_tx.init(encoder) if networks.learns_people else {},
        recon_opt=recon_tx.init(drawing_parts(encoder, decoder)) if networks.draws else {},
    )


def drawing_parts(encoder: PyTree, decoder: PyTree) -> PyTree:
    """What the texture losses move: the encoder's children and, beside them, the decoder.

    One Adam over both equals the released code's two, since Adam works element by element; fc and classifier, which
    the released code freezes here, get no gradient from these losses and so no update.
    """
    return {**encoder, "decoder": decoder}


@dataclasses.dataclass(frozen=True)
class Objective:
    """The numbers of the losses; see configs/base.py for their meaning."""

    instances: int
    label_smoothing: float = 0.1
    htri_only: bool = False
    margin: float = 0.3
    texture_triplets: float = 1.0
    texture_margin: float = 0.3


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    networks: Networks,
    objective: Objective,
    augment: Callable[[Array, Array], Array],
    reid_tx: optax.GradientTransformation,
    recon_tx: optax.GradientTransformation,
    seed: int,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """The state after one update, and the loss terms before it.

    Args:
      state: is used up where the caller donates it.
      batch: the global batch.
      networks: graphs and mode.
      objective: numbers of the losses.
      augment: (key, uint8 pictures) -> what the encoder sees.
      reid_tx: the main optimizer.
      recon_tx: the texture losses' optimizer, over `drawing_parts`.
      seed: of the augmentation.
    """
    images = augment(jax.random.fold_in(streams.key(seed, "augmentation"), state.step), batch.image)
    people = len(batch.pid)  # rows behind these are pairs for the decoder alone
    encoder, decoder, decoder_stats = state.encoder, state.decoder, state.decoder_stats
    reid_opt, recon_opt, terms = state.reid_opt, state.recon_opt, {}

    # One trace of the encoder; `pull` takes gradients at its outputs back to its parameters, as often as asked.
    out, pull, encoder_stats = jax.vjp(
        lambda encoder: networks.encode(encoder, state.encoder_stats, images), encoder, has_aux=True
    )
    nowhere = jax.tree.map(jnp.zeros_like, out)

    if networks.learns_people:

        def reid_loss(feats, logits):
            return reid_terms(feats[:people], logits[:people], batch.pid, objective=objective)

        (at_feats, at_logits), reid_losses = jax.grad(reid_loss, argnums=(0, 1), has_aux=True)(out.feats, out.logits)
        (grads,) = pull(dataclasses.replace(nowhere, feats=at_feats, logits=at_logits))
        updates, reid_opt = reid_tx.update(grads, reid_opt, encoder)
        encoder = optax.apply_updates(encoder, updates)
        terms |= reid_losses

    if networks.draws:
        texture = augmentation.scale_texture(batch.texture)

        def recon_loss(decoder, stages):
            drawn, stats = networks.draw(decoder, decoder_stats, stages)
            levels = [level[:people] for level in drawn.levels] if networks.compares_textures else None
            loss, terms = recon_terms(drawn.texture, texture, levels, objective=objective)
            return loss, (terms, stats)

        (decoder_grads, at_stages), (recon_losses, decoder_stats) = jax.grad(recon_loss, argnums=(0, 1), has_aux=True)(
            decoder, out.stages
        )
        (grads,) = pull(dataclasses.replace(nowhere, stages=at_stages))
        # At the parameters from before the re-ID update, like the forward pass that both gradients come from.
        updates, recon_opt = recon_tx.update(
            drawing_parts(grads, decoder_grads), recon_opt, drawing_parts(state.encoder, decoder)
        )
        decoder = optax.apply_updates(decoder, updates.pop("decoder"))
        encoder = optax.apply_updates(encoder, updates)
        terms |= recon_losses

    state = TrainState(state.step + 1, encoder, encoder_stats, decoder, decoder_stats, reid_opt, recon_opt)
    return state, terms


def reid_terms(feats, logits, pids, *, objective: Objective) -> tuple[Array, dict[str, Array]]:
    """The loss of encoder, fc and classifier, and its terms."""
    terms = {"triplet": losses.batch_hard_triplet(feats, pids, margin=objective.margin)}
    if not objective.htri_only:
        terms["id"] = losses.id_loss(logits, pids, label_smoothing=objective.label_smoothing)
    return sum(terms.values()), terms


def recon_terms(drawn, texture, levels, *, objective: Objective) -> tuple[Array, dict[str, Array]]:
    """The loss of decoder and encoder body, and its terms; without `levels` the reconstruction alone."""
    terms = {"reconstruction": losses.reconstruction(drawn, texture)}
    if levels is None or not objective.texture_triplets:
        return terms["reconstruction"], terms
    per_level = losses.texture_triplets(levels, instances=objective.instances, margin=objective.texture_margin)
    terms["texture_triplets"] = per_level.sum()
    return terms["reconstruction"] + objective.texture_triplets * terms["texture_triplets"], terms
