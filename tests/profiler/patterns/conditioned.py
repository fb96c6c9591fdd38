"""Weights, gates, places and mixtures that the data or a second input makes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.patterns.building import (
    Net,
    Patterns,
    between,
    channels_last,
    conv,
    depthwise,
    heads_of,
    linears,
    over_tokens,
    pooled,
    tokens,
    weight,
)

HAAR = torch.tensor([[[[1.0, 1], [1, 1]]], [[[1, 1], [-1, -1]]], [[[1, -1], [1, -1]]], [[[1, -1], [-1, 1]]]]) / 2


def _involution(net: nn.Module, x: Tensor) -> Tensor:
    """A kernel for each pixel, shared by the channels of a group."""
    kernel = net.s(torch.relu(net.r(x))).view(1, 2, 1, 9, 64)
    patches = functional.unfold(x, 3, padding=1).view(1, 2, 4, 9, 64)
    return (kernel * patches).sum(3).view(1, 8, 8, 8)


def _carafe(net: nn.Module, x: Tensor) -> Tensor:
    """Up-sampling by predicted kernels, each a softmax over its places."""
    kernel = functional.pixel_shuffle(net.e(net.c(x)), 2).softmax(1)
    patches = functional.interpolate(functional.unfold(x, 3, padding=1).view(1, 72, 8, 8), scale_factor=2)
    return (patches.view(1, 8, 9, 16, 16) * kernel.unsqueeze(1)).sum(2)


def _modulated(net: nn.Module, x: Tensor) -> Tensor:
    """StyleGAN 2: weights times a style for each sample, their lengths made one, samples as groups."""
    style = net.s(pooled(x))
    w = net.w[None] * style[:, None, :, None, None]
    w = w * (w.square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None, None]
    y = functional.conv2d(x.reshape(1, -1, 8, 8), w.flatten(0, 1), padding=1, groups=x.shape[0])
    return y.view(x.shape[0], -1, 8, 8)


def _film(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Features scaled and shifted by a second input."""
    scale, shift = net.c(torch.relu(net.b(y))).chunk(2, 1)
    return net.z(net.n(net.a(x)) * (1 + scale[..., None, None]) + shift[..., None, None])


def _adaptive(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """AdaIN: one picture's features with the other's mean and deviation."""
    x, y = net.a(x), net.a(y)
    x = (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-5)
    return net.z(x * y.std((2, 3), keepdim=True) + y.mean((2, 3), keepdim=True))


def _spade(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    guide = torch.relu(net.b(y))
    return net.z(net.n(net.a(x)) * (1 + net.c(guide)) + net.d(guide))


def _transformer(net: nn.Module, x: Tensor) -> Tensor:
    """A spatial transformer: the picture's own turn."""
    turn = net.t(torch.relu(net.s(pooled(x)))).view(-1, 2, 3)
    grid = functional.affine_grid(turn, [1, 8, 8, 8], align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _clusters(net: nn.Module, x: Tensor) -> Tensor:
    """NetVLAD: how far the pixels of each cluster are from its centre, summed up."""
    share = net.s(x).flatten(2).softmax(1)
    apart = (x.flatten(2)[:, None] - net.c[None, :, :, None]) * share[:, :, None]
    return apart.sum(3).flatten(1)[:, :, None, None]


def _covariance(net: nn.Module, x: Tensor) -> Tensor:
    y = x.flatten(2)
    y = y - y.mean(2, keepdim=True)
    return (y @ y.transpose(1, 2) / 64).flatten(1)[:, :, None, None]


def _expected_place(net: nn.Module, x: Tensor) -> Tensor:
    """Soft-argmax: where each channel looks."""
    share = x.flatten(2).softmax(2).view(1, 8, 8, 8)
    places = torch.linspace(-1, 1, 8).to(x)
    return torch.cat([(share.sum(3) * places).sum(2), (share.sum(2) * places).sum(2)], 1)[:, :, None, None]


def _capsules(net: nn.Module, x: Tensor) -> Tensor:
    """Vectors of four channels, made no longer than one."""
    y = x.view(1, 3, 4, 8, 8)
    square = y.square().sum(2, keepdim=True)
    return (y * square.sqrt() / (1 + square)).reshape(1, 12, 8, 8)


def _slots(net: nn.Module, x: Tensor) -> Tensor:
    """Slot attention: slots compete for tokens, a GRU updates them."""
    slots = net.m
    keys, values = net.k(x), net.v(x)
    for _ in range(2):
        share = (keys @ net.q(slots).transpose(1, 2)).softmax(2)
        seen = (share / share.sum(1, keepdim=True)).transpose(1, 2) @ values
        slots = net.g(seen[0], slots[0])[None]
    return slots


def _experts(net: nn.Module, x: Tensor) -> Tensor:
    """Each token goes through all experts, which are stacked in one weight."""
    share = net.r(x).softmax(-1)
    y = torch.einsum("ntc,ech->nteh", x, net.w)
    return torch.einsum("nteh,ehd,nte->ntd", torch.relu(y), net.u, share)


def _integral(net: nn.Module, x: Tensor) -> Tensor:
    """YOLOv8's box head: four sides, each the mean of 16 places under a softmax."""
    y = net.b(x).view(1, 4, 16, 64).transpose(1, 2).softmax(1)
    return functional.conv2d(y, torch.arange(16.0).view(1, 16, 1, 1).to(x)).view(1, 4, 8, 8)


def _focal(net: nn.Module, x: Tensor) -> Tensor:
    """Focal modulation: queries, context and gates from one layer; context of growing reach, gated and summed."""
    query, context, gates = torch.split(net.f(x), (8, 8, 3), 1)
    total = 0
    for number, layer in enumerate((net.c, net.d)):
        context = functional.gelu(layer(context))
        total = total + context * gates[:, number : number + 1]
    total = total + context.mean((2, 3), keepdim=True) * gates[:, 2:]
    return net.p(query * net.h(total))


def _biased(net: nn.Module, x: Tensor) -> Tensor:
    """BEiT: queries and values have a bias, keys have none."""
    bias = torch.cat([net.bq, torch.zeros_like(net.bv), net.bv])
    q, k, v = functional.linear(x, net.qkv.weight, bias).view(1, 64, 3, 4, 2).permute(2, 0, 3, 1, 4)
    return net.p(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _reduced(net: nn.Module, x: Tensor) -> Tensor:
    """PVT: keys and values from a smaller map."""
    small = tokens(net.s(x.transpose(1, 2).reshape(1, 8, 8, 8)))
    k, v = net.kv(net.n(small)).reshape(1, -1, 2, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    y = functional.scaled_dot_product_attention(heads_of(net.q(x), 2), k, v)
    return net.p(y.transpose(1, 2).flatten(2))


def _outlook(net: nn.Module, x: Tensor) -> Tensor:
    """VOLO: each pixel says how its neighbours' values are mixed, head by head."""
    v = functional.unfold(net.v(x), 3, padding=1).reshape(1, 2, 4, 9, 64).permute(0, 1, 4, 3, 2)
    share = net.w(tokens(x)).reshape(1, 64, 2, 9, 9).permute(0, 2, 1, 3, 4).softmax(-1)
    y = (share @ v).permute(0, 1, 4, 3, 2).reshape(1, 72, 64)
    return net.p(functional.fold(y, (8, 8), 3, padding=1))


def _exchanged(net: nn.Module, x: Tensor) -> Tensor:
    """CrossViT: two branches of their own width swap a token."""
    small, large = net.s(x), net.l(x)
    mixed = torch.cat([net.u(small[:, :1]), large[:, 1:]], 1)
    return (net.o(mixed) + net.i(torch.cat([net.d(large[:, :1]), small[:, 1:]], 1))).mean(1)


def _scan(net: nn.Module, x: Tensor) -> Tensor:
    """Mamba in small: a gated branch with a causal convolution and a state for each channel that decays."""
    y, gate = net.i(x).chunk(2, 2)
    y = functional.silu(net.c(y.transpose(1, 2))[..., :64]).transpose(1, 2)
    step = functional.softplus(net.t(y))
    enter, leave = net.m(y).split([3, 3], 2)
    state = y.new_zeros(1, 6, 3)
    outputs = []
    for place in range(3):
        keep = torch.exp(step[:, place].unsqueeze(-1) * -torch.exp(net.a_log))
        state = keep * state + (step[:, place] * y[:, place]).unsqueeze(-1) * enter[:, place].unsqueeze(1)
        outputs.append((state * leave[:, place].unsqueeze(1)).sum(-1) + net.skip * y[:, place])
    return net.o(torch.stack(outputs, 1) * functional.silu(gate[:, :3]))


def _points(net: nn.Module, x: Tensor) -> Tensor:
    """SuperPoint: a softmax over the places of a cell and one for none, which is dropped."""
    y = net.b(x).softmax(1)[:, :-1]
    return functional.pixel_shuffle(y, 2)


CONDITIONED: Patterns = {
    "involution": (between(_involution, 8, 8, r=conv(8, 4), s=conv(4, 18)), {"a": 2, "r": 4}),
    "up-sampling by predicted kernels": (
        between(_carafe, 8, 8, c=conv(8, 4), e=conv(4, 36, 3)), {"a": 8, "c": 4, "e": "size is fixed"}
    ),
    "weights styled by the sample": (between(_modulated, 8, 6, w=weight(6, 8, 3, 3), s=nn.Linear(8, 8)),
                                     {"a": 8, "w": 6}),
    "scaled and shifted by a second input": (
        Net(_film, a=conv(3, 8, 3), n=nn.BatchNorm2d(8, affine=False), b=nn.Linear(4, 6), c=nn.Linear(6, 16),
            z=conv(8, 2)),
        {"b": 6, "c": 8},
    ),
    "mean and deviation of a second picture": (Net(_adaptive, a=conv(3, 8, 3), z=conv(8, 2)), {"a": 8}),
    "scaled and shifted at each pixel": (
        Net(_spade, a=conv(3, 8, 3), n=nn.InstanceNorm2d(8), b=conv(3, 6, 3), c=conv(6, 8, 3), d=conv(6, 8, 3),
            z=conv(8, 2)),
        {"a": 8, "b": 6},
    ),
    "turned by what is seen": (
        between(_transformer, 8, 8, s=nn.Linear(8, 4), t=nn.Linear(4, 6)), {"a": 8, "s": 4, "t": "matri"}
    ),
    "masked weights": (
        between(lambda net, x: functional.conv2d(x, net.b.weight * net.m, net.b.bias, padding=1), 8, 6,
                b=conv(8, 6, 3), m=torch.ones(3, 3).triu()),
        {"a": 8, "b": 6},
    ),
    "wavelets": (
        between(lambda net, x: functional.conv2d(x, net.k.repeat(x.shape[1], 1, 1, 1), stride=2, groups=x.shape[1]), 4,
                16, k=HAAR),
        {"a": 4, "k": "once for each channel"},
    ),
    "scaled standardised weights": (
        between(lambda net, x: functional.conv2d(x, functional.batch_norm(
            net.b.weight.reshape(1, 6, -1), None, None, net.g.view(-1), training=True, eps=1e-4).reshape_as(
                net.b.weight), net.b.bias, padding=1), 8, 6, b=conv(8, 6, 3), g=weight(6, 1, 1, 1)),
        {"a": "~8", "b": 6},
    ),
    "clusters": (
        between(_clusters, 4, 20, s=conv(4, 5), c=weight(5, 4)), {"a": "crossed with others", "s": "~5"}
    ),
    "covariances": (between(_covariance, 8, 64), {"a": "crossed with others"}),
    "expected places": (between(_expected_place, 8, 16), {"a": 8}),
    "capsules": (between(_capsules, 12, 12), {"a": 3}),
    "slots that compete": (
        over_tokens(_slots, 8, 8, **linears(q=(8, 6), k=(8, 6), v=(8, 5)), g=nn.GRUCell(5, 8), m=weight(1, 4, 8)),
        {"a": 8, "k": 6, "v": 5, "q": 8},
    ),
    "a mixture of experts": (
        over_tokens(_experts, 8, 6, r=nn.Linear(8, 3), w=weight(3, 8, 5), u=weight(3, 5, 6)),
        {"a": 8, "r": "~3", "w": 5, "u": 6},
    ),
    "boxes as means of places": (
        between(_integral, 8, 4, b=conv(8, 64)), {"a": 8, "b": "size is fixed", "z#2": "size is fixed"}
    ),
    "focal modulation": (
        between(_focal, 8, 8, f=conv(8, 19), c=depthwise(8), d=depthwise(8), h=conv(8, 8), p=conv(8, 8)),
        {"a": 8, "f": 8, "f#2": 8, "f#3": "single one", "p": 8},
    ),
    "gated feed-forward layer": (
        over_tokens(lambda net, x: x + net.o((lambda u, g: u * functional.silu(g))(*net.b(x).chunk(2, -1))), 8, 8,
                    **linears(b=(8, 24), o=(12, 8))),
        {"a": 8, "b": 12},
    ),
    "a bias without the keys'": (
        over_tokens(_biased, 8, 8, **linears(qkv=(8, 24), p=(8, 8)), bq=weight(8), bv=weight(8)),
        {"a": 8, "qkv": 4, "p": 8},
    ),
    "keys of a smaller map": (
        over_tokens(_reduced, 8, 8, s=nn.Conv2d(8, 8, 2, 2), n=nn.LayerNorm(8), **linears(q=(8, 8), kv=(8, 16),
                                                                                         p=(8, 8))),
        {"a": 8, "s": "~8", "kv": 2, "p": 8},
    ),
    "outlook attention": (
        between(_outlook, 8, 8, v=conv(8, 8), w=nn.Linear(8, 162), p=conv(8, 8)), {"a": 8, "v": 2, "p": 8}
    ),
    "branches that swap a token": (
        over_tokens(_exchanged, 8, 8, **linears(s=(8, 4), l=(8, 6), u=(4, 6), d=(6, 4), o=(6, 8), i=(4, 8))),
        {"a": 8, "s": 4, "l": 6, "o": 8},
    ),
    "a scan over tokens": (
        over_tokens(_scan, 8, 8, **linears(i=(8, 12), m=(6, 6), t=(6, 6), o=(6, 8)), a_log=weight(6, 3), skip=weight(6),
                    c=nn.Conv1d(6, 6, 4, padding=3, groups=6)),
        {"a": 8, "i": 6, "m": 3, "o": 8},
    ),
    "places of a cell and one for none": (
        between(_points, 8, 1, b=conv(8, 5)), {"a": 8, "b": "slides over them", "b#2": "no layer takes them in"}
    ),
    "one weight for each layer's output": (
        between(lambda net, x: (torch.stack([x, y := net.b(x), net.c(y)]) * net.w.softmax(0)).sum(0), 8, 8,
                b=conv(8, 8, 3), c=conv(8, 8, 3), w=weight(3, 1, 1, 1, 1)),
        {"a": 8},
    ),
    "norm of channels last, in place": (
        between(lambda net, x: channels_last(net.n, x).mul_(net.s).relu_(), 8, 8, n=nn.LayerNorm(8), s=weight(8, 1, 1)),
        {"a": "~8"},
    ),
}  # fmt: skip

SECOND: dict[str, tuple[int, ...]] = {
    "scaled and shifted by a second input": (1, 4),
    "mean and deviation of a second picture": (1, 3, 8, 8),
    "scaled and shifted at each pixel": (1, 3, 8, 8),
}
