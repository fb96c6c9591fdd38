"""Weights and what they are multiplied with: convolutions of all kinds, matrix products, weights that are computed."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import DeformConv2d, deform_conv2d, ps_roi_align, roi_align

from tests.profiler.patterns.building import Net, Patterns, between, conv, over_tokens, pooled, weight

BOXES = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0], [0.0, 2.0, 2.0, 7.0, 7.0]])


def _tied_both_ways(net: nn.Module, x: Tensor) -> Tensor:
    return functional.conv_transpose2d(torch.relu(functional.conv2d(x, net.w, padding=1)), net.w, padding=1)


def _correlation(net: nn.Module, x: Tensor) -> Tensor:
    """RAFT: all pixels of one map with all pixels of another."""
    one, other = net.b(x).flatten(2), net.c(x).flatten(2)
    return (one.transpose(1, 2) @ other / one.shape[1] ** 0.5).view(1, 64, 8, 8)


def _generated(net: nn.Module, x: Tensor) -> Tensor:
    """A small network makes the weights of a convolution."""
    return functional.conv2d(x, net.h(pooled(x)).view(6, 4, 1, 1))


def _experts(net: nn.Module, x: Tensor) -> Tensor:
    """CondConv: the weight is a mixture of experts' weights."""
    share = torch.sigmoid(net.r(pooled(x)))
    return functional.conv2d(x, torch.einsum("ne,eoikl->oikl", share, net.w))


def _modulated(net: nn.Module, x: Tensor) -> Tensor:
    offset, mask = net.o(x), torch.sigmoid(net.k(x))
    return deform_conv2d(x, offset, net.w, padding=(1, 1), mask=mask)


CONTRACTING: Patterns = {
    "convolution in one dimension": (
        between(lambda net, x: net.b(x.flatten(2)).unflatten(2, (8, 8)), 8, 6, b=nn.Conv1d(8, 6, 3, padding=1)),
        {"a": 8, "b": 6},
    ),
    "convolution in three dimensions": (
        between(lambda net, x: net.b(x.unsqueeze(2)).squeeze(2), 8, 6, b=nn.Conv3d(8, 6, (1, 3, 3), padding=(0, 1, 1))),
        {"a": 8, "b": 6},
    ),
    "transposed convolution in three dimensions": (
        between(lambda net, x: net.b(x.unsqueeze(2)).mean(2), 8, 6, b=nn.ConvTranspose3d(8, 6, 2, stride=2)),
        {"a": 8, "b": 6},
    ),
    "transposed convolution": (between(lambda net, x: net.b(x), 8, 6, b=nn.ConvTranspose2d(8, 6, 4, 2, 1)),
                               {"a": 8, "b": 6}),
    "group convolution after concat": (
        between(lambda net, x: net.g(torch.cat([x, net.b(x)], 1)), 4, 6, b=conv(4, 4), g=conv(8, 6, 3, groups=2)),
        {"a": 4, "g": 3},
    ),
    "group convolution of many parts": (
        between(lambda net, x: net.g(x), 8, 12, g=conv(8, 12, 3, groups=4)), {"a": 4}
    ),
    "grouped transposed convolution": (
        between(lambda net, x: net.g(x), 8, 6, g=nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)), {"a": 4, "g": 3}
    ),
    "depthwise transposed convolution": (
        between(lambda net, x: net.g(x), 8, 8, g=nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8)), {"a": 8}
    ),
    "depthwise with a multiplier": (between(lambda net, x: net.d(x), 4, 12, d=conv(4, 12, 3, groups=4)), {"a": 4}),
    "depthwise with a multiplier after concat": (
        between(lambda net, x: net.d(torch.cat([x, net.b(x)], 1)), 4, 14, b=conv(4, 3), d=conv(7, 14, 3, groups=7)),
        {"a": 4, "b": 3},
    ),
    "depthwise with a fixed kernel": (
        between(lambda net, x: functional.conv2d(x, net.k.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]), 8, 8,
                k=torch.ones(1, 1, 3, 3) / 9),
        {"a": 8},
    ),
    "depthwise with a fixed kernel for each": (
        between(lambda net, x: functional.conv2d(x, net.k, groups=8), 8, 8, k=torch.randn(8, 1, 3, 3)), {"a": 8}
    ),
    "functional weights": (
        between(lambda net, x: functional.conv2d(x, net.w), 4, 6, w=weight(6, 4, 1, 1)), {"a": 4, "w": 6}
    ),
    "scaled weights": (
        between(lambda net, x: functional.conv2d(x, net.w * net.s), 4, 6, w=weight(6, 4, 1, 1), s=weight(6, 1, 1, 1)),
        {"a": 4, "w": 6},
    ),
    "weights of low rank": (
        between(lambda net, x: functional.linear(x.permute(0, 2, 3, 1), net.u @ net.v).permute(0, 3, 1, 2), 4, 6,
                u=weight(6, 3), v=weight(3, 4)),
        {"a": 4, "u": 6, "v": 3},
    ),
    "weights made by a network": (
        between(_generated, 4, 6, h=nn.Linear(4, 24)), {"a": "size is fixed", "h": 6}
    ),
    "mean over a table of experts": (
        between(lambda net, x: functional.conv2d(x, net.w.mean(0)), 4, 6, w=weight(3, 6, 4, 1, 1)),
        {"a": 4, "w": 6},
    ),
    "experts mixed by the data": (
        between(_experts, 4, 6, w=weight(3, 6, 4, 1, 1), r=nn.Linear(4, 3)), {"a": 4, "r": 3, "w": 6}
    ),
    "one weight, both ways": (between(_tied_both_ways, 4, 4, w=weight(6, 4, 3, 3)), {"a": 4, "w": 6}),
    "tied weights": (
        Net(
            lambda net, x: functional.linear(torch.relu(net.z(net.a(pooled(x)))), net.a.weight.t()),
            a=nn.Linear(3, 8),
            z=nn.Linear(8, 8),
        ),
        {"a": 8},
    ),
    "one layer called twice": (between(lambda net, x: net.b(torch.relu(net.b(x))), 4, 4, b=conv(4, 4, 3)), {"a": 4}),
    "one layer for two maps": (
        between(lambda net, x: net.c(x) * net.c(net.b(x)), 4, 6, b=conv(4, 4), c=conv(4, 6, 3)), {"a": 4, "c": 6}
    ),
    "einsum with a parameter": (
        between(lambda net, x: torch.einsum("nchw,cd->ndhw", x, net.w), 4, 6, w=weight(4, 6)), {"a": 4, "w": 6}
    ),
    "matmul with a parameter": (
        between(lambda net, x: (x.permute(0, 2, 3, 1) @ net.w).permute(0, 3, 1, 2), 4, 6, w=weight(4, 6)),
        {"a": 4, "w": 6},
    ),
    "matmul with a vector": (
        over_tokens(lambda net, x: torch.sigmoid(x @ net.w).unsqueeze(-1) * x, 8, 8, w=weight(8)), {"a": 8}
    ),
    "product with a fixed matrix": (
        over_tokens(lambda net, x: x @ net.w, 8, 6, w=torch.randn(8, 6)), {"a": 8, "w": 6}
    ),
    "graph convolution with fixed edges": (
        between(lambda net, x: torch.einsum("nctv,vw->nctw", x, net.e), 8, 8, e=torch.randn(8, 8)),
        {"a": 8, "e": "slides over them"},
    ),
    "bilinear layer": (
        Net(
            lambda net, x: net.z(net.m(net.a(pooled(x)), net.b(pooled(x)))),
            a=nn.Linear(3, 8),
            b=nn.Linear(3, 6),
            m=nn.Bilinear(8, 6, 5),
            z=nn.Linear(5, 2),
        ),
        {"a": 8, "b": 6, "m": 5},
    ),
    "bilinear product of two branches": (
        between(lambda net, x: torch.einsum("nchw,ndhw->ncd", x, net.b(x)).flatten(1)[:, :, None, None], 4, 12,
                b=conv(4, 3)),
        {"a": 4, "b": "crossed with others"},
    ),
    "correlation of two maps": (
        between(_correlation, 8, 64, b=conv(8, 6), c=conv(8, 6)), {"a": 8, "b": 6, "z#2": "size is fixed"}
    ),
    "distances to a codebook": (
        over_tokens(lambda net, x: torch.cdist(net.b(x), net.k).neg().exp(), 8, 5, b=nn.Linear(8, 6), k=weight(5, 6)),
        {"a": 8, "b": "~6", "k": 5},
    ),
    "deformable convolution": (
        between(lambda net, x: net.d(x, net.o(x)), 8, 6, d=DeformConv2d(8, 6, 3, padding=1), o=conv(8, 18, 3)),
        {"a": 8, "d": 6, "o": "moves of its kernel's places"},
    ),
    "deformable convolution with masks and two parts": (
        between(_modulated, 8, 6, w=weight(6, 8, 3, 3), o=conv(8, 36, 3), k=conv(8, 18, 3)),
        {"a": 4, "w": 6, "o": "moves of its kernel's places", "k": "moves of its kernel's places"},
    ),
    "regions of interest": (
        between(lambda net, x: roi_align(x, net.r, 4), 8, 8, r=BOXES), {"a": 8}
    ),
    "regions that read channels of their own": (
        between(lambda net, x: ps_roi_align(x, net.r, 2), 16, 4, r=BOXES), {"a": 4}
    ),
    "transform along pixels": (
        between(lambda net, x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(net.w), s=(8, 8)), 8, 8,
                w=weight(8, 8, 5, 2)),
        {"a": 8},
    ),
    "transform along channels": (
        between(lambda net, x: torch.fft.fft(x, dim=1).real, 8, 8), {"a": "mixes them", "z#2": "size is fixed"}
    ),
    "warped by a flow": (
        between(lambda net, x: functional.grid_sample(x, net.f(x).tanh().permute(0, 2, 3, 1), align_corners=False), 8,
                8, f=conv(8, 2)),
        {"a": 8, "f": "grid_sampler_2d"},
    ),
    "pooled with places, and back": (
        between(lambda net, x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2), 8, 8),
        {"a": 8},
    ),
    "resized in each way": (
        between(lambda net, x: functional.interpolate(functional.interpolate(
            functional.adaptive_max_pool2d(x, 5), 6, mode="bicubic"), 7, mode="nearest-exact"), 8, 8),
        {"a": 8},
    ),
}  # fmt: skip
