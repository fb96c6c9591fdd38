"""Public networks' ways to branch and join: dense layers, pyramids, U-shapes, patches, heads for training."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from tests.profiler.patterns.building import (
    Net,
    Patterns,
    SelfAttention,
    between,
    conv,
    depthwise,
    over_tokens,
    tokens,
    weight,
)


class Auxiliary(nn.Module):
    """A head that runs in training only."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.z = conv(3, 8, 3), conv(8, 6, 3), nn.Linear(6, 2)
        self.body, self.aux = body, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        a = torch.relu(self.a(x))
        y = self.z(torch.relu(self.b(a)).mean((2, 3)))
        return (y, self.aux(self.body(a).mean((2, 3)))) if self.training else y


def _dropouts() -> nn.Sequential:
    kinds = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)
    layers = [layer for kind in kinds for layer in (conv(8, 8), kind())]
    return nn.Sequential(*layers, StochasticDepth(0.5, "row"), StochasticDepth(0.5, "batch"), nn.BatchNorm2d(8))


def _mobile_former(net: nn.Module, x: Tensor) -> Tensor:
    """MobileViT: pixels at the same place of each patch look at each other."""
    y = net.b(x)
    n, c, h, w = y.shape
    y = y.reshape(n * c * 4, 2, 4, 2).transpose(1, 2).reshape(n, c, 16, 4).transpose(1, 3).reshape(n * 4, 16, c)
    y = net.t(y)
    y = y.view(n, 4, 16, c).transpose(1, 3).reshape(n * c * 4, 4, 2, 2).transpose(1, 2).reshape(n, c, h, w)
    return net.d(torch.cat([x, net.c(y)], 1))


def _edge_next(net: nn.Module, x: Tensor) -> Tensor:
    """EdgeNeXt: each part of the channels is added to the next before its own depthwise kernel."""
    parts = list(torch.split(x, [3, 3, 2], 1))
    parts[0] = net.b(parts[0])
    parts[1] = net.c(parts[1] + parts[0])
    return torch.cat(parts, 1) * net.s


def _fusion(net: nn.Module, x: Tensor) -> Tensor:
    """BiFPN: maps of two sizes, weighed by learned shares."""
    small = net.b(functional.max_pool2d(x, 2))
    share = torch.relu(net.w)
    share = share / (share.sum() + 1e-4)
    return net.c(share[0] * net.d(x) + share[1] * functional.interpolate(small, scale_factor=2))


def _pyramid(net: nn.Module, x: Tensor) -> Tensor:
    """FPN, and a head that all levels share."""
    low = torch.relu(net.b(functional.max_pool2d(x, 2)))
    top = net.c(low)
    side = net.d(x) + functional.interpolate(top, size=x.shape[2:])
    return torch.cat([functional.adaptive_avg_pool2d(net.h(y), 2) for y in (top, side)], 1)


def _atrous(net: nn.Module, x: Tensor) -> Tensor:
    """ASPP."""
    mean = functional.interpolate(net.e(functional.adaptive_avg_pool2d(x, 1)), size=(8, 8), mode="bilinear")
    return net.f(torch.cat([net.b(x), net.c(x), net.d(x), mean], 1))


def _u_net(net: nn.Module, x: Tensor) -> Tensor:
    low = torch.relu(net.b(functional.max_pool2d(x, 2)))
    return torch.relu(net.c(torch.cat([net.u(low), x], 1)))


def _gated_skip(net: nn.Module, x: Tensor) -> Tensor:
    """Attention U-Net: what is skipped is gated by what comes from below."""
    low = functional.interpolate(net.b(functional.max_pool2d(x, 2)), scale_factor=2)
    return torch.cat([low, x * torch.sigmoid(net.g(torch.relu(net.c(low) + net.d(x))))], 1)


def _hourglass(net: nn.Module, x: Tensor) -> Tensor:
    low = functional.max_pool2d(x, 2)
    lower = net.c(functional.max_pool2d(net.b(low), 2))
    return net.d(x) + functional.interpolate(functional.interpolate(lower, scale_factor=2) + net.e(low), scale_factor=2)


def _dense_layer(net: nn.Module, x: Tensor) -> Tensor:
    new = net.c(torch.relu(net.m(net.b(torch.relu(net.n(x))))))
    return torch.relu(net.l(torch.cat([x, new], 1)))


def _prototypes(net: nn.Module, x: Tensor) -> Tensor:
    """Mask heads: a dynamic product of one branch's vectors with another's maps."""
    vectors = tokens(functional.adaptive_avg_pool2d(net.b(x), 2))
    return torch.einsum("nqc,nchw->nqhw", vectors, net.c(x))


def _merged(net: nn.Module, x: Tensor) -> Tensor:
    """Swin's patch merging."""
    y = x.permute(0, 2, 3, 1)
    y = torch.cat([y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]], -1)
    return net.b(net.n(y)).permute(0, 3, 1, 2)


def _pooled_tokens(net: nn.Module, x: Tensor) -> Tensor:
    """PiT: the tokens become a map again, which a group convolution makes smaller and wider."""
    y = net.d(x.transpose(1, 2).reshape(1, 8, 8, 8))
    return y.flatten(2).transpose(1, 2)


BRANCHES: Patterns = {
    "MobileViT block": (
        between(_mobile_former, 8, 6, b=conv(8, 4), t=SelfAttention(4, 2), c=conv(4, 8), d=conv(16, 6, 3)),
        {"a": 8, "b": 4, "t.qkv": 2, "t.proj": 4, "c": 8, "d": 6},
    ),
    "EdgeNeXt block": (
        between(_edge_next, 8, 8, b=depthwise(3), c=depthwise(3), s=weight(8, 1, 1)), {"a": 3, "a#2": 2}
    ),
    "dense layer": (
        between(_dense_layer, 8, 11, n=nn.BatchNorm2d(8), b=conv(8, 6), m=nn.BatchNorm2d(6), c=conv(6, 3, 3),
                l=nn.BatchNorm2d(11)),
        {"a": 8, "b": 6, "c": 3},
    ),
    "fire module": (
        between(lambda net, x: torch.cat([torch.relu(net.c(y := torch.relu(net.b(x)))), torch.relu(net.d(y))], 1), 8, 9,
                b=conv(8, 3), c=conv(3, 4), d=conv(3, 5, 3)),
        {"a": 8, "b": 3, "c": 4, "d": 5},
    ),
    "inception block": (
        between(lambda net, x: torch.cat([net.b(x), net.d(net.c(x)), functional.avg_pool2d(x, 3, 1, 1)], 1), 8, 17,
                b=conv(8, 4), c=conv(8, 6), d=nn.Conv2d(6, 5, (1, 7), padding=(0, 3))),
        {"a": 8, "b": 4, "c": 6, "d": 5},
    ),
    "weighed fusion of two sizes": (
        between(_fusion, 8, 6, b=conv(8, 6), d=conv(8, 6), w=weight(2), c=conv(6, 6, 3)), {"a": 8, "b": 6, "c": 6}
    ),
    "feature pyramid": (
        between(_pyramid, 8, 10, b=conv(8, 6, 3), c=conv(6, 4), d=conv(8, 4), h=conv(4, 5, 3)),
        {"a": 8, "b": 6, "c": 4, "h": 5},
    ),
    "ASPP": (
        between(_atrous, 8, 6, b=conv(8, 3), c=nn.Conv2d(8, 4, 3, padding=2, dilation=2),
                d=nn.Conv2d(8, 5, 3, padding=3, dilation=3), e=conv(8, 2), f=conv(14, 6)),
        {"a": 8, "b": 3, "c": 4, "d": 5, "e": 2, "f": 6},
    ),
    "U-Net": (
        between(_u_net, 8, 6, b=conv(8, 12, 3), u=nn.ConvTranspose2d(12, 7, 2, 2), c=conv(15, 6, 3)),
        {"a": 8, "b": 12, "u": 7, "c": 6},
    ),
    "gated skip": (
        between(_gated_skip, 8, 14, b=conv(8, 6), c=conv(6, 4), d=conv(8, 4), g=conv(4, 1)), {"a": 8, "b": 6, "c": 4}
    ),
    "hourglass": (
        between(_hourglass, 8, 6, b=conv(8, 5), c=conv(5, 6), d=conv(8, 6), e=conv(8, 6)), {"a": 8, "b": 5, "c": 6}
    ),
    "dynamic mask head": (
        between(_prototypes, 8, 4, b=conv(8, 6), c=conv(8, 6)), {"a": 8, "b": 6, "z#2": "size is fixed"}
    ),
    "patch merging": (
        between(_merged, 4, 6, n=nn.LayerNorm(16), b=nn.Linear(16, 6, bias=False)), {"a": "~4", "b": 6}
    ),
    "patch embedding and one block": (
        Net(
            lambda net, x: net.z((y := tokens(net.a(x)) + net.p)[:, 0] + net.t(net.n(y)).mean(1)),
            a=nn.Conv2d(3, 8, 2, 2),
            p=weight(1, 16, 8),
            n=nn.LayerNorm(8),
            t=SelfAttention(8, 2),
            z=nn.Linear(8, 2),
        ),
        {"a": "~8", "t.qkv": 2},
    ),
    "tokens pooled by a group convolution": (
        over_tokens(_pooled_tokens, 8, 16, d=nn.Conv2d(8, 16, 3, 2, 1, groups=8)), {"a": 8}
    ),
    "auxiliary head in training": (Auxiliary(nn.Identity()), {"a": 8, "b": 6}),
    "dropout of each kind in training": (
        Auxiliary(_dropouts()),
        {"a": 8, "b": 6, "body.0": 8, "body.2": 8, "body.4": 8, "body.6": 8, "body.8": 8},
    ),
}  # fmt: skip
