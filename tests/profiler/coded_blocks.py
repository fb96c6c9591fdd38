"""Blocks whose code holds numbers, or whose operations change with their sizes: once cut, they may run as programs."""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.patterns.building import RMSNorm, conv


class Attention(nn.Module):
    """Attention on pixels, by hand, with a norm of the root mean square before it."""

    def __init__(self, width: int, heads: int, each: int) -> None:
        super().__init__()
        self.norm, self.num_heads = RMSNorm(width), heads
        self.qkv, self.proj = nn.Linear(width, 3 * heads * each), nn.Linear(heads * each, width)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(y)).reshape(n, h * w, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return x + self.proj(y.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (h, w))


class Multihead(nn.Module):
    """PyTorch's own attention, on a few pixels."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.enter, self.attention = conv(width, inner, 1), nn.MultiheadAttention(inner, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.adaptive_avg_pool2d(self.enter(x), 4).flatten(2).transpose(1, 2)
        y = self.attention(y, y, y, need_weights=False)[0]
        return functional.interpolate(y.transpose(1, 2).unflatten(2, (4, 4)), size=x.shape[2:])


class Parted(nn.Module):
    """An uneven split of written sizes; each part has a layer of its own."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.enter = conv(width, sum(sizes), 1)
        self.layers = nn.ModuleList(conv(size, size, 3, groups=size if size % 2 else 1) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.enter(x).split(self.sizes, 1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], 1)


class Sliced(nn.Module):
    """A convolution on the first channels only, the rest passes; then a roll along the channels."""

    def __init__(self, width: int, first: int) -> None:
        super().__init__()
        self.first, self.body = first, conv(first, first, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.body(x[:, : self.first]), x[:, self.first :]], 1).roll(self.first, 1)


class Written(nn.Module):
    """Two layers write into one tensor of zeros."""

    def __init__(self, width: int, first: int, second: int) -> None:
        super().__init__()
        self.one, self.other, self.first = conv(width, first, 3), conv(width, second, 3), first

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(x.shape[0], self.first + self.other.bias.shape[0], *x.shape[2:])
        out[:, : self.first] = torch.relu(self.one(x))
        out[:, self.first :] = self.other(x)
        return out


class Recurrent(nn.Module):
    """A recurrent layer along the rows' means."""

    def __init__(self, width: int, states: int, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layer, self.leave = kind(width, states, batch_first=True), nn.Linear(states, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.leave(self.layer(x.mean(3).transpose(1, 2))[0])).transpose(1, 2).unsqueeze(3)


CODED: dict[str, Callable[[int, random.Random], tuple[nn.Module, int]]] = {
    "attention": lambda width, rng: (Attention(width, rng.choice([2, 3]), rng.choice([2, 3])), width),
    "multihead": lambda width, rng: (lambda inner: (Multihead(width, inner, 2), inner))(rng.choice([4, 6, 8])),
    "parts": lambda width, rng: (lambda sizes: (Parted(sizes, width), sum(sizes)))(rng.sample([2, 3, 4, 5], 3)),
    "slices": lambda width, rng: (Sliced(width, rng.choice([2, 3])), width),
    "written": lambda width, rng: (lambda one, other: (Written(width, one, other), one + other))(
        rng.choice([3, 4]), rng.choice([3, 5])
    ),
    "LSTM": lambda width, rng: (Recurrent(width, rng.choice([3, 5]), nn.LSTM), width),
    "GRU": lambda width, rng: (Recurrent(width, rng.choice([3, 5]), nn.GRU), width),
}
