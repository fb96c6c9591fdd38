"""Blocks of public networks, written anew and small: residual ones, gates, mixers."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from tests.profiler.patterns.building import (
    Patterns,
    between,
    conv,
    depthwise,
    over_tokens,
    pooled,
    weight,
)


def _squeezed(net: nn.Module, x: Tensor) -> Tensor:
    return x * torch.sigmoid(net.u(torch.relu(net.s(functional.adaptive_avg_pool2d(x, 1)))))


def _mobile(net: nn.Module, x: Tensor) -> Tensor:
    y = functional.silu(net.d(functional.silu(net.b(x))))
    return x + net.c(_squeezed(net, y))


def _next(net: nn.Module, x: Tensor) -> Tensor:
    y = net.d(x).permute(0, 2, 3, 1)
    y = net.g * net.c(functional.gelu(net.b(net.n(y))))
    return x + y.permute(0, 3, 1, 2)


def _selected(net: nn.Module, x: Tensor) -> Tensor:
    """SKNet: two kernels, chosen between for each channel by a softmax over the two."""
    both = torch.stack([net.b(x), net.c(x)], 1)
    share = net.u(torch.relu(net.s(pooled(both.sum(1))))).view(-1, 2, 6).softmax(1)
    return (both * share[..., None, None]).sum(1)


def _efficient(net: nn.Module, x: Tensor) -> Tensor:
    """ECA: one small kernel slides over the channels' means."""
    gate = torch.sigmoid(net.k(pooled(x).unsqueeze(1)))
    return x * gate.transpose(1, 2).unsqueeze(-1)


def _attention_module(net: nn.Module, x: Tensor) -> Tensor:
    """CBAM: a gate for each channel from mean and largest, then one for each pixel."""
    gates = [net.u(torch.relu(net.s(y))) for y in (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))]
    x = x * torch.sigmoid(gates[0] + gates[1])
    return x * torch.sigmoid(net.k(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


def _context(net: nn.Module, x: Tensor) -> Tensor:
    """GCNet: one attention map pools the picture; a bottleneck with a norm gives what is added to each pixel."""
    where = net.k(x).view(1, 1, 64, 1).softmax(2)
    vector = (x.view(1, 8, 64).unsqueeze(1) @ where).view(1, 8, 1, 1)
    return x + net.u(torch.relu(net.n(net.s(vector))))


def _reparametrised(net: nn.Module, x: Tensor) -> Tensor:
    return torch.relu(net.n(net.b(x)) + net.m(net.c(x)) + net.l(x))


def _pool_former(net: nn.Module, x: Tensor) -> Tensor:
    x = x + net.s * (functional.avg_pool2d(net.n(x), 3, 1, 1, count_include_pad=False) - net.n(x))
    return x + net.t * net.c(functional.gelu(net.b(net.m(x))))


def _mixer(net: nn.Module, x: Tensor) -> Tensor:
    x = x + net.d(functional.gelu(net.c(net.n(x).transpose(1, 2)))).transpose(1, 2)
    return x + net.f(functional.gelu(net.e(net.m(x))))


def _gated_mlp(net: nn.Module, x: Tensor) -> Tensor:
    """gMLP: half of the channels, mixed along the tokens, gate the other half."""
    one, other = functional.gelu(net.b(x)).chunk(2, -1)
    return x + net.c(one * net.t(other.transpose(1, 2)).transpose(1, 2))


def _convolved_tokens(net: nn.Module, x: Tensor) -> Tensor:
    """gMLP of timm: the tokens are the channels of a convolution with one place."""
    return x + net.t(x)


def _large_kernel(net: nn.Module, x: Tensor) -> Tensor:
    """VAN."""
    y = functional.gelu(net.b(x))
    return x + net.e(y * net.d(net.l(net.s(y))))


def _co_attention(net: nn.Module, x: Tensor) -> Tensor:
    """Coordinate attention: means along rows and columns share a bottleneck and part again."""
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
    y = functional.hardswish(net.n(net.b(torch.cat([rows, columns], 2))))
    rows, columns = y.split([8, 8], 2)
    return x * torch.sigmoid(net.c(rows)) * torch.sigmoid(net.d(columns.transpose(2, 3)))


def _triplet(net: nn.Module, x: Tensor) -> Tensor:
    """A gate for each pair of channel and row: the channels are a picture's side."""
    y = x.permute(0, 2, 1, 3)
    gate = torch.sigmoid(net.k(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)))
    return (y * gate).permute(0, 2, 1, 3)


def _generalised_mean(net: nn.Module, x: Tensor) -> Tensor:
    return functional.avg_pool2d(x.clamp(min=1e-6).pow(net.p), 8).pow(1.0 / net.p)


def _radix(net: nn.Module, x: Tensor) -> Tensor:
    """ResNeSt: a grouped convolution makes two splits of each channel, which a softmax over the splits blends."""
    y = torch.relu(net.b(x))
    parts = y.view(1, 2, 6, 8, 8)
    share = net.u(torch.relu(net.s(pooled(parts.sum(1))[..., None, None]))).view(1, 2, 6, 1, 1).softmax(1)
    return (parts * share).sum(1)


BLOCKS: Patterns = {
    "residual block": (
        between(lambda net, x: torch.relu(x + net.m(net.c(torch.relu(net.n(net.b(x)))))), 8, 8, b=conv(8, 6, 3),
                n=nn.BatchNorm2d(6), c=conv(6, 8, 3), m=nn.BatchNorm2d(8)),
        {"a": 8, "b": 6},
    ),
    "residual block with frozen BatchNorm": (
        between(lambda net, x: torch.relu(x + net.m(net.c(torch.relu(net.n(net.b(x)))))), 8, 8, b=conv(8, 6, 3),
                n=FrozenBatchNorm2d(6), c=conv(6, 8, 3), m=FrozenBatchNorm2d(8)),
        {"a": 8, "b": 6},
    ),
    "ResNeXt bottleneck": (
        between(lambda net, x: x + net.d(torch.relu(net.c(torch.relu(net.b(x))))), 8, 8, b=conv(8, 12),
                c=conv(12, 12, 3, groups=6), d=conv(12, 8)),
        {"a": 8, "b": 6},
    ),
    "squeeze and excitation": (between(_squeezed, 8, 8, s=conv(8, 3), u=conv(3, 8)), {"a": 8, "s": 3}),
    "squeeze by linear layers": (
        between(lambda net, x: x * net.m(pooled(x)).view(1, 8, 1, 1), 8, 8,
                m=nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 8), nn.Hardsigmoid())),
        {"a": 8, "m.0": 3},
    ),
    "MBConv": (
        between(_mobile, 8, 8, b=conv(8, 12), d=depthwise(12), s=conv(12, 3), u=conv(3, 12), c=conv(12, 8)),
        {"a": 8, "b": 12, "s": 3},
    ),
    "ConvNeXt block": (
        between(_next, 8, 8, d=depthwise(8), n=nn.LayerNorm(8), b=nn.Linear(8, 12), c=nn.Linear(12, 8), g=weight(8)),
        {"a": "~8", "b": 12},
    ),
    "selective kernels": (
        between(_selected, 8, 6, b=conv(8, 6, 3), c=conv(8, 6), s=nn.Linear(6, 4), u=nn.Linear(4, 12)),
        {"a": 8, "b": 6, "s": 4},
    ),
    "split attention": (
        between(_radix, 8, 6, b=conv(8, 12, 3, groups=2), s=conv(6, 4), u=conv(4, 12)), {"a": 4, "b": 6, "s": 4}
    ),
    "ECA": (between(_efficient, 8, 8, k=nn.Conv1d(1, 1, 3, padding=1, bias=False)), {"a": "~8"}),
    "CBAM": (between(_attention_module, 8, 8, s=conv(8, 3), u=conv(3, 8), k=conv(2, 1, 3)),
             {"a": "~8", "s": 3, "k": "size is fixed"}),
    "global context": (
        between(_context, 8, 8, k=conv(8, 1), s=conv(8, 3), n=nn.LayerNorm([3, 1, 1]), u=conv(3, 8)),
        {"a": 8, "s": "~3"},
    ),
    "coordinate attention": (
        between(_co_attention, 8, 8, b=conv(8, 4), n=nn.BatchNorm2d(4), c=conv(4, 8), d=conv(4, 8)), {"a": 8, "b": 4}
    ),
    "triplet attention": (between(_triplet, 8, 8, k=conv(2, 1, 3)),
                         {"a": "slides over them", "k": "size is fixed", "z#2": "size is fixed"}),
    "RepVGG block": (
        between(_reparametrised, 8, 8, b=conv(8, 8, 3), n=nn.BatchNorm2d(8), c=conv(8, 8), m=nn.BatchNorm2d(8),
                l=nn.BatchNorm2d(8)),
        {"a": 8},
    ),
    "PoolFormer block": (
        between(_pool_former, 8, 8, n=nn.GroupNorm(1, 8), m=nn.GroupNorm(1, 8), s=weight(8, 1, 1), t=weight(8, 1, 1),
                b=conv(8, 12), c=conv(12, 8)),
        {"a": "~8", "b": 12},
    ),
    "MLP-Mixer": (
        over_tokens(_mixer, 8, 8, n=nn.LayerNorm(8), m=nn.LayerNorm(8), c=nn.Linear(64, 10), d=nn.Linear(10, 64),
                    e=nn.Linear(8, 12), f=nn.Linear(12, 8)),
        {"a": "~8", "c": 10, "c#2": "size is fixed", "d": "size is fixed", "e": 12},
    ),
    "gMLP": (
        over_tokens(_gated_mlp, 8, 8, b=nn.Linear(8, 12), c=nn.Linear(6, 8), t=nn.Linear(64, 64)),
        {"a": 8, "b": 6, "t": "size is fixed", "t#2": "size is fixed"},
    ),
    "tokens as a convolution's channels": (
        over_tokens(_convolved_tokens, 8, 8, t=nn.Conv1d(64, 64, 1)),
        {"a": 8, "t": "size is fixed", "t#2": "size is fixed"},
    ),
    "VAN block": (
        between(_large_kernel, 8, 8, b=conv(8, 6), s=depthwise(6, 5),
                l=nn.Conv2d(6, 6, 3, padding=3, dilation=3, groups=6), d=conv(6, 6), e=conv(6, 8)),
        {"a": 8, "b": 6},
    ),
    "generalised mean": (between(_generalised_mean, 8, 8, p=nn.Parameter(torch.tensor([3.0]))), {"a": 8}),
    "channel dropout by a gate in a buffer": (
        between(lambda net, x: x * (net.m > 0).to(x), 8, 8, m=torch.randn(8, 1, 1)), {"a": 8}
    ),
}  # fmt: skip
