"""TrainState and the train step: one forward pass, two backward passes at the same parameters, two updates.

Networks and losses of each mode:

  baseline   encoder               re-ID losses
  san        encoder and decoder   re-ID losses; reconstruction and texture triplets
  san_pg     encoder and decoder   reconstruction only
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
from san_jax.networks.architecture import MODES, Architecture, arrays_of
from san_jax.networks.decoder import DecoderOutput
from san_jax.networks.encoder import EncoderOutput
from san_jax.networks.precision import COMPUTE_DTYPES
from san_jax.training import losses


def learns_people(mode: str) -> bool:
    """Whether a mode has the re-ID losses and is scored by retrieval; san_pg is scored by its textures instead."""
    return mode != "san_pg"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a resumed run needs, as nested dictionaries of arrays. The decoder's are empty in `baseline`.

    Attributes:
      step: number of updates made, int32; also the position in the data and folded into the augmentation's key.
      encoder: parameters.
      encoder_stats: running statistics of its BatchNorms.
      decoder: parameters.
      decoder_stats: running statistics of its BatchNorms.
      reid_opt: state of the re-ID optimizer, over the encoder; empty in `san_pg`.
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
    """Static description of the networks: mode, architecture, compute dtype and trainable layers.

    Attributes:
      mode: one of MODES.
      architecture: of encoder and decoder.
      compute_dtype: one of COMPUTE_DTYPES.
      open_layers: names of the encoder's children that are trained; None = all. The BatchNorms of the others use their
        running statistics and do not update them; freezing their parameters is up to the optimizers
        (`optimizers.frozen_except`).
    """

    mode: str
    architecture: Architecture
    compute_dtype: str = "float32"
    open_layers: Sequence[str] | None = None

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise UserError(f"compute_dtype is {self.compute_dtype!r}; it must be one of {', '.join(COMPUTE_DTYPES)}")

    @property
    def learns_people(self) -> bool:
        """Whether the re-ID losses are computed."""
        return learns_people(self.mode)

    @property
    def draws(self) -> bool:
        """Whether there is a decoder, so that every picture needs a texture."""
        return self.mode != "baseline"

    @property
    def compares_textures(self) -> bool:
        """Whether the texture triplets are computed, and (picture, texture) pairs may follow the P x K rows."""
        return self.mode == "san"

    def encode(self, encoder: PyTree, stats: PyTree, images: Float[Array, "B H W 3"]) -> tuple[EncoderOutput, PyTree]:
        """The encoder's outputs in training mode, and its running statistics after the pass."""
        model = self.architecture.encoder(encoder, stats, self.compute_dtype)
        for name, child in vars(model).items():
            if self.open_layers is not None and isinstance(child, nnx.Module) and name not in self.open_layers:
                child.eval()
        return model(images), statistics(model)

    def draw(self, decoder: PyTree, stats: PyTree, stages: Sequence[Array]) -> tuple[DecoderOutput, PyTree]:
        """The decoder's outputs in training mode, and its running statistics after the pass."""
        model = self.architecture.decoder(decoder, stats, self.compute_dtype)
        return model(tuple(stages)), statistics(model)


def statistics(model: nnx.Module) -> PyTree:
    """The running statistics of a model, as nested dictionaries."""
    return arrays_of(model)[1]


def make_state(
    networks: Networks, *, reid_tx: optax.GradientTransformation, recon_tx: optax.GradientTransformation, seed: int
) -> TrainState:
    """Fresh networks and optimizers; call it under `jax.jit`, with the wanted shardings as `out_shardings`."""
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
    """The parameters that the texture losses update: the encoder's children and, next to them, "decoder".

    One Adam over both equals the released code's two, since Adam is element-wise; fc and classifier, which the released
    code freezes here, get zero gradients from these losses and so are not updated.
    """
    return {**encoder, "decoder": decoder}


@dataclasses.dataclass(frozen=True)
class Objective:
    """Hyperparameters of the losses; see configs/base.py for their meaning."""

    instances: int
    label_smoothing: float = 0.1
    htri_only: bool = False
    margin: float = 0.3
    reconstruction: float = 1.0
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
      state: cannot be used afterwards if the caller donates it.
      batch: the global batch.
      networks: mode and architecture.
      objective: hyperparameters of the losses.
      augment: (key, uint8 pictures) -> input of the encoder.
      reid_tx: the re-ID optimizer, over the encoder.
      recon_tx: the texture losses' optimizer, over `drawing_parts`.
      seed: seed of the run, for the augmentation.
    """
    images = augment(jax.random.fold_in(streams.key(seed, "augmentation"), state.step), batch.image)
    people = len(batch.pid)  # the rows after these are pairs, used only for the reconstruction loss
    encoder, decoder, decoder_stats = state.encoder, state.decoder, state.decoder_stats
    reid_opt, recon_opt, terms = state.reid_opt, state.recon_opt, {}

    # One trace of the encoder; `pull` maps gradients at its outputs to its parameters, and is called once per loss.
    out, pull, encoder_stats = jax.vjp(
        lambda encoder: networks.encode(encoder, state.encoder_stats, images), encoder, has_aux=True
    )
    zeros = jax.tree.map(jnp.zeros_like, out)

    if networks.learns_people:

        def reid_loss(feats, logits):
            return reid_terms(feats[:people], logits[:people], batch.pid, objective=objective)

        (at_feats, at_logits), reid_losses = jax.grad(reid_loss, argnums=(0, 1), has_aux=True)(out.feats, out.logits)
        (grads,) = pull(dataclasses.replace(zeros, feats=at_feats, logits=at_logits))
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
        (grads,) = pull(dataclasses.replace(zeros, stages=at_stages))
        # At the parameters before the re-ID update: both gradients come from the same forward pass.
        updates, recon_opt = recon_tx.update(
            drawing_parts(grads, decoder_grads), recon_opt, drawing_parts(state.encoder, decoder)
        )
        decoder = optax.apply_updates(decoder, updates.pop("decoder"))
        encoder = optax.apply_updates(encoder, updates)
        terms |= recon_losses

    state = TrainState(state.step + 1, encoder, encoder_stats, decoder, decoder_stats, reid_opt, recon_opt)
    return state, terms


def reid_terms(feats, logits, pids, *, objective: Objective) -> tuple[Array, dict[str, Array]]:
    """The loss for encoder, fc and classifier, and its terms."""
    terms = {"triplet": losses.batch_hard_triplet(feats, pids, margin=objective.margin)}
    if not objective.htri_only:
        terms["id"] = losses.id_loss(logits, pids, label_smoothing=objective.label_smoothing)
    return sum(terms.values()), terms


def recon_terms(drawn, texture, levels, *, objective: Objective) -> tuple[Array, dict[str, Array]]:
    """The loss for decoder and encoder body, and its terms; only the reconstruction if `levels` is None."""
    terms = {"reconstruction": losses.reconstruction(drawn, texture)}
    if levels is None or not objective.texture_triplets:
        return terms["reconstruction"], terms
    per_level = losses.texture_triplets(levels, instances=objective.instances, margin=objective.texture_margin)
    terms["texture_triplets"] = per_level.sum()
    weighted = objective.reconstruction * terms["reconstruction"]
    return weighted + objective.texture_triplets * terms["texture_triplets"], terms
