"""Features that three other re-ID codebases compute with seeded weights, and the generators of weights and pictures.

`golden/reid_codes.npz` was written by PyTorch 2.13 and torchvision 0.29, with checkouts of fast-reid (c9bc3ce),
reid-strong-baseline (3da7e6f) and layumi's Person_reID_baseline_pytorch (82ff40f), by

    python tests/golden_reid_codes.py FAST_REID STRONG_BASELINE LAYUMI

For every network it holds the names and shapes of the state dict, in order, and for those in FEATURES the features
of `pictures` at test time. The latter networks have one block per stage, for speed; the rest is as published.
"""

import importlib.util
import pathlib
import sys
import types
import zlib
from collections.abc import Iterable

import numpy as np

PATH = pathlib.Path(__file__).parent / "golden" / "reid_codes.npz"
HEIGHT, WIDTH, PIDS = 64, 32, 5
FEATURES = (
    "fastreid",
    "fastreid_reduced",
    "fastreid_no_neck",
    "strong",
    "strong_no_neck",
    "layumi",
    "layumi_no_linear",
)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Seeded weights by name; float32 except for the counters."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of a state dict."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(3)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        values = rng.uniform(0.5, 1.0, shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return values.astype(np.float32)


def pictures() -> np.ndarray:
    """Uint8 [3 H W 3]: coarse patches and noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (3, HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 1).repeat(8, 2)
    return (coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8)


def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's state dict."""
    with np.load(PATH) as arrays:
        names, shapes = arrays[f"{network}/names"], arrays[f"{network}/shapes"]
    return {str(name): tuple(map(int, shape[shape >= 0])) for name, shape in zip(names, shapes, strict=True)}


def features_of(network: str) -> np.ndarray:
    """The features that their code computes for `pictures`."""
    with np.load(PATH) as arrays:
        return arrays[f"{network}/features"]


def write(folders: Iterable[str]) -> None:
    """Runs the three codes and writes the file."""
    import torch

    fast_reid, strong, layumi = folders
    models = fast_reid_models(fast_reid) | strong_models(strong) | layumi_models(layumi)
    arrays = {}
    for name, model in models.items():
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        arrays[f"{name}/names"] = np.array(list(shapes))
        arrays[f"{name}/shapes"] = np.array([(*shape, *[-1] * (4 - len(shape))) for shape in shapes.values()])
        if name not in FEATURES:
            continue
        model.load_state_dict({key: torch.from_numpy(values) for key, values in state_dict(shapes).items()})
        model.eval()
        images = torch.from_numpy(pictures()).permute(0, 3, 1, 2).float()
        if not name.startswith("fastreid"):  # fast-reid takes raw pixels and normalises them itself
            from torchvision.transforms import Normalize

            images = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images / 255)
        with torch.no_grad():
            arrays[f"{name}/features"] = model(images).numpy()
    np.savez_compressed(PATH, **arrays)


def fast_reid_models(folder: str) -> dict:
    """Its bag-of-tricks meta-architecture, and the parts that its configs can add to the network."""
    sys.path.insert(0, folder)
    from fastreid.config.defaults import _C as defaults
    from fastreid.modeling.backbones.resnet import BasicBlock, Bottleneck, ResNet
    from fastreid.modeling.heads.embedding_head import EmbeddingHead
    from fastreid.modeling.meta_arch.baseline import Baseline

    def model(blocks=(1, 1, 1, 1), block=BasicBlock, pool="GlobalAvgPool", reduced=0, bnneck=True, **parts):
        parts = {"with_ibn": False, "with_se": False, "with_nl": False} | parts
        return Baseline(
            backbone=ResNet(1, "BN", block=block, layers=list(blocks), non_layers=[0, 2, 3, 0], **parts),
            heads=EmbeddingHead(
                feat_dim=512 * block.expansion,
                embedding_dim=reduced,
                num_classes=PIDS,
                neck_feat="before",
                pool_type=pool,
                cls_type="Linear",
                scale=1,
                margin=0.0,
                with_bnneck=bnneck,
                norm_type="BN",
            ),
            pixel_mean=defaults.MODEL.PIXEL_MEAN,
            pixel_std=defaults.MODEL.PIXEL_STD,
        )

    r50 = {"blocks": (3, 4, 6, 3), "block": Bottleneck}
    return {
        "fastreid": model(),
        "fastreid_reduced": model(reduced=16),
        "fastreid_no_neck": model(bnneck=False),
        "fastreid_r50": model(**r50),
        "fastreid_ibn": model(with_ibn=True),
        "fastreid_se": model(with_se=True),
        "fastreid_non_local": model(**r50, with_nl=True),
        "fastreid_gem": model(pool="GeneralizedMeanPoolingP"),
    }


def strong_models(folder: str) -> dict:
    """Its model with and without the neck, and its other backbones."""
    sys.path.insert(0, folder)
    from modeling.backbones.resnet import BasicBlock, ResNet
    from modeling.baseline import Baseline

    def model(name="resnet18", neck="bnneck"):
        made = Baseline(PIDS, 1, "", neck, "after", name, "self")
        if name == "resnet18":
            made.base = ResNet(1, BasicBlock, [1, 1, 1, 1])
        return made

    return {
        "strong": model(),
        "strong_no_neck": model(neck="no"),
        "strong_r50": model("resnet50"),
        "strong_ibn": model("resnet50_ibn_a"),
        "strong_se": model("se_resnet50"),
    }


def layumi_models(folder: str) -> dict:
    """Its ft_net on a smaller ResNet as test.py uses it, the options of train.py, and PCB."""
    from torch import nn
    from torchvision import models

    sys.modules["pretrainedmodels"] = sys.modules["timm"] = types.ModuleType("unused")
    sys.modules["utils"] = types.SimpleNamespace(load_state_dict_mute=None)
    spec = importlib.util.spec_from_file_location("layumi_model", pathlib.Path(folder) / "model.py")
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    Bottleneck = models.resnet.Bottleneck
    models.resnet50 = lambda pretrained: models.ResNet(Bottleneck, [1, 1, 1, 1])

    class AtTest(nn.Module):
        """Returns the input of the last layer, as test.py does, with the state dict of the whole network."""

        def __init__(self, net):
            super().__init__()
            self.model, self.classifier = net.model, net.classifier
            self.forward_all = net.forward

        def forward(self, x):
            kept, self.classifier.classifier = self.classifier.classifier, nn.Sequential()
            feats = self.forward_all(x)
            self.classifier.classifier = kept
            return feats

    small = {
        "layumi": AtTest(code.ft_net(PIDS)),
        "layumi_no_linear": AtTest(code.ft_net(PIDS, linear_num=0)),
        "layumi_usam": code.ft_net(PIDS, usam=True),
        "layumi_pcb": code.PCB(PIDS),
    }
    models.resnet50 = lambda pretrained: models.ResNet(Bottleneck, [3, 4, 6, 3])
    return small | {"layumi_r50": code.ft_net(PIDS)}


if __name__ == "__main__":
    write(sys.argv[1:])
