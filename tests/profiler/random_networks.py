"""Small random networks: a stem, blocks that each show one structure, and a head."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.coded_blocks import CODED

Block = Callable[[int, random.Random], tuple[nn.Module, int]]
"""Makes a module for maps of this many channels; gives it with the channels that it leaves."""


def conv(inputs: int, outputs: int, kernel: int = 3, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **settings)


def _width(rng: random.Random) -> int:
    return rng.choice([4, 6, 8, 10, 12])


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, inner), nn.BatchNorm2d(inner), nn.ReLU(), conv(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Dense(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, growth), conv(width + growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.relu(self.first(x))], 1)
        return torch.cat([self.second(x), x], 1)


class Chunked(nn.Module):
    """Splits in two equal parts; one goes through a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.body = conv(width, 2 * width, 1), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.enter(x).chunk(2, 1)
        return torch.cat([first, self.body(second)], 1)


class Gated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = conv(width, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.glu(self.enter(x), 1)


class Shuffle(nn.Module):
    """The channel shuffle of ShuffleNet, on two parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = conv(width, 8, 1), conv(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        n, c, h, w = x.shape
        return self.leave(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(functional.adaptive_avg_pool2d(x, 1)))))


class Shared(nn.Module):
    """One layer, called twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.relu(self.body(x)))


class Scaled(nn.Module):
    """A layer scale and a residual, as in ConvNeXt without its norm."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, 1, 1))
        self.body = nn.Sequential(
            conv(width, width, 3, groups=width), conv(width, inner, 1), nn.GELU(), conv(inner, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.body(x)


class ChannelsLast(nn.Module):
    """Linear layers on the last dimension, with a LayerNorm."""

    def __init__(self, width: int, inner: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(functional.gelu(self.up(self.norm(x.permute(0, 2, 3, 1)))))
        return x + y.permute(0, 3, 1, 2)


class PixelShuffled(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.up = conv(width, 4 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.pixel_shuffle(self.up(x), 2), 2)


def _plain(width: int, rng: random.Random) -> tuple[nn.Module, int]:
    outputs = _width(rng)
    return nn.Sequential(conv(width, outputs), nn.BatchNorm2d(outputs), nn.SiLU()), outputs


def _grouped(width: int, rng: random.Random, groups: int, each: int) -> tuple[nn.Module, int]:
    inner, outputs = groups * each, _width(rng)
    body = conv(inner, groups * rng.choice([2, 3, 4]), groups=groups)
    return nn.Sequential(conv(width, inner, 1), body, nn.ReLU(), conv(body.out_channels, outputs, 1)), outputs


def _grouped_up(width: int, rng: random.Random, groups: int, each: int) -> tuple[nn.Module, int]:
    inner, outputs = groups * each, groups * rng.choice([1, 2, 3])
    up = nn.ConvTranspose2d(inner, outputs, 2, stride=2, groups=groups)
    return nn.Sequential(conv(width, inner, 1), up, nn.MaxPool2d(2), conv(outputs, 6, 1)), 6


def _depthwise(width: int, rng: random.Random) -> tuple[nn.Module, int]:
    multiplier, outputs = rng.choice([1, 1, 2]), _width(rng)
    inner = width * multiplier
    return nn.Sequential(
        conv(width, inner, groups=width), nn.BatchNorm2d(inner), nn.ReLU6(), conv(inner, outputs, 1)
    ), outputs


def _up(width: int, rng: random.Random) -> tuple[nn.Module, int]:
    outputs = _width(rng)
    return nn.Sequential(nn.ConvTranspose2d(width, outputs, 2, stride=2), nn.PReLU(outputs), nn.AvgPool2d(2)), outputs


def _group_norm(width: int, rng: random.Random) -> tuple[nn.Module, int]:
    return nn.Sequential(conv(width, 12), nn.GroupNorm(rng.choice([2, 3, 4, 1]), 12), nn.ReLU(), conv(12, 8, 1)), 8


def _instance_norm(width: int, rng: random.Random) -> tuple[nn.Module, int]:
    outputs = _width(rng)
    return nn.Sequential(conv(width, outputs), nn.InstanceNorm2d(outputs, affine=True), nn.PReLU()), outputs


BLOCKS: dict[str, Block] = {
    "plain": _plain,
    "residual": lambda width, rng: (Residual(width, _width(rng)), width),
    "dense": lambda width, rng: (lambda growth: (Dense(width, growth), width + 2 * growth))(rng.choice([3, 4])),
    "chunk": lambda width, rng: (Chunked(width), 2 * width),
    "gate": lambda width, rng: (Gated(width), width),
    "shuffle": lambda width, rng: (Shuffle(width), 8),
    "grouped, whole parts": lambda width, rng: _grouped(width, rng, 4, 2),
    "grouped, within parts": lambda width, rng: _grouped(width, rng, 2, 4),
    "depthwise": _depthwise,
    "squeeze": lambda width, rng: (SqueezeExcite(width), width),
    "shared": lambda width, rng: (Shared(width), width),
    "pixel shuffle": lambda width, rng: (lambda outputs: (PixelShuffled(width, outputs), outputs))(_width(rng)),
    "transposed": _up,
    "grouped transposed, whole parts": lambda width, rng: _grouped_up(width, rng, 4, 2),
    "grouped transposed, within parts": lambda width, rng: _grouped_up(width, rng, 2, 4),
    "group norm": _group_norm,
    "instance norm": _instance_norm,
    "channels last": lambda width, rng: (ChannelsLast(width, _width(rng), norm=False), width),
    "layer norm": lambda width, rng: (ChannelsLast(width, _width(rng), norm=True), width),
    "layer scale": lambda width, rng: (Scaled(width, _width(rng)), width),
}
"""Structures whose code reads its sizes from tensors and modules."""


class RandomNetwork(nn.Module):
    """Stem, blocks, and a head that flattens or pools; with `two_inputs` a second picture is joined half-way."""

    def __init__(self, names: Sequence[str], *, seed: int, flatten: bool, two_inputs: bool) -> None:
        super().__init__()
        rng = random.Random(seed)
        width = _width(rng)
        self.stem = conv(3, width)
        self.other = conv(1, width) if two_inputs else None
        self.sum_inputs = rng.random() < 0.5
        if two_inputs and not self.sum_inputs:
            width *= 2
        blocks = []
        for name in names:
            block, width = (BLOCKS | CODED)[name](width, rng)
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.flatten = flatten
        self.head = nn.Linear(width * 16 if flatten else width, 5)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = torch.relu(self.stem(x))
        if self.other is not None and other is not None:
            y = self.other(other)
            x = x + y if self.sum_inputs else torch.cat([x, y], 1)
        x = self.blocks(x)
        if self.flatten:
            return self.head(functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return self.head(x.mean((2, 3)))
