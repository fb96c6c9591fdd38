"""Norms, softmax and other statistics; parameters and constants that channels meet element by element."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

from tests.profiler.patterns.building import (
    Net,
    Patterns,
    RMSNorm,
    between,
    channels_last,
    conv,
    over_tokens,
    tokens,
    weight,
)


def _layer_norm(net: nn.Module, x: Tensor) -> Tensor:
    """ConvNeXt's norm on maps."""
    centred = x - x.mean(1, keepdim=True)
    centred = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return net.w[:, None, None] * centred + net.b[:, None, None]


def _norm_of_parts(net: nn.Module, x: Tensor) -> Tensor:
    y = x.view(1, 4, 2, 8, 8)
    y = (y - y.mean((2, 3, 4), keepdim=True)) / (y.var((2, 3, 4), keepdim=True) + 1e-5).sqrt()
    return y.view(1, 8, 8, 8) * net.w


def _response_norm(net: nn.Module, x: Tensor) -> Tensor:
    """ConvNeXt V2: each channel's length over all pixels, over the mean of these lengths."""
    length = x.norm(dim=(2, 3), keepdim=True)
    return net.w * (x * (length / (length.mean(1, keepdim=True) + 1e-6))) + net.b + x


def _standardised(net: nn.Module, x: Tensor) -> Tensor:
    w = net.b.weight
    w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
    return functional.conv2d(x, w, net.b.bias, padding=1)


def _activations() -> nn.Sequential:
    kinds = (nn.Hardtanh, nn.Hardshrink, nn.RReLU, nn.CELU, nn.Softsign, nn.Tanhshrink, nn.Softplus, nn.LogSigmoid)
    return nn.Sequential(nn.Threshold(0.1, 0.0), *(kind() for kind in kinds), nn.Dropout2d(), nn.AlphaDropout())


NORMS: Patterns = {
    "BatchNorm": (between(lambda net, x: torch.relu(net.n(x)), 8, 8, n=nn.BatchNorm2d(8)), {"a": 8}),
    "BatchNorm on tokens": (over_tokens(lambda net, x: net.n(x[0]), 8, 8, n=nn.BatchNorm1d(8)), {"a": 8}),
    "BatchNorm without parameters": (
        between(lambda net, x: torch.relu(net.n(x)), 8, 8, n=nn.BatchNorm2d(8, affine=False)), {"a": 8}
    ),
    "frozen BatchNorm": (between(lambda net, x: torch.relu(net.n(x)), 8, 8, n=FrozenBatchNorm2d(8)), {"a": 8}),
    "LayerNorm over one dimension": (between(lambda net, x: channels_last(net.n, x), 4, 4, n=nn.LayerNorm(4)),
                                     {"a": "~4"}),
    "LayerNorm over several dimensions": (between(lambda net, x: net.n(x), 4, 4, n=nn.LayerNorm([4, 8, 8])),
                                          {"a": "~4"}),
    "LayerNorm over pixels": (between(lambda net, x: net.n(x), 4, 4, n=nn.LayerNorm([8, 8])), {"a": 4}),
    "LayerNorm by hand": (between(_layer_norm, 8, 8, w=weight(8), b=weight(8)), {"a": "~8"}),
    "RMSNorm by hand": (between(lambda net, x: channels_last(net.n, x), 4, 4, n=RMSNorm(4)), {"a": "~4"}),
    "nn.RMSNorm": (between(lambda net, x: channels_last(net.n, x), 4, 4, n=nn.RMSNorm(4)), {"a": "~4"}),
    "GroupNorm": (between(lambda net, x: net.n(x), 8, 8, n=nn.GroupNorm(4, 8)), {"a": 4}),
    "GroupNorm of one part": (between(lambda net, x: net.n(x), 8, 8, n=nn.GroupNorm(1, 8)), {"a": "~8"}),
    "GroupNorm without parameters": (between(lambda net, x: net.n(x), 8, 8, n=nn.GroupNorm(4, 8, affine=False)),
                                     {"a": 4}),
    "GroupNorm by hand": (between(_norm_of_parts, 8, 8, w=weight(8, 1, 1)), {"a": 4}),
    "InstanceNorm without parameters": (between(lambda net, x: net.n(x), 8, 8, n=nn.InstanceNorm2d(8)), {"a": 8}),
    "InstanceNorm with parameters": (
        between(lambda net, x: net.n(x), 8, 8, n=nn.InstanceNorm2d(8, affine=True)), {"a": 8}
    ),
    "InstanceNorm with running statistics": (
        between(lambda net, x: net.n(x), 8, 8, n=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)), {"a": 8}
    ),
    "global response norm": (between(_response_norm, 8, 8, w=weight(8, 1, 1), b=weight(8, 1, 1)), {"a": "~8"}),
    "local response norm": (between(lambda net, x: functional.local_response_norm(x, 3), 8, 8), {"a": "~8"}),
    "nn.LocalResponseNorm of an even size": (between(lambda net, x: net.n(x), 8, 8, n=nn.LocalResponseNorm(4)),
                                             {"a": "~8"}),
    "softmax over channels": (between(lambda net, x: x.softmax(1), 8, 8), {"a": "~8"}),
    "log-softmax over channels": (between(lambda net, x: functional.log_softmax(x, 1), 8, 8), {"a": "~8"}),
    "softmax over pixels": (between(lambda net, x: x.flatten(2).softmax(-1).view(x.shape), 8, 8), {"a": 8}),
    "softmax over parts": (
        between(lambda net, x: (x.unflatten(1, (2, 4)).softmax(1) * x.unflatten(1, (2, 4))).sum(1), 8, 4), {"a": 4}
    ),
    "cosine normalisation": (between(lambda net, x: functional.normalize(x, dim=1), 8, 8), {"a": 8}),
    "lengths over pixels": (
        between(lambda net, x: functional.normalize(x.flatten(2), dim=2).view(x.shape), 8, 8), {"a": 8}
    ),
    "one number repeated for each channel": (
        between(lambda net, x: x * net.s.repeat(1, 8, 1, 1), 8, 8, s=nn.Parameter(torch.tensor(0.7))),
        {"a": 8},
    ),
    "sum over channels": (between(lambda net, x: x * x.sum(1, keepdim=True), 8, 8), {"a": 8}),
    "running sum over channels": (between(lambda net, x: x.cumsum(1), 8, 8), {"a": "~8"}),
    "running sum over pixels": (between(lambda net, x: x.cumsum(2), 8, 8), {"a": 8}),
    "max over channels": (
        between(lambda net, x: torch.cat([x, x.amax(1, keepdim=True)], 1), 4, 5),
        {"a": "~4", "z#2": "no layer of the network makes them"},
    ),
    "the number of the largest channel": (
        between(lambda net, x: x * x.max(1, keepdim=True)[1], 8, 8), {"a": "by what the network computes"}
    ),
    "argmax over channels": (between(lambda net, x: x * x.argmax(1, keepdim=True), 8, 8), {"a": "argmax"}),
    "argmax over pixels": (
        between(lambda net, x: x * x.flatten(2).argmax(2).float()[..., None, None], 8, 8), {"a": 8}
    ),
    "topk over channels": (
        between(lambda net, x: x.topk(3, 1)[0], 8, 3), {"a": "topk", "z#2": "size is fixed"}
    ),
    "topk over pixels": (between(lambda net, x: x.flatten(2).topk(4, 2)[0].unflatten(2, (2, 2)), 8, 8), {"a": 8}),
    "median over pixels": (between(lambda net, x: x - x.flatten(2).median(2)[0][..., None, None], 8, 8), {"a": 8}),
    "matrix inverted": (
        over_tokens(lambda net, x: x @ torch.linalg.inv(x.transpose(1, 2) @ x + torch.eye(8).to(x)), 8, 8),
        {"a": "size is fixed", "z#2": "size is fixed"},
    ),
    "weight norm": (
        between(lambda net, x: torch.relu(net.b(x)), 4, 6, b=parametrizations.weight_norm(conv(4, 6, 3))),
        {"a": "~4", "b.parametrizations.weight.original1": 6},
    ),
    "spectral norm": (
        between(lambda net, x: torch.relu(net.b(x)), 4, 6, b=parametrizations.spectral_norm(conv(4, 6, 3))),
        {"a": 4, "b.parametrizations.weight.original": 6},
    ),
    "standardised weights": (between(_standardised, 4, 6, b=conv(4, 6, 3)), {"a": "~4", "b": 6}),
    "layer scale": (between(lambda net, x: x + net.s * net.b(x), 8, 8, s=weight(8, 1, 1), b=conv(8, 8, 3)), {"a": 8}),
    "buffer met element-wise": (
        between(lambda net, x: (x - net.mean) / net.std, 4, 4, mean=torch.randn(4, 1, 1), std=torch.rand(4, 1, 1) + 1),
        {"a": 4},
    ),
    "constant met element-wise": (
        between(lambda net, x: x * torch.arange(4.0).view(4, 1, 1).to(x), 4, 4),
        {"a": "mul in the network", "z#2": "size is fixed"},
    ),
    "ones met element-wise": (between(lambda net, x: x * torch.ones(1, 4, 1, 1).to(x), 4, 4), {"a": 4}),
    "a constant for each pixel": (between(lambda net, x: x * torch.arange(8.0).to(x), 4, 4), {"a": 4}),
    "PReLU of one slope a channel": (between(lambda net, x: net.p(x), 8, 8, p=nn.PReLU(8)), {"a": 8}),
    "PReLU of one slope": (between(lambda net, x: net.p(x), 8, 8, p=nn.PReLU()), {"a": 8}),
    "other activations": (between(lambda net, x: net.m(x), 8, 8, m=_activations()), {"a": 8}),
    "position table": (over_tokens(lambda net, x: x + net.p, 8, 8, p=weight(1, 64, 8)), {"a": 8}),
    "position table resized": (
        between(lambda net, x: x + functional.interpolate(net.p, (8, 8), mode="bilinear"), 8, 8, p=weight(1, 8, 4, 4)),
        {"a": 8},
    ),
    "class token": (
        over_tokens(lambda net, x: torch.cat([net.c, x], 1) + net.p, 8, 8, c=weight(1, 1, 8), p=weight(1, 65, 8)),
        {"a": 8},
    ),
    "class token read": (
        over_tokens(lambda net, x: torch.cat([net.c.expand(1, -1, -1), x], 1).mean(1) + net.c[:, 0], 8, 8,
                    c=weight(1, 1, 8)),
        {"a": 8},
    ),
    "embedding added": (over_tokens(lambda net, x: x + net.e(torch.arange(64)), 8, 8, e=nn.Embedding(64, 8)), {"a": 8}),
    "wave table added": (
        over_tokens(lambda net, x: x + torch.linspace(0, 9, 512).sin().view(64, 8).to(x), 8, 8),
        {"a": "size is fixed", "z#2": "size is fixed"},
    ),
    "tokens of two kinds": (
        Net(
            lambda net, x: net.z(tokens(net.a(x)) + net.e(torch.zeros(64, dtype=torch.long))),
            a=conv(3, 8),
            e=nn.Embedding(2, 8),
            z=nn.Linear(8, 2),
        ),
        {"a": 8},
    ),
}  # fmt: skip
