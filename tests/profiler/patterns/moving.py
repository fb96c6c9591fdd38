"""Channels that are moved: permuted, shuffled, viewed, padded, repeated, written from space to depth and back."""

import torch
from torch import nn
from torch.nn import functional

from tests.profiler.patterns.building import Patterns, between, channels_last, conv, shuffle

BACKWARDS = torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])
MIXED = torch.tensor([3, 0, 5, 1, 7, 2, 4, 6])


def _depth_to_space(x: torch.Tensor) -> torch.Tensor:
    """TensorFlow's order: the place in the block counts before the channel."""
    n, c, h, w = x.shape
    return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def _focus(x: torch.Tensor) -> torch.Tensor:
    """Space to depth by strided slices, as YOLOv5 does it."""
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def _with_coordinates(x: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 8).to(x), torch.linspace(-1, 1, 8).to(x), indexing="ij")
    return torch.cat([x, torch.stack([rows, columns])[None]], 1)


MOVING: Patterns = {
    "channel shuffle": (between(lambda net, x: shuffle(x, 2), 8, 8), {"a": 4}),
    "nn.ChannelShuffle": (between(lambda net, x: net.s(x), 8, 8, s=nn.ChannelShuffle(4)), {"a": 2}),
    "flip along channels": (between(lambda net, x: x.flip(1), 8, 8), {"a": 8}),
    "roll along channels": (between(lambda net, x: x.roll(3, 1), 8, 8), {"a": 8}),
    "roll along pixels": (between(lambda net, x: x.roll((1, 2), (2, 3)), 8, 8), {"a": 8}),
    "rotated maps": (between(lambda net, x: x.rot90(1, (2, 3)).transpose(2, 3), 8, 8), {"a": 8}),
    "index_select with a constant": (
        between(lambda net, x: x.index_select(1, net.i), 8, 8, i=BACKWARDS),
        {"a": 8},
    ),
    "permutation in a buffer": (between(lambda net, x: x[:, net.i], 8, 8, i=MIXED), {"a": 8}),
    "indexing with a list": (
        between(lambda net, x: x[:, [0, 2, 4]], 8, 3),
        {"a": 3, "a#2": "no layer takes them in"},
    ),
    "indexing by the data": (
        between(lambda net, x: x[:, x.mean((0, 2, 3)).argsort()], 8, 8),
        {"a": "orders them by what the network computes", "z#2": "size is fixed"},
    ),
    "a permutation, and back": (
        between(lambda net, x: net.b(x[:, net.i])[:, net.i], 8, 8, i=MIXED, b=conv(8, 8, 3, groups=8)),
        {"a": 8},
    ),
    "hard-coded view": (between(lambda net, x: x.view(1, 2, 4, 8, 8).mean(1), 8, 4), {"a": 4}),
    "view by nn.Unflatten": (
        between(lambda net, x: net.u(x).amax(2), 8, 2, u=nn.Unflatten(1, (2, 4))),
        {"a": 2},
    ),
    "hard-coded flattening": (
        between(lambda net, x: net.b(x.view(-1, 512))[..., None, None], 8, 6, b=nn.Linear(512, 6)),
        {"a": 8, "b": 6},
    ),
    "pooled to patches and flattened": (
        between(lambda net, x: net.b(functional.adaptive_avg_pool2d(x, 4).flatten(1))[..., None, None], 8, 6,
                b=nn.Linear(128, 6)),
        {"a": 8, "b": 6},
    ),
    "view that mixes channels with pixels": (
        between(lambda net, x: x.reshape(1, 64, 4).transpose(1, 2).reshape(1, 4, 8, 8), 4, 4),
        {"a": "slides over them", "z#2": "size is fixed"},
    ),
    "channels last": (
        between(lambda net, x: channels_last(net.b, x), 8, 6, b=nn.Linear(8, 6)),
        {"a": 8, "b": 6},
    ),
    "pixel shuffle": (between(lambda net, x: functional.pixel_shuffle(x, 2), 12, 3), {"a": 3}),
    "pixel unshuffle": (between(lambda net, x: functional.pixel_unshuffle(x, 2), 3, 12), {"a": 3}),
    "depth to space in TensorFlow's order": (between(lambda net, x: _depth_to_space(x), 12, 3), {"a": 3}),
    "space to depth by slices": (between(lambda net, x: _focus(x), 4, 16), {"a": 4}),
    "unfolded patches": (
        between(lambda net, x: functional.unfold(x, 2, stride=2).view(1, 16, 4, 4), 4, 16), {"a": 4}
    ),
    "unfolded patches with a border": (
        between(lambda net, x: functional.unfold(x, 3, padding=1).view(1, 36, 8, 8), 4, 36), {"a": 4}
    ),
    "folded patches": (
        between(lambda net, x: functional.fold(x.view(1, 12, 64), (16, 16), 2, stride=2), 12, 3), {"a": 3}
    ),
    "local windows": (between(lambda net, x: x.unfold(2, 3, 1).mean(-1), 8, 8), {"a": 8}),
    "repeat_interleave": (between(lambda net, x: x.repeat_interleave(2, 1), 4, 8), {"a": 4}),
    "tile": (between(lambda net, x: x.repeat(1, 2, 1, 1), 4, 8), {"a": 4}),
    "nearest pixels": (
        between(lambda net, x: functional.interpolate(functional.interpolate(x, scale_factor=2), 8), 8, 8), {"a": 8}
    ),
    "reflected border": (
        between(lambda net, x: net.b(functional.pad(x, (1, 1, 1, 1), "reflect")), 8, 6, b=nn.Conv2d(8, 6, 3)),
        {"a": 8, "b": 6},
    ),
    "border of zeros": (
        between(lambda net, x: net.b(functional.pad(x, (0, 1, 0, 1))), 8, 6, b=nn.Conv2d(8, 6, 2)),
        {"a": 8, "b": 6},
    ),
    "channels padded in the shortcut": (
        between(lambda net, x: net.b(x) + functional.pad(x, (0, 0, 0, 0, 2, 2)), 4, 8, b=conv(4, 8, 3)),
        {"a": 4, "b": 4},
    ),
    "zeros joined in the shortcut": (
        between(lambda net, x: net.b(x) + torch.cat([x, torch.zeros_like(x)], 1), 4, 8, b=conv(4, 8, 3)),
        {"a": 4},
    ),
    "zeros of a written size joined in the shortcut": (
        between(lambda net, x: net.b(x) + torch.cat([x, torch.zeros(1, 4, 8, 8).to(x)], 1), 4, 8, b=conv(4, 8, 3)),
        {"a": 4, "b": 4},
    ),
    "coordinates joined": (
        between(lambda net, x: _with_coordinates(x), 8, 10), {"a": 8, "z#2": "no layer of the network makes them"}
    ),
    "stacked and summed": (between(lambda net, x: torch.stack([x, net.b(x)], 1).sum(1), 8, 8, b=conv(8, 8)), {"a": 8}),
    "stacked and interleaved": (
        between(lambda net, x: torch.stack([x, net.b(x)], 2).flatten(1, 2), 4, 8, b=conv(4, 4)), {"a": 4}
    ),
}  # fmt: skip
