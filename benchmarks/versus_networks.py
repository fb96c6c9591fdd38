"""The networks of the versus sweep, each with its data and how much training it gets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.versus_lite import EfficientNetLite0, efficientnet_lite0

FASHION, DIGITS, PHOTOGRAPHS = "Fashion-MNIST", "digits", "photographs"
"""The data that there are; `versus_task.read_pictures` reads them."""


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
class Effort:
    """How much training a network gets; the same for all methods.

    Attributes:
        images: of the training set that are used, its first.
        tune_epochs: of fine-tuning after pruning.
        score_images: of these, by which channels are scored.
        batch: of training.
        peak: highest learning rate in the training of the unpruned network.
        tune_peak: the same in fine-tuning, or None for the trainer's own.
        test_images: by which networks are judged.
    """

    images: int = 20_000
    tune_epochs: int = 1
    score_images: int = 2048
    batch: int = 64
    peak: float = 4e-3
    tune_peak: float | None = None
    test_images: int = 10_000


USUAL = Effort()
LITE = Effort(images=3000, score_images=512, batch=32, tune_peak=1e-4, test_images=960)
TRIAL = Effort(images=512, score_images=128, test_images=450)
"""For a trial of the sweep itself."""


@dataclass(frozen=True)
class Subject:
    """A network of the sweep.

    Attributes:
        title: in the report.
        make: builds it with random weights.
        epochs: of training the unpruned network; 0 where it comes with its weights.
        core: whether it is in the core form.
        side: of the pictures, in pixels.
        data: on which it is trained and judged.
        effort: how much training, and by how many pictures it is judged.
        trained: builds it with the weights that it comes with, or None where it is trained here.
        channels: of the pictures.
        classes: between which it decides.
    """

    title: str
    make: Callable[[], nn.Module]
    epochs: int
    core: bool = True
    side: int = 28
    data: str = FASHION
    effort: Effort = USUAL
    trained: Callable[[], nn.Module] | None = None
    channels: int = 1
    classes: int = 10

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the inputs as deployed: one picture at a time."""
        return (1, self.channels, self.side, self.side)

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
    "efficientnet_lite0": Subject(
        "EfficientNet-Lite0",
        EfficientNetLite0,
        epochs=0,
        core=False,
        side=160,
        data=PHOTOGRAPHS,
        effort=LITE,
        trained=efficientnet_lite0,
        channels=3,
        classes=1000,
    ),
    QUICK: Subject("tiny", tiny, epochs=1, core=False, side=8, data=DIGITS, effort=TRIAL),
}
"""By the name that `--only` and files use."""


def comes_trained(name: str) -> bool:
    """Whether a network has weights that cannot be trained here, so that its shapes are not trained from scratch."""
    return NETWORKS[name].trained is not None
