"""Every field of a run, with its default, unit and source. The defaults are the released code's on CUHK03.

What each field may be stands in san_jax/training/config_fields.py and is checked before any data is opened. A field
that was changed and does nothing, since the mode or another field turns it off, is named when the run starts.

`get_config("small")` is the same job for two CPU cores. Thin files beside this one say what differs from it.
"""

from ml_collections import ConfigDict

SIZES = ("full", "small")


def get_config(size: str = "full") -> ConfigDict:
    """The config of an experiment; locked, so a misspelt field is an error.

    Args:
      size: "full" is the paper's, "small" shrinks pictures, networks and schedule to minutes on two CPU cores.
    """
    if size not in SIZES:
        raise ValueError(f"config size {size!r} is none of {', '.join(SIZES)}")
    config = ConfigDict()
    config.mode = "san"  # san: re-ID and texture losses; baseline: re-ID alone; san_pg: reconstruction alone
    config.seed = 0  # of weights, batches and augmentation
    config.init_from = ""  # weights to start from: a run, a checkpoint, or a PyTorch or safetensors file; "" = fresh
    config.compute_dtype = "float32"  # or bfloat16; parameters, statistics and losses are float32 either way

    config.data = ConfigDict()
    config.data.train = "cuhk03/labeled_texture"  # several names, separated by commas: people and cameras joined
    config.data.test = ""  # likewise, each scored by itself; "" = what the training sets hold out
    config.data.pit = "pit/procedural"  # pairs of picture and texture; likewise
    config.data.manual_dir = ""  # folder that holds cuhk03/ as released; needed only to prepare a data set
    config.data.data_dir = "data"  # prepared data sets
    config.data.height, config.data.width = 256, 128  # pixels that the network sees; textures are height x height
    config.data.workers = 2  # processes that read and decode; 0 = in the training process

    config.encoder = ConfigDict()
    config.encoder.depth = 50  # 10, 14, 18, 26, 34, 50, 101, 152
    config.encoder.fc_dim = 512  # resnet50_fc512; 0 = none (resnet50), the pooled map is the feature
    config.encoder.last_stride = 1  # of stage 4; 1 with fc512, 2 in the released resnet50; the decoder needs 1
    config.encoder.width = 1.0  # factor on all channel counts, for small runs
    # "bn": BatchNorm of the pooled map (BNNeck), or of fc's linear layer, gives the features of losses and retrieval,
    # without a ReLU; its bias does not learn. "none": fc as in resnet50_fc512
    config.encoder.neck = "none"
    # Between first convolution and stage 1, as the weights of init_from want it: torchvision (ReLU, padded max-pool),
    # fastreid (ReLU, max-pool without padding), strong_baseline (padded max-pool, no ReLU)
    config.encoder.stem = "torchvision"

    config.decoder = ConfigDict()
    config.decoder.width = 1.0  # factor on 512-256-64-32-16
    config.decoder.skips = True  # add the embedded stages 3, 2, 1 (released code; the paper does not speak of them)

    config.batch = ConfigDict()
    config.batch.identities = 16  # P
    config.batch.instances = 4  # K
    config.batch.pit_pictures = 0  # pairs of data.pit behind the P x K pictures, for the reconstruction loss; mode san

    config.augmentation = ConfigDict()
    config.augmentation.crop = 0.5  # probability of a random crop out of 9/8 of the size
    config.augmentation.mirror = 0.5  # probability
    config.augmentation.erase = 0.5  # probability of random erasing (Zhong 2020)

    config.loss = ConfigDict()
    config.loss.label_smoothing = 0.1
    config.loss.htri_only = False  # drop the ID loss
    config.loss.margin = 0.3  # of the batch-hard triplet loss, in feature distance
    config.loss.texture_triplets = 1.0  # weight of L_TR beside the reconstruction loss; 0 = off
    config.loss.texture_margin = 0.3  # of L_TR, in squared activation

    config.reid = ConfigDict()  # the main optimizer: encoder, fc and classifier, on the re-ID losses
    config.reid.optimizer = "amsgrad"  # amsgrad, adam, sgd, rmsprop; each as PyTorch computes it
    config.reid.learning_rate = 8e-4
    config.reid.milestones = (40, 80, 120, 160, 200, 240, 280)  # epochs of the main phase after which ...
    config.reid.gamma = 0.5  # ... the rate takes this factor
    config.reid.weight_decay = 5e-4  # L2 in the gradient
    config.reid.b1, config.reid.b2 = 0.9, 0.999  # amsgrad and adam; the warm-up's Adam too
    config.reid.momentum = 0.9  # sgd and rmsprop
    config.reid.nesterov = False  # sgd

    config.recon = ConfigDict()  # Adam of the texture losses: decoder and encoder body
    config.recon.learning_rate = 1e-5
    config.recon.milestones = ()  # as of `reid`; the released code lets the rate as it is
    config.recon.gamma = 0.1
    config.recon.b1, config.recon.b2 = 0.5, 0.999

    config.schedule = ConfigDict()  # phases in a row, each with a fresh optimizer: fixbase, warm-up, main
    config.schedule.fixbase_epoch = 0  # epochs in which only `open_layers` of the encoder learn, at the main rate
    config.schedule.open_layers = ("fc", "classifier")
    config.schedule.warmup_epochs = 20  # Adam at warmup_rate * warmup_growth^epoch
    config.schedule.warmup_rate = 8e-6
    config.schedule.warmup_growth = 1.259
    config.schedule.epochs = 300  # of the main phase
    config.schedule.eval_every = 40  # epochs between scores; the end of the run is scored too; 0 = never scored
    config.schedule.save_every = 200  # steps between checkpoints, so that a kill costs minutes; 0 = only with scores

    config.scoring = ConfigDict()
    config.scoring.metric = "market1501"  # or cuhk03: single-gallery-shot, ten draws
    config.scoring.same_camera = "remove"  # gallery pictures of a query's person by its camera; keep: all but itself
    config.scoring.batch_size = 100  # pictures whose features are computed at once, over all devices

    if size == "small":
        shrink(config)
    return config.lock()


def shrink(config: ConfigDict) -> None:
    """Makes it the same job at a size for two CPU cores, on data that is rendered when it is missing."""
    config.data.train, config.data.pit = "synthetic_reid/small", "pit/small"
    config.data.height, config.data.width = 128, 64
    config.encoder.depth, config.encoder.width, config.encoder.fc_dim = 18, 0.25, 128
    config.decoder.width = 0.25
    config.augmentation.erase = 0.0  # a few hundred steps are too few to learn to see through it
    config.batch.identities = 8  # half the batch, twice the steps: what learns from every seed, docs/ablation.md
    config.reid.learning_rate, config.reid.milestones = 1e-3, (6, 7)
    config.schedule.warmup_epochs, config.schedule.epochs = 1, 8
    config.schedule.warmup_rate, config.schedule.warmup_growth = 2e-4, 1.0
    config.schedule.eval_every = 9  # at the end
    config.recon.learning_rate = 1e-4  # 1e-3 hurts the re-ID, 1e-5 does nothing: docs/ablation.md
