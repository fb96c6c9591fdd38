"""The networks whose memory is laid beside the compiler's figure, with random weights, and uneven widths of them."""

import random
from collections.abc import Callable, Mapping

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer

from benchmarks.coverage_models import DensePart

SHRUNK = 5
KEPT = (0.3, 1.0)
"""Each group of each shrunk network keeps a random share of its channels between these."""
STEPS = (1, 1, 1, 4, 8)
"""The widths of the shrunk networks are rounded up to multiples of these, one number a network."""


class ResidualBlock(nn.Module):
    """Two convolutions and a sum, as EDSR has them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the body's output to the input."""
        return x + self.body(x)


class Edsr(nn.Module):
    """EDSR's baseline (Lim et al., CVPR Workshops 2017): a long trunk of residual blocks, then a pixel shuffle."""

    def __init__(self, blocks: int = 16, channels: int = 64, scale: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualBlock(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.tail = nn.Sequential(
            nn.Conv2d(channels, channels * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
            nn.Conv2d(channels, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge pictures, `[N, 3, H, W]`."""
        x = self.head(x)
        return self.tail(x + self.body(x))


class SpindleBlock(nn.Module):
    """LFFN-S's block: four paths of zero to three depthwise convolutions on a quarter of the channels each."""

    def __init__(self, outer: int = 48, inner: int = 16) -> None:
        super().__init__()
        self.expand = nn.Conv2d(outer, 4 * inner, 1, bias=False)
        self.first = _depthwise(inner)
        self.paths = nn.ModuleList(
            nn.Sequential(*(layer for _ in range(depth) for layer in (_depthwise(inner), nn.PReLU(inner))))
            for depth in (1, 2, 3)
        )
        self.fuse = nn.Conv2d(4 * inner, outer, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the four paths make to the input."""
        first, *others = self.expand(x).chunk(4, 1)
        made = [self.first(first), *(path(part) for path, part in zip(self.paths, others, strict=True))]
        return x + self.fuse(torch.cat(made, 1))


class SpindleModule(nn.Module):
    """Four spindle blocks whose outputs are all fused."""

    def __init__(self, outer: int = 48) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SpindleBlock(outer) for _ in range(4))
        self.fuse = nn.Conv2d(4 * outer, outer, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the fused outputs to the input."""
        outputs = []
        made = x
        for block in self.blocks:
            made = block(made)
            outputs.append(made)
        return x + self.fuse(torch.cat(outputs, 1))


class Lffn(nn.Module):
    """LFFN-S (arXiv 1902.05694): modules of spindle blocks, softmax over the modules, a pixel shuffle."""

    def __init__(self, modules: int = 4, channels: int = 48, scale: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.body = nn.ModuleList(SpindleModule(channels) for _ in range(modules))
        self.weigh = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(modules))
        self.join = nn.Conv2d(channels, channels, 1, bias=False)
        self.up = nn.Conv2d(channels, channels * scale**2, 1)
        self.shuffle = nn.PixelShuffle(scale)
        self.last = nn.Conv2d(channels, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge pictures, `[N, 3, H, W]`."""
        head = made = self.head(x)
        outputs = []
        for module in self.body:
            made = module(made)
            outputs.append(made)
        logits = [weigh(output.mean((2, 3))) for weigh, output in zip(self.weigh, outputs, strict=True)]
        shares = functional.softmax(torch.stack(logits), 0)
        fused = sum(share[:, :, None, None] * output for share, output in zip(shares, outputs, strict=True))
        return self.last(self.shuffle(self.up(self.join(fused) + head)))


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def _small_vit() -> nn.Module:
    return VisionTransformer(image_size=224, patch_size=16, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768)


def _dense_part(name: str) -> Callable[[], nn.Module]:
    return lambda: DensePart(torchvision.models.get_model(name, weights=None, weights_backbone=None))


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


PICTURE = (1, 3, 224, 224)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (_torchvision("resnet18"), PICTURE),
    "ResNet-50": (_torchvision("resnet50"), PICTURE),
    "MobileNetV2": (_torchvision("mobilenet_v2"), PICTURE),
    "MobileNetV3-large": (_torchvision("mobilenet_v3_large"), PICTURE),
    "EfficientNet-B0": (_torchvision("efficientnet_b0"), PICTURE),
    "RegNetY-400MF": (_torchvision("regnet_y_400mf"), PICTURE),
    "DenseNet-121": (_torchvision("densenet121"), PICTURE),
    "ShuffleNetV2": (_torchvision("shufflenet_v2_x1_0"), PICTURE),
    "RetinaNet, dense part": (_dense_part("retinanet_resnet50_fpn"), (1, 3, 320, 320)),
    "EDSR": (Edsr, (1, 3, 64, 64)),
    "LFFN-S": (Lffn, (1, 3, 64, 64)),
    "small ViT": (_small_vit, PICTURE),
}
"""Each network's maker, and the shape of its input."""

HELD_OUT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNeXt-50": (_torchvision("resnext50_32x4d"), PICTURE),
    "SqueezeNet 1.1": (_torchvision("squeezenet1_1"), PICTURE),
    "GoogLeNet": (_torchvision("googlenet"), PICTURE),
    "Inception v3": (_torchvision("inception_v3"), (1, 3, 299, 299)),
    "MNASNet 1.0": (_torchvision("mnasnet1_0"), PICTURE),
    "RegNetX-400MF": (_torchvision("regnet_x_400mf"), PICTURE),
    "EfficientNetV2-S": (_torchvision("efficientnet_v2_s"), PICTURE),
    "ConvNeXt-T": (_torchvision("convnext_tiny"), PICTURE),
    "FCOS, dense part": (_dense_part("fcos_resnet50_fpn"), (1, 3, 320, 320)),
}
"""The same of networks from which no rule was read."""

READ_LATER: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {"Swin-T": (_torchvision("swin_t"), PICTURE)}
"""The same of a network that was held out, until it missed and rules were read from it."""


def make(name: str) -> tuple[nn.Module, Tensor]:
    """Make a network in eval mode and an input of its shape, always the same."""
    torch.manual_seed(0)
    maker, shape = (NETWORKS | READ_LATER | HELD_OUT)[name]
    return maker().eval(), torch.randn(shape)


def uneven_widths(full: Mapping[str, int], number: int) -> dict[str, int]:
    """The widths of one shrunk network: each group its own random share, rounded up to the network's step."""
    generator = random.Random(number)
    step = STEPS[number]
    widths = {name: max(1, round(size * generator.uniform(*KEPT))) for name, size in full.items()}
    return {name: min(full[name], -(-width // step) * step) for name, width in widths.items()}
