"""The PyTorch side of the benchmark: SAN's networks, losses, augmentation and step.

Started by `train_step.py`, one process for each case. Parameters have the names of torchvision's ResNet and of the
authors' decoder. PyTorch runs at its fastest: fused optimizers, TF32 on GPUs as in XLA, cuDNN's search, and by option
channels_last, autocast and torch.compile.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._functorch.config
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import case as cases
from benchmarks.case import Case

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """An encoder's convolution: no bias, He normal by fan-out."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Block(nn.Module):
    """A residual block: `convs` with BatchNorm, ReLU after each but the last, the shortcut added, ReLU."""

    def __init__(self, *convs: nn.Conv2d, stride: int):
        super().__init__()
        self.count = len(convs)
        for i, layer in enumerate(convs, start=1):
            setattr(self, f"conv{i}", layer)
            setattr(self, f"bn{i}", nn.BatchNorm2d(layer.out_channels))
        before, after = convs[0].in_channels, convs[-1].out_channels
        same = before == after and stride == 1
        self.downsample = None if same else nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """The map after the block's last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.count == 3:
            y = F.relu(self.bn2(self.conv2(y)), inplace=True)
            y = self.bn3(self.conv3(y))
        else:
            y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def basic_block(in_channels: int, channels: int, stride: int) -> Block:
    """Two 3 x 3 convolutions."""
    return Block(conv(in_channels, channels, 3, stride), conv(channels, channels, 3), stride=stride)


def bottleneck(in_channels: int, channels: int, stride: int) -> Block:
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the channels."""
    convs = (conv(in_channels, channels, 1), conv(channels, channels, 3, stride), conv(channels, 4 * channels, 1))
    return Block(*convs, stride=stride)


BLOCKS = {  # depth: kind of block, blocks per stage
    10: (basic_block, (1, 1, 1, 1)),
    14: (bottleneck, (1, 1, 1, 1)),
    18: (basic_block, (2, 2, 2, 2)),
    26: (bottleneck, (2, 2, 2, 2)),
    34: (basic_block, (3, 4, 6, 3)),
    50: (bottleneck, (3, 4, 6, 3)),
    101: (bottleneck, (3, 4, 23, 3)),
    152: (bottleneck, (3, 8, 36, 3)),
}


class Encoder(nn.Module):
    """SA-Enc with last stride 1: returns four stages, features and logits."""

    def __init__(self, *, depth: int, num_pids: int, fc_dim: int, width: float):
        super().__init__()
        make_block, num_blocks = BLOCKS[depth]
        channels = max(1, round(64 * width))
        self.conv1, self.bn1 = conv(3, channels, 7, 2), nn.BatchNorm2d(channels)
        self.channels = []
        for stage, stride in enumerate((1, 2, 2, 1)):
            blocks = []
            for index in range(num_blocks[stage]):
                inner = max(1, round(64 * 2**stage * width))
                blocks.append(make_block(channels, inner, stride if index == 0 else 1))
                channels = inner if make_block is basic_block else 4 * inner
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels.append(channels)
        self.fc = nn.Sequential(nn.Linear(channels, fc_dim), nn.BatchNorm1d(fc_dim), nn.ReLU()) if fc_dim else None
        self.classifier = nn.Linear(fc_dim or channels, num_pids)
        for layer in (self.classifier, *([self.fc[0]] if fc_dim else [])):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Stages, features and logits of normalised pictures [B 3 H W]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images)), inplace=True), 3, 2, 1)
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            stages.append(x)
        feats = x.mean((2, 3))
        feats = feats if self.fc is None else self.fc(feats)
        return stages, feats, self.classifier(feats)


def drawing_conv(in_channels: int, out_channels: int, size: int, *, padding: int = 0, bias: bool = True) -> nn.Conv2d:
    """A decoder's convolution: Xavier normal, gain 0.02."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=padding, bias=bias)
    nn.init.xavier_normal_(layer.weight, gain=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def drawing_norm(channels: int) -> nn.BatchNorm2d:
    """A decoder's BatchNorm: scales of N(1, 0.02)."""
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    return norm


class Residual(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm, added to their input."""

    def __init__(self, channels: int):
        super().__init__()
        convs = [drawing_conv(channels, channels, 3, padding=1, bias=False) for _ in range(2)]
        self.res = nn.Sequential(
            convs[0], drawing_norm(channels), nn.ReLU(inplace=True), convs[1], drawing_norm(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The map with the residual added, without an activation."""
        return x + self.res(x)


class Up(nn.Module):
    """Residual block, ReLU, upsampling by two, convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.res = Residual(in_channels)
        enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.conv = nn.Sequential(enlarge, nn.ReflectionPad2d(1), drawing_conv(in_channels, out_channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The map at twice the height and width, without an activation."""
        return self.conv(F.relu(self.res(x), inplace=True))


class Decoder(nn.Module):
    """SA-Dec: decodes four stages into four levels and the texture."""

    def __init__(self, encoder_channels: Sequence[int], *, width: float):
        super().__init__()

        def embed(in_channels: int, out_channels: int) -> nn.Sequential:
            return nn.Sequential(drawing_conv(in_channels, out_channels, 1), drawing_norm(out_channels), nn.ReLU())

        channels = [max(1, round(count * width)) for count in (512, 256, 64, 32, 16)]
        self.reduce_dim = embed(encoder_channels[3], channels[0])
        self.embed_layer3 = embed(encoder_channels[2], channels[0])
        self.embed_layer2 = embed(encoder_channels[1], channels[1])
        self.embed_layer1 = embed(encoder_channels[0], channels[2])
        for i in range(4):
            setattr(self, f"up{i + 1}", Up(channels[i], channels[i + 1]))
        self.final_layer = nn.Sequential(nn.ReflectionPad2d(3), drawing_conv(channels[4], 3, 7))

    def forward(self, stages: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Levels, and the texture as wide as it is high."""
        level1 = self.up1(self.reduce_dim(stages[3]) + self.embed_layer3(stages[2]))
        level2 = self.up2(level1 + self.embed_layer2(stages[1]))
        level3 = self.up3(level2 + self.embed_layer1(stages[0]))
        level4 = self.up4(level3)
        texture = self.final_layer(level4)
        side = texture.shape[2]
        texture = F.interpolate(texture, size=(side, side), mode="bilinear", align_corners=True)
        return [level1, level2, level3, level4], texture


def reid_loss(feats: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """Label-smoothed cross-entropy and batch-hard triplets."""
    feats, logits = feats.float(), logits.float()
    squares = feats.square().sum(1)
    distmat = (squares[:, None] + squares - 2 * feats @ feats.T).clamp(min=1e-12).sqrt()
    same_person = pids[:, None] == pids
    positive = distmat.masked_fill(~same_person, -torch.inf).amax(1)
    negative = distmat.masked_fill(same_person, torch.inf).amin(1)
    return F.cross_entropy(logits, pids, label_smoothing=0.1) + F.relu(positive - negative + 0.3).mean()


def texture_triplets(levels: Sequence[Tensor]) -> Tensor:
    """The released code's triplets over four levels, summed over identities and levels."""
    num = cases.INSTANCES
    triplets = [((i % num, (i + 1) % num), (i % num, num + i % num)) for i in range(3)]
    triplets.append(((0, num - 1), (num - 1, num)))
    total = 0.0
    for level, pairs in zip(levels, triplets, strict=True):
        people = level.float().unflatten(0, (-1, num))
        # Pictures of an identity, followed by those of the next one.
        pictures = [people[:-1, i] for i in range(num)] + [people[1:, i] for i in range(num)]
        near, far = ((pictures[i] - pictures[j]).square().mean((1, 2, 3)) for i, j in pairs)
        total = total + F.relu(near - far + 0.3).sum()
    return total


@functools.cache
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One number for each channel, to be broadcast to pictures [B 3 H W]; moved to the device once."""
    return torch.tensor(values, device=device)[:, None, None]


def normalise(pictures: Tensor) -> Tensor:
    """Normalises float pictures in [0, 255] for the encoder."""
    return (pictures / 255 - per_channel(MEAN, pictures.device)) / per_channel(STD, pictures.device)


def augment(pictures: Tensor, *, height: int, width: int) -> Tensor:
    """Crop, mirror, normalise and erase, each picture at random by itself, all pictures at once on their device."""
    count, _, roomy_height, roomy_width = pictures.shape
    uniform = functools.partial(torch.rand, device=pictures.device)
    steps = functools.partial(torch.arange, device=pictures.device)

    def chosen() -> Tensor:
        return (uniform(count) < 0.5)[:, None, None, None]

    whole = F.interpolate(pictures.float(), (height, width), mode="bilinear", antialias=True).round()
    rows = (uniform(count, 1) * (roomy_height - height)).round().long() + steps(height)
    columns = (uniform(count, 1) * (roomy_width - width)).round().long() + steps(width)
    cut = pictures[steps(count)[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
    images = torch.where(chosen(), cut.float(), whole)
    images = normalise(torch.where(chosen(), images.flip(3), images))

    area = height * width * (0.02 + 0.38 * uniform(count, 100))
    aspect = 0.3 + (1 / 0.3 - 0.3) * uniform(count, 100)
    high, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    first = ((high < height) & (wide < width)).int().argmax(1, keepdim=True)
    high, wide = high.gather(1, first), wide.gather(1, first)
    top, left = (uniform(count, 1) * (height - high + 1)).floor(), (uniform(count, 1) * (width - wide + 1)).floor()
    in_rows = (steps(height) >= top) & (steps(height) < top + high)
    in_columns = (steps(width) >= left) & (steps(width) < left + wide)
    box = in_rows[:, None, :, None] & in_columns[:, None, None, :] & chosen()
    return torch.where(box, per_channel(MEAN, pictures.device), images)


class Networks:
    """Encoder and decoder of a case on its device, in the memory format, precision and compilation of the case."""

    def __init__(self, case: Case):
        self.case = case
        self.device = torch.device("cuda" if case.platform == "gpu" else "cpu")
        self.layout = torch.channels_last if "channels_last" in case.options else torch.contiguous_format
        torch.manual_seed(0)
        self.encoder = Encoder(
            depth=case.depth, num_pids=case.num_pids, fc_dim=case.fc_dim, width=case.encoder_width
        ).to(self.device, memory_format=self.layout)
        self.decoder = Decoder(self.encoder.channels, width=case.decoder_width).to(
            self.device, memory_format=self.layout
        )
        self.encode, self.draw = self.encoder, self.decoder
        if "compile" in case.options:
            # Two backward passes through one forward pass: its buffers must outlive the first.
            torch._functorch.config.donated_buffer = False
            self.encode, self.draw = torch.compile(self.encoder), torch.compile(self.decoder)

    def precision(self) -> contextlib.AbstractContextManager:
        """Autocast, or nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.case.dtype == "bfloat16")

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, uint8 NCHW; textures in [-1, 1], and labels."""
        pictures, textures, pids = (torch.from_numpy(array).to(self.device) for array in cases.random_batch(self.case))
        pictures, textures = (
            images.permute(0, 3, 1, 2).contiguous(memory_format=self.layout) for images in (pictures, textures)
        )
        return pictures, textures, pids.long()


def training(case: Case) -> Callable[[], Tensor]:
    """A function that makes one update and returns the loss."""
    nets = Networks(case)
    pictures, textures, pids = nets.batch()
    everything = list(nets.encoder.parameters())
    body = [param for name, param in nets.encoder.named_parameters() if not name.startswith(("fc.", "classifier."))]
    drawing = body + list(nets.decoder.parameters())
    reid_optimizer = make_adam(everything, amsgrad=True, **cases.REID_ADAM)
    recon_optimizer = make_adam(drawing, amsgrad=False, **cases.RECON_ADAM)

    def call() -> Tensor:
        images = augment(pictures, height=case.height, width=case.width).contiguous(memory_format=nets.layout)
        reid = recon = None
        with nets.precision():
            stages, feats, logits = nets.encode(images)
            if case.task != "baseline":
                levels, drawn = nets.draw(stages)
        # Both gradients at the same parameters, from one forward pass; then the updates.
        if case.task != "san_pg":
            reid = reid_loss(feats, logits, pids)
            reid_grads = torch.autograd.grad(reid, everything, retain_graph=case.task == "san")
        if case.task != "baseline":
            recon = (drawn.float() - (textures / 127.5 - 1)).abs().mean()
            recon = recon + texture_triplets(levels) if case.task == "san" else recon
            recon_grads = torch.autograd.grad(recon, drawing)
        if reid is not None:
            update(reid_optimizer, everything, reid_grads)
        if recon is not None:
            update(recon_optimizer, drawing, recon_grads)
        return sum(loss.detach() for loss in (reid, recon) if loss is not None)

    return call


def make_adam(
    params: list[Tensor], *, amsgrad: bool, learning_rate: float, b1: float, b2: float, weight_decay: float
) -> torch.optim.Adam:
    """Adam or AMSGrad, fused."""
    return torch.optim.Adam(
        params, learning_rate, betas=(b1, b2), weight_decay=weight_decay, amsgrad=amsgrad, fused=True
    )


def update(optimizer: torch.optim.Optimizer, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    """One update of the optimizer by these gradients."""
    for param, grad in zip(params, grads, strict=True):
        # Fused optimizers need both in the same memory layout.
        param.grad = grad if grad.stride() == param.stride() else torch.empty_like(param).copy_(grad)
    optimizer.step()
    optimizer.zero_grad()


def extraction(case: Case) -> Callable[[], Tensor]:
    """A function that returns the features of a batch, with running statistics."""
    nets = Networks(case)
    pictures, _, _ = nets.batch()
    nets.encoder.eval()

    def call() -> Tensor:
        with torch.inference_mode(), nets.precision():
            return nets.encode(normalise(pictures.float()))[1].float()

    return call


def measure(case: Case) -> dict[str, Any]:
    """Times one case."""
    torch.set_float32_matmul_precision("high" if case.dtype == "tensorfloat32" else "highest")
    torch.backends.cudnn.allow_tf32 = case.dtype == "tensorfloat32"
    torch.backends.cudnn.benchmark = True
    step = (training if case.trains else extraction)(case)

    def call() -> Tensor:
        result = step()
        if case.platform == "gpu":
            torch.cuda.synchronize()
        return result

    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    seconds, result = cases.timed(call, case)
    return cases.findings(
        seconds=seconds,
        compile_seconds=first if "compile" in case.options else 0.0,
        peak_bytes=torch.cuda.max_memory_allocated() if case.platform == "gpu" else None,
        loss=result.mean().item(),
    )


def describe() -> dict[str, Any]:
    """Version of PyTorch."""
    return {"versions": {"torch": torch.__version__}}


if __name__ == "__main__":
    cases.answer(describe=describe, measure=measure)
