"""The networks of the fidelity sweep: those whose memory is compared, at sizes that one core runs quickly."""

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.memory_networks import NETWORKS as MAKERS
from benchmarks.unseen_networks import GhostNet, MobileVit, UNet

RUNTIMES = ("onnxruntime", "openvino")

NAMES = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3-large",
    "efficientnet_b0": "EfficientNet-B0",
    "regnet_y_400mf": "RegNetY-400MF",
    "densenet121": "DenseNet-121",
    "shufflenet_v2_x1_0": "ShuffleNetV2",
    "retinanet": "RetinaNet, dense part",
    "edsr": "EDSR",
    "lffn": "LFFN-S",
    "vit": "small ViT",
}
"""Of each network, as `--only` and files name it, the name under which `memory_networks` makes it."""

SHAPES = {"retinanet": (1, 3, 160, 160), "edsr": (1, 3, 48, 48)}
"""Of the inputs of those that would take long at the size at which their memory is looked at."""

UNSEEN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet": (UNet, (1, 3, 96, 96)),
    "ghostnet": (GhostNet, (1, 3, 160, 160)),
    "mobilevit": (MobileVit, (1, 3, 128, 128)),
    "convnext_tiny": (lambda: torchvision.models.convnext_tiny(weights=None), (1, 3, 112, 112)),
    "swin_t": (lambda: torchvision.models.swin_t(weights=None), (1, 3, 112, 112)),
}
"""Networks by which nothing was chosen, with the shapes of their inputs: they are predicted and measured, no more."""

QUICK = "tiny"
"""The network of `--quick`."""


class Tiny(nn.Module):
    """A residual network small enough for a test, and wide enough to be measured at several widths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.inner = nn.Conv2d(48, 64, 3, padding=1)
        self.outer = nn.Conv2d(64, 48, 3, padding=1)
        self.head = nn.Linear(48, 4)

    def forward(self, picture: Tensor) -> Tensor:
        """Classify pictures, `[N, 3, H, W]`."""
        picture = torch.relu(self.norm(self.stem(picture)))
        picture = torch.relu(picture + self.outer(torch.relu(self.inner(picture))))
        found: Tensor = self.head(picture.mean((2, 3)))
        return found


def make_network(name: str) -> tuple[nn.Module, Tensor]:
    """Make a network in eval mode with random weights, and an input of its shape, always the same.

    Raises:
        KeyError: there is no such network.
    """
    torch.manual_seed(0)
    if name == QUICK:
        return Tiny().eval(), torch.randn(2, 3, 16, 16)
    maker, shape = UNSEEN[name] if name in UNSEEN else MAKERS[NAMES[name]]
    return maker().eval(), torch.randn(SHAPES.get(name, shape))
