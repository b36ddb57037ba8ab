"""Every field of a run, with its default, unit and source. The defaults are those of the released code on CUHK03.

The allowed values of each field are listed in san_jax/training/config_fields.py and checked before any data is opened.
A field that was changed but has no effect, because the mode or another field disables it, is reported when the run
starts.

`get_config("small")` is the same task at a size for two CPU cores. The other files in this folder set only what
differs from this one.
"""

from ml_collections import ConfigDict, config_dict

SIZES = ("full", "small")


def get_config(size: str = "full") -> ConfigDict:
    """The config of an experiment; locked, so a misspelt field is an error.

    Args:
      size: "full" is the paper's; "small" has smaller pictures and networks and a shorter schedule, for minutes of
        training on two CPU cores.
    """
    if size not in SIZES:
        raise ValueError(f"config size {size!r} is not one of {', '.join(SIZES)}")
    config = ConfigDict()
    config.mode = "san"  # san: re-ID and texture losses; baseline: re-ID losses only; san_pg: reconstruction only
    config.seed = 0  # for weights, batches and augmentation
    config.init_from = ""  # initial weights: a run, checkpoint, file of weights or rendered-small-pg; "" = random
    config.compute_dtype = "float32"  # of the networks; or tensorfloat32, bfloat16: docs/precision.md
    config.onednn = False  # on CPUs, from JAX 0.11 on: XLA may use oneDNN's kernels, an experiment: docs/precision.md
    config.deterministic = False  # on GPUs: only kernels that give the same bits in every run, which are slower

    config.data = ConfigDict()
    # One or more names, separated by commas: joined, pids kept distinct. A name may be the path of a list (.csv, .tsv)
    # or folder of pictures: docs/data.md
    config.data.train = "cuhk03/labeled_texture"
    config.data.test = ""  # one or more names, each scored separately; "" = query and gallery of the training sets
    config.data.pit = "pit/procedural"  # (picture, texture) pairs; one or more names
    config.data.manual_dir = ""  # folder that holds cuhk03/ as released; needed only to prepare a data set
    config.data.data_dir = "data"  # folder of the prepared data sets
    config.data.pattern = ""  # regular expression for pid and camid in the paths of a folder's pictures: docs/data.md
    config.data.height, config.data.width = 256, 128  # network input in pixels; textures are height x height
    # Where the decoded training pictures are: device (every device has all, and the train step gathers its batch), host
    # (in memory or in a file), stream (nowhere: decoded as they are needed); auto: the first for which there is room
    config.data.cache = "auto"
    config.data.cache_gb = 20.0  # decoded pictures kept in data_dir/decoded for the next start, at most; 0 = none
    config.data.workers = config_dict.placeholder(int)  # threads that decode; unset = one per core; 0 = no threads

    config.encoder = ConfigDict()
    config.encoder.depth = 50  # 10, 14, 18, 26, 34, 50, 101, 152
    config.encoder.fc_dim = 512  # as in resnet50_fc512; 0 = no fc (resnet50): the feature is the pooled map
    config.encoder.last_stride = 1  # of stage 4; released code: 1 in resnet50_fc512, 2 in resnet50; the decoder needs 1
    config.encoder.width = 1.0  # factor on all channel counts, for small runs
    # "bn": losses and retrieval use features after a BatchNorm, without a ReLU, of the pooled map (BNNeck) or of fc's
    # linear layer; its bias is not trained. "none": fc as in resnet50_fc512
    config.encoder.neck = "none"
    # Layers between the first convolution and stage 1; must suit the weights in init_from: torchvision (ReLU, padded
    # max-pool), fastreid (ReLU, max-pool without padding), strong_baseline (padded max-pool, no ReLU)
    config.encoder.stem = "torchvision"

    config.decoder = ConfigDict()
    config.decoder.width = 1.0  # factor on the channel counts 512-256-64-32-16; 0 = no convolutions
    config.decoder.min_channels = 1  # that each of its maps has at least; the last have few where the width is small
    config.decoder.skips = True  # add the embedded stages 3, 2, 1 (released code; not mentioned in the paper)
    # Draw also, or without convolutions only, a coarse texture: by two linear layers from the last stage through this
    # many numbers; 0 = released code
    config.decoder.coarse = 0

    config.batch = ConfigDict()
    config.batch.identities = 16  # P
    config.batch.instances = 4  # K
    config.batch.pit_pictures = 0  # data.pit pairs after the P x K pictures, for the reconstruction loss; mode san only

    config.augmentation = ConfigDict()
    config.augmentation.crop = 0.5  # probability of a random crop from the picture resized to 9/8 of the size
    config.augmentation.mirror = 0.5  # probability of a horizontal flip
    config.augmentation.erase = 0.5  # probability of random erasing (Zhong 2020)

    config.loss = ConfigDict()
    config.loss.label_smoothing = 0.1
    config.loss.htri_only = False  # drop the ID loss
    config.loss.margin = 0.3  # of the batch-hard triplet loss, in feature distance
    config.loss.reconstruction = 1.0  # weight of the reconstruction loss beside L_TR; mode san only
    config.loss.texture_triplets = 1.0  # weight of L_TR; 0 = off
    config.loss.texture_margin = 0.3  # of L_TR, in squared activation

    config.reid = ConfigDict()  # the main optimizer: encoder, fc and classifier, on the re-ID losses
    config.reid.optimizer = "amsgrad"  # amsgrad, adam, sgd or rmsprop, each as PyTorch computes it
    config.reid.learning_rate = 8e-4
    config.reid.milestones = (40, 80, 120, 160, 200, 240, 280)  # epochs of the main phase after which ...
    config.reid.gamma = 0.5  # ... the rate is multiplied by this factor
    config.reid.weight_decay = 5e-4  # L2, added to the gradient
    config.reid.b1, config.reid.b2 = 0.9, 0.999  # amsgrad and adam, also the warm-up's Adam
    config.reid.momentum = 0.9  # sgd and rmsprop
    config.reid.nesterov = False  # sgd

    config.recon = ConfigDict()  # the optimizer of decoder and encoder body, on the texture losses
    config.recon.optimizer = "adam"  # or muon: for kernels, with Adam for all else
    config.recon.learning_rate = 1e-5
    config.recon.decoder_learning_rate = config_dict.placeholder(float)  # of the decoder; unset = recon.learning_rate
    config.recon.warmup_steps = 0  # in which the rates rise from 0
    config.recon.decay = "milestones"  # or cosine: the rates fall along half a cosine, to 0 at the end of the run
    config.recon.milestones = ()  # as `reid.milestones`; the released code keeps the rate constant
    config.recon.gamma = 0.1
    config.recon.b1, config.recon.b2 = 0.5, 0.999  # of Adam; the decay of Muon's momentum is 0.95

    config.schedule = ConfigDict()  # three consecutive phases, each with a fresh optimizer: fixbase, warm-up, main
    config.schedule.fixbase_epoch = 0  # epochs in which only `open_layers` of the encoder are trained, at the main rate
    config.schedule.open_layers = ("fc", "classifier")
    config.schedule.warmup_epochs = 20  # Adam at warmup_rate * warmup_growth^epoch
    config.schedule.warmup_rate = 8e-6
    config.schedule.warmup_growth = 1.259
    config.schedule.epochs = 300  # of the main phase
    config.schedule.eval_every = 40  # epochs between evaluations; the end of the run is scored too; 0 = never
    config.schedule.save_minutes = 5.0  # minutes between checkpoints, the most that a kill loses; 0 = not by time
    config.schedule.save_every = 0  # steps between checkpoints, in addition; 0 = not by steps

    config.scoring = ConfigDict()
    config.scoring.metric = "market1501"  # or cuhk03: single-gallery-shot, mean of ten random draws
    config.scoring.same_camera = "remove"  # gallery pictures with the query's pid and camid; or keep, all but the query
    config.scoring.batch_size = 100  # pictures per forward pass, over all devices

    if size == "small":
        shrink(config)
    return config.lock()


def shrink(config: ConfigDict) -> None:
    """Changes the config to a size for two CPU cores, on data that is rendered if missing."""
    config.data.train, config.data.pit = "synthetic_reid/small", "pit/small"
    config.data.height, config.data.width = 128, 64
    config.encoder.depth, config.encoder.width, config.encoder.fc_dim = 18, 0.25, 128
    config.decoder.width, config.decoder.coarse = 0.25, 96
    config.augmentation.erase = 0.0  # a few hundred steps are too few to learn to cope with it
    config.batch.identities = 8  # half the batch, twice the steps: trains from every seed
    config.reid.learning_rate, config.reid.milestones = 1e-3, (6, 7)
    config.schedule.warmup_epochs, config.schedule.epochs = 1, 8
    config.schedule.warmup_rate, config.schedule.warmup_growth = 2e-4, 1.0
    config.schedule.eval_every = 9  # only at the end
    config.recon.learning_rate = 1e-4  # docs/ablation.md compares rates
    config.recon.decoder_learning_rate = 1e-3
    config.loss.texture_triplets = 0.01  # they start at 6 to 17, where the reconstruction loss is 0.3
