"""Other forms of attention: linear, across channels, in windows, pooled, with biases, from a memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.patterns.building import (
    Net,
    Patterns,
    SelfAttention,
    attend,
    between,
    conv,
    depthwise,
    heads_of,
    linears,
    over_tokens,
    three,
    tokens,
    weight,
)


def _talking(net: nn.Module, x: Tensor) -> Tensor:
    """Heads are mixed before and after the softmax."""
    q, k, v = three(net, x, 4)
    scores = net.m((q @ k.transpose(-2, -1) * 0.7).permute(0, 2, 3, 1)).softmax(2)
    return net.p((net.n(scores).permute(0, 3, 1, 2) @ v).transpose(1, 2).flatten(2))


def _linear(net: nn.Module, x: Tensor, heads: int) -> Tensor:
    """Efficient attention: softmax of queries over a head's places and of keys over tokens, keys times values first."""
    q, k, v = three(net, x, heads)
    return net.p((q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)).transpose(1, 2).flatten(2))


def _positive(net: nn.Module, x: Tensor) -> Tensor:
    """Linear attention of positive features, divided by their sum."""
    q, k, v = three(net, x, 2)
    q, k = torch.relu(q), torch.relu(k)
    y = q @ (k.transpose(-2, -1) @ v) / ((q * k.sum(2, keepdim=True)).sum(-1, keepdim=True) + 1e-6)
    return net.p(y.transpose(1, 2).flatten(2))


def _across_channels(net: nn.Module, x: Tensor, heads: int) -> Tensor:
    """XCA: channels of a head look at each other, normed over tokens."""
    q, k, v = (y.transpose(-2, -1) for y in three(net, x, heads))
    q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
    return net.p(((q @ k.transpose(-2, -1) * net.s).softmax(-1) @ v).permute(0, 3, 1, 2).flatten(2))


def _windows(x: Tensor, size: int) -> Tensor:
    """A map `[n, h, w, c]` as windows `[n h w / size², size², c]`."""
    n, h, w, c = x.shape
    x = x.view(n, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def _unwindowed(x: Tensor, size: int) -> Tensor:
    side = 8 // size
    return x.view(-1, side, side, size, size, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, x.shape[-1])


def _swin(net: nn.Module, x: Tensor) -> Tensor:
    """Shifted windows, a table of biases for each head, and a mask for what the shift brought together."""
    region = torch.zeros(1, 8, 8, 1)
    for number, rows in enumerate((slice(0, 4), slice(4, 6), slice(6, 8))):
        region[:, rows] = number
    region = _windows(region, 4).squeeze(-1)
    mask = (region[:, None] - region[:, :, None]).ne(0).to(x).mul(-100.0)
    y = _windows(x.permute(0, 2, 3, 1).roll((-2, -2), (1, 2)), 4)
    q, k, v = net.qkv(y).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
    bias = net.t[net.i.view(-1)].view(16, 16, -1).permute(2, 0, 1)
    scores = (q * 0.5) @ k.transpose(-2, -1) + bias + mask[:, None]
    y = net.p((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, 8))
    return x + _unwindowed(y, 4).roll((2, 2), (1, 2)).permute(0, 3, 1, 2)


def _pairs(side: int) -> Tensor:
    """For each pair of a window's pixels the row of the bias table."""
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
    apart = places[:, :, None] - places[:, None] + side - 1
    return apart[0] * (2 * side - 1) + apart[1]


def _grid(net: nn.Module, x: Tensor) -> Tensor:
    """MaxViT's second half: pixels that stand a window apart look at each other."""
    n, c, h, w = x.shape
    y = x.view(n, c, 4, h // 4, 4, w // 4).permute(0, 3, 5, 2, 4, 1).reshape(-1, 16, c)
    y = net.m(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 3, 1, 4, 2).reshape(n, c, h, w)
    return x + y


def _pooling(net: nn.Module, x: Tensor) -> Tensor:
    """MViT: a depthwise convolution, the same for each head, makes keys and values fewer; queries are added."""

    def shrunk(y: Tensor, layer: nn.Module) -> Tensor:
        return layer(y.transpose(2, 3).reshape(2, 4, 8, 8)).view(1, 2, 4, -1).transpose(2, 3)

    q, k, v = three(net, x, 2)
    k, v = shrunk(k, net.dk), shrunk(v, net.dv)
    y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v + q
    return net.p(y.transpose(1, 2).flatten(2))


def _levit(net: nn.Module, x: Tensor) -> Tensor:
    """Keys narrower than values, one convolution for all, a bias for each head and distance, the activation after."""
    q, k, v = net.qkv(x).view(1, 64, 2, 8).split([2, 2, 4], 3)
    q, k, v = q.transpose(1, 2), k.permute(0, 2, 3, 1), v.transpose(1, 2)
    scores = q @ k * 0.7 + net.t[:, net.i]
    return net.p(functional.hardswish((scores.softmax(-1) @ v).transpose(1, 2).reshape(1, 64, 8)))


def _sloped(net: nn.Module, x: Tensor) -> Tensor:
    """ALiBi: a slope of its own, written in the code, for each head."""
    q, k, v = three(net, x, 4)
    far = (torch.arange(64)[None] - torch.arange(64)[:, None]).abs().to(x)
    scores = q @ k.transpose(-2, -1) - far * torch.tensor([0.5, 0.25, 0.125, 0.0625]).to(x).view(4, 1, 1)
    return net.p((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _non_local(net: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
    y = (q.transpose(1, 2) @ k).softmax(-1) @ v.transpose(1, 2)
    return x + net.p(y.transpose(1, 2).reshape(1, -1, 8, 8))


def _pool_by_attention(net: nn.Module, x: Tensor) -> Tensor:
    """CLIP's pooling: the mean looks at all tokens."""
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + net.t
    return net.m(x[:, :1], x, x, need_weights=False)[0][:, 0]


def _external(net: nn.Module, x: Tensor) -> Tensor:
    """External attention: a memory of 5 slots, softmax over the tokens, then over the slots' sum."""
    y = net.k(x).softmax(1)
    return net.v(y / (y.sum(2, keepdim=True) + 1e-6))


FOUR = linears(q=(8, 8), k=(8, 8), v=(8, 8), p=(8, 8))

ATTENTION: Patterns = {
    "talking heads": (
        over_tokens(_talking, 8, 8, **FOUR, m=nn.Linear(4, 5), n=nn.Linear(5, 4)),
        {"a": 8, "q": 4, "v": 4, "m": 5, "p": 8},
    ),
    "keys times values first": (over_tokens(lambda net, x: _linear(net, x, 2), 8, 8, **FOUR), {"a": 8, "q": 2, "p": 8}),
    "keys times values first, one head": (
        over_tokens(lambda net, x: _linear(net, x, 1), 8, 8, **linears(q=(8, 4), k=(8, 4), v=(8, 6), p=(6, 8))),
        {"a": 8, "q": "~4", "v": 6, "p": 8},
    ),
    "positive features": (over_tokens(_positive, 8, 8, **FOUR), {"a": 8, "q": 2, "p": 8}),
    "channels look at each other": (
        over_tokens(lambda net, x: _across_channels(net, x, 2), 8, 8, **FOUR, s=weight(2, 1, 1)),
        {"a": 8, "q": 2, "p": 8},
    ),
    "channels look at each other, one head": (
        over_tokens(lambda net, x: _across_channels(net, x, 1), 8, 8, s=weight(1, 1, 1),
                    **linears(q=(8, 4), k=(8, 6), v=(8, 6), p=(4, 8))),
        {"a": 8, "q": 4, "k": "~6", "p": 8},
    ),
    "shifted windows": (
        between(_swin, 8, 8, qkv=nn.Linear(8, 24), p=nn.Linear(8, 8), t=weight(49, 2), i=_pairs(4)),
        {"a": 8, "qkv": 2},
    ),
    "attention on a grid": (between(_grid, 8, 8, m=SelfAttention(8, 2)), {"a": 8, "m.qkv": 2}),
    "pooled keys and values": (
        over_tokens(_pooling, 8, 8, **FOUR, dk=conv(4, 4, 3, stride=2, groups=4), dv=conv(4, 4, 3, stride=2, groups=4)),
        {"a": 8, "q": 2, "dk": "size is fixed", "dv": "size is fixed", "p": 8},
    ),
    "keys narrower than values": (
        over_tokens(_levit, 8, 8, qkv=nn.Linear(8, 16), p=nn.Linear(8, 8), t=weight(2, 49), i=_pairs(4).repeat(4, 4)),
        {"a": 8, "qkv": 2, "p": 8},
    ),
    "slopes written in the code": (over_tokens(_sloped, 8, 8, **FOUR), {"a": 8, "q": "size is fixed", "v": 2, "p": 8}),
    "non-local block": (
        between(_non_local, 8, 8, q=conv(8, 4), k=conv(8, 4), v=conv(8, 6), p=conv(6, 8)), {"a": 8, "q": 4, "v": 6}
    ),
    "pooled by attention": (
        over_tokens(_pool_by_attention, 8, 8, m=nn.MultiheadAttention(8, 2, batch_first=True), t=weight(1, 65, 8)),
        {"a": 8, "m.in_proj_weight": 2, "m.out_proj": 8},
    ),
    "learned queries": (
        over_tokens(lambda net, x: net.m(net.t, x, x, need_weights=False)[0] + net.t, 8, 8,
                    m=nn.MultiheadAttention(8, 2, batch_first=True), t=weight(1, 5, 8)),
        {"a": 8, "m.in_proj_weight": 2},
    ),
    "external memory": (
        over_tokens(_external, 8, 8, k=nn.Linear(8, 5, bias=False), v=nn.Linear(5, 8, bias=False)),
        {"a": 8, "k": "~5", "v": 8},
    ),
    "queries of a convolution": (
        Net(
            lambda net, x: net.z(attend(*(heads_of(tokens(layer(net.a(x))), 2) for layer in (net.q, net.k, net.v)))),
            a=conv(3, 8),
            q=depthwise(8),
            k=depthwise(8),
            v=depthwise(8),
            z=nn.Linear(8, 2),
        ),
        {"a": 2},
    ),
}  # fmt: skip
