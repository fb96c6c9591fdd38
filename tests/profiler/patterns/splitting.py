"""Channels that are split and joined: chunk, split, slices, concatenation, writing into parts, gathering."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.patterns.building import Net, Patterns, between, conv, depthwise, over_tokens, shuffle


def _written(net: nn.Module, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], 8, *x.shape[2:], dtype=x.dtype, device=x.device)
    out[:, :4] = net.b(x)
    out[:, 4:] = x
    return out


def _added(net: nn.Module, x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :4] += net.b(x)
    return out


def _put(net: nn.Module, x: Tensor) -> Tensor:
    out = x.new_zeros(1, 6, 8, 8)
    return out.index_put((torch.tensor(0), torch.tensor([1, 3, 5, 0])), net.b(x)[0])


def _res2(net: nn.Module, x: Tensor) -> Tensor:
    """Res2Net: each part is added to the next one before its convolution."""
    first, second, third, fourth = x.chunk(4, 1)
    y = net.b(second)
    u = net.c(third + y)
    return torch.cat([first, y, u, net.d(fourth + u)], 1)


def _quarters(net: nn.Module, x: Tensor) -> Tensor:
    """LFFN: quarters of written sizes, each with a depthwise convolution of its own."""
    parts = x.split([3, 3, 3, 3], 1)
    return torch.cat([layer(part) for layer, part in zip((net.b, net.c, net.d, net.e), parts, strict=True)], 1)


def _inception(net: nn.Module, x: Tensor) -> Tensor:
    """InceptionNeXt: most channels pass, the others get a depthwise kernel of their own shape."""
    passed, square, wide, high = torch.split(x, (6, 2, 2, 2), 1)
    return torch.cat([passed, net.b(square), net.c(wide), net.d(high)], 1)


def _shuffle_unit(net: nn.Module, x: Tensor) -> Tensor:
    """ShuffleNet v2: one half passes, the other goes through a branch, and both are shuffled."""
    passed, branch = x.chunk(2, 1)
    return shuffle(torch.cat([passed, net.d(net.c(net.b(branch)))], 1), 2)


def _partial(net: nn.Module, x: Tensor) -> Tensor:
    """FasterNet: a convolution on the first channels, then two pointwise ones and the shortcut."""
    first, rest = torch.split(x, [2, 6], 1)
    return x + net.d(torch.relu(net.c(torch.cat([net.b(first), rest], 1))))


def _kept_tokens(net: nn.Module, x: Tensor) -> Tensor:
    """MAE: the tokens to keep are drawn; all their channels are gathered."""
    order = x.square().sum(-1).argsort(1)[:, :16]
    return torch.gather(net.b(x), 1, order.unsqueeze(-1).repeat(1, 1, 8))


def _scattered(net: nn.Module, x: Tensor) -> Tensor:
    """Tokens summed up in cells that a table gives."""
    cells = (torch.arange(64) // 8).view(1, 64, 1).expand(x.shape)
    return torch.zeros(1, 8, x.shape[2], dtype=x.dtype).scatter_add(1, cells, x)


SPLITTING: Patterns = {
    "chunk": (between(lambda net, x: (lambda a, b: a * b)(*x.chunk(2, 1)), 8, 4), {"a": 4}),
    "maxout": (between(lambda net, x: torch.maximum(*x.chunk(2, 1)), 8, 4), {"a": 4}),
    "gated linear unit": (between(lambda net, x: functional.glu(x, 1), 8, 4), {"a": 4}),
    "gate from a second chunk of a convolution": (
        between(lambda net, x: (lambda a, b: x + a * torch.sigmoid(b))(*net.b(x).chunk(2, 1)), 8, 8, b=conv(8, 16)),
        {"a": 8},
    ),
    "uneven split": (
        between(lambda net, x: (lambda a, b: torch.cat([net.b(a), b], 1))(*x.split([2, 6], 1)), 8, 11, b=conv(2, 5)),
        {"a": 2, "a#2": 6, "b": 5},
    ),
    "even split by written sizes": (
        between(lambda net, x: (lambda a, b: torch.cat([net.b(a), b], 1))(*x.split([4, 4], 1)), 8, 9, b=conv(4, 5)),
        {"a": 4, "a#2": 4, "b": 5},
    ),
    "even split by one written size": (
        between(lambda net, x: (lambda a, b: torch.cat([net.b(a), b], 1))(*x.split(4, 1)), 8, 9, b=conv(4, 5)),
        {"a": 4, "b": 5},
    ),
    "chunk with a smaller last part": (
        between(lambda net, x: (lambda a, b, c: torch.cat([net.b(a), b, c], 1))(*x.chunk(3, 1)), 8, 9, b=conv(3, 4)),
        {"a": 3, "a#2": 5, "b": 4},
    ),
    "tensor_split": (
        between(lambda net, x: (lambda a, b, c: torch.cat([net.b(c), b, a], 1))(*x.tensor_split(3, 1)), 8, 10,
                b=conv(2, 4)),
        {"a": 6, "a#2": 2, "b": 4},
    ),
    "split off a single channel": (
        between(lambda net, x: (lambda a, b: b * torch.sigmoid(a))(*x.split([1, 7], 1)), 8, 7),
        {"a": "single one", "a#2": 7},
    ),
    "unbind along channels": (
        between(lambda net, x: torch.stack(x.unbind(1)[::-1], 1), 8, 8), {"a": "one by one", "z#2": "size is fixed"}
    ),
    "one channel by its number": (
        between(lambda net, x: x[:, :7] * x[:, 7].unsqueeze(1), 8, 7), {"a": 7, "a#2": "picks it by its number"}
    ),
    "the first channel by its number": (
        between(lambda net, x: x[:, 1:] * x.select(1, 0).unsqueeze(1), 8, 7),
        {"a": "picks it by its number", "a#2": 7},
    ),
    "leading slice only": (
        between(lambda net, x: x[:, :8], 12, 8), {"a": 8, "a#2": "no layer takes them in"}
    ),
    "two slices that cover": (
        between(lambda net, x: torch.cat([net.b(x[:, :3]), x[:, 3:]], 1), 8, 10, b=conv(3, 5)),
        {"a": 3, "a#2": 5, "b": 5},
    ),
    "slices that overlap": (
        between(lambda net, x: net.b(x[:, :5]) + net.c(x[:, 3:]), 8, 6, b=conv(5, 6), c=conv(5, 6)),
        {"a": 3, "a#2": 2, "a#3": 3, "b": 6},
    ),
    "every other channel": (between(lambda net, x: x[:, ::2] + x[:, 1::2], 8, 4), {"a": 4}),
    "partial convolution": (
        between(lambda net, x: torch.cat([net.b(x[:, : net.part]), x[:, net.part :]], 1), 8, 8, b=conv(2, 2, 3),
                part=2),
        {"a": 2, "a#2": 6, "b": 2},
    ),
    "FasterNet block": (
        between(_partial, 8, 8, b=conv(2, 2, 3), c=conv(8, 12), d=conv(12, 8)),
        {"a": 2, "a#2": 6, "b": 2, "c": 12},
    ),
    "partial convolution in place": (
        between(lambda net, x: torch.slice_scatter(x, net.b(x[:, :2]), 1, 0, 2), 8, 8, b=conv(2, 2, 3)),
        {"a": 2, "a#2": 6},
    ),
    "concat of one tensor at several offsets": (
        between(lambda net, x: torch.cat([x, x * 2, x.flip(1)], 1), 4, 12), {"a": 4}
    ),
    "concat of a difference and both": (
        Net(
            lambda net, x: net.z(torch.cat([(h := net.a(x)) - (g := net.a(x.flip(3))), h, g], 1)),
            a=conv(3, 8, 3),
            z=conv(24, 2),
        ),
        {"a": 8},
    ),
    "concat, then split across the border": (
        between(lambda net, x: torch.cat([x, net.b(x)], 1).chunk(2, 1)[1], 6, 4, b=conv(6, 2)), {"a": 2, "a#2": 2}
    ),
    "concat, then split by sizes across the border": (
        between(lambda net, x: torch.cat([x, net.b(x)], 1).split([4, 5], 1)[1], 6, 5, b=conv(6, 3)),
        {"a": 4, "a#2": 2, "b": 3},
    ),
    "dense concat, new ones first": (
        between(lambda net, x: torch.cat([net.c(y := torch.cat([net.b(x), x], 1)), y], 1), 4, 10, b=conv(4, 3, 3),
                c=conv(7, 3, 3)),
        {"a": 4, "b": 3, "c": 3},
    ),
    "C2f": (
        between(lambda net, x: (lambda a, b: torch.cat([a, b, net.b(b)], 1))(*x.chunk(2, 1)), 8, 12, b=conv(4, 4, 3)),
        {"a": 4, "b": 4},
    ),
    "CSP by two convolutions": (
        between(lambda net, x: torch.cat([(y := net.b(x)) + net.d(y), net.c(x)], 1), 8, 9, b=conv(8, 4), c=conv(8, 5),
                d=conv(4, 4, 3)),
        {"a": 8, "b": 4, "c": 5},
    ),
    "Res2Net parts": (
        between(_res2, 8, 8, b=conv(2, 2, 3), c=conv(2, 2, 3), d=conv(2, 2, 3)), {"a": 2, "d": 2}
    ),
    "four quarters": (
        between(_quarters, 12, 12, b=depthwise(3), c=depthwise(3), d=depthwise(3), e=depthwise(3)),
        {"a": 3, "a#2": 3, "a#3": 3, "a#4": 3},
    ),
    "InceptionNeXt parts": (
        between(_inception, 12, 12, b=depthwise(2), c=depthwise(2), d=depthwise(2)),
        {"a": 6, "a#2": 2, "a#3": 2, "a#4": 2},
    ),
    "ShuffleNet unit": (
        between(_shuffle_unit, 8, 8, b=conv(4, 6), c=depthwise(6), d=conv(6, 4)), {"a": 4, "b": 6}
    ),
    "ghost channels": (
        between(lambda net, x: torch.cat([x, net.d(x)], 1), 4, 8, d=depthwise(4)), {"a": 4}
    ),
    "ghost channels, one too many": (
        between(lambda net, x: torch.cat([x, net.d(x)], 1)[:, :7], 4, 7, d=depthwise(4)), {"a": 3, "a#2": 1}
    ),
    "written into a part": (between(_written, 4, 8, b=conv(4, 4)), {"a": 4, "b": 4}),
    "added into a part": (between(_added, 8, 8, b=conv(8, 4)), {"a": 4, "a#2": 4}),
    "put by constant indices": (between(_put, 4, 6, b=conv(4, 4)), {"a": 4, "b": 4, "z#2": "no layer of the network"}),
    "tokens gathered by the data": (over_tokens(_kept_tokens, 8, 8, b=nn.Linear(8, 8)), {"a": 8, "b": 8}),
    "tokens scattered into cells": (over_tokens(_scattered, 8, 8), {"a": 8}),
    "pixels chosen by a mask": (
        over_tokens(lambda net, x: x[x.mean(-1) > x.mean()], 8, 8), {"a": "~8"}
    ),
    "pixels set by a mask": (
        between(lambda net, x: x.masked_fill(x.mean(1, keepdim=True) > 0, 0.0), 8, 8), {"a": "~8"}
    ),
    "largest of two by a condition": (
        between(lambda net, x: torch.where(x > 0, x, net.b(x)), 8, 8, b=conv(8, 8)), {"a": 8}
    ),
}  # fmt: skip
