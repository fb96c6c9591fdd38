"""Restoration, quality and fusion networks in miniature: what `shared/seed_networks.md` describes, a pattern each."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

from tests.profiler.patterns.building import Net, Patterns, between, conv, depthwise, pooled, weight


def _spindle(net: nn.Module, x: Tensor) -> Tensor:
    """LFFN's block: four paths of growing depth over a quarter of the channels each."""
    one, two, three, four = net.b(x).split([3, 3, 3, 3], 1)
    paths = [net.c1(one), net.p2(net.c2(two)), net.p3(net.c3(three)), net.p4(net.c4(net.c5(four)))]
    return x + net.d(torch.cat(paths, 1))


def _fused_modules(net: nn.Module, x: Tensor) -> Tensor:
    """LFFN's SFFM: a softmax across the modules' outputs, for each channel by itself."""
    one = net.b(x)
    two = net.c(one)
    share = torch.stack([net.f(pooled(one)), net.g(pooled(two))]).softmax(0)[..., None, None]
    return share[0] * one + share[1] * two + x


def _channel_attention(net: nn.Module, x: Tensor) -> Tensor:
    """RCAN's block."""
    y = net.c(torch.relu(net.b(x)))
    gate = torch.sigmoid(net.e(torch.relu(net.d(functional.adaptive_avg_pool2d(y, 1)))))
    return x + y * gate


def _dense_block(net: nn.Module, x: Tensor) -> Tensor:
    """RDN's block with local fusion."""
    y = torch.cat([x, torch.relu(net.b(x))], 1)
    y = torch.cat([y, torch.relu(net.c(y))], 1)
    return x + net.d(y)


def _scaled_residual(net: nn.Module, x: Tensor) -> Tensor:
    """EDSR: a residual block times 0.1, then up twice."""
    x = x + 0.1 * net.c(torch.relu(net.b(x)))
    return functional.pixel_shuffle(net.u(x), 2)


def _up_twice(net: nn.Module, x: Tensor) -> Tensor:
    """SRResNet's tail: two stages, a slope for each channel."""
    return net.q(functional.pixel_shuffle(net.c(net.p(functional.pixel_shuffle(net.b(x), 2))), 2))


def _max_fusion(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """IFCNN: one encoder for both pictures, the larger feature of the two."""

    def features(picture: Tensor) -> Tensor:
        return torch.relu(net.n(net.b(functional.pad(net.a(picture), (1, 1, 1, 1), mode="replicate"))))

    return net.z(torch.relu(net.c(torch.maximum(features(x), features(y)))))


def _mean_fusion(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """DenseFuse: dense features of both pictures, their mean."""

    def features(picture: Tensor) -> Tensor:
        first = torch.relu(net.a(picture))
        second = torch.cat([first, torch.relu(net.b(first))], 1)
        return torch.cat([second, torch.relu(net.c(second))], 1)

    return net.z((features(x) + features(y)) / 2)


def _joined_fusion(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """U2Fusion: both pictures joined at the input, new features in front."""
    first = net.a(torch.cat([x, y], 1))
    second = torch.cat([functional.leaky_relu(net.b(first), 0.2), first], 1)
    return torch.tanh(net.z(torch.cat([functional.leaky_relu(net.c(second), 0.2), second], 1))) / 2 + 0.5


def _decision_fusion(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """CNN-Fuse: features of both side by side, then a decision by softmax."""
    return net.z(torch.cat([torch.relu(net.a(x)), torch.relu(net.a(y))], 1)).softmax(1)


def _quality(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """WaDIQaM: patches of picture and reference; difference and both, joined, make a score and its weight."""
    h, g = (net.a(picture).amax((2, 3)).view(-1, 8) for picture in (x, y))
    both = torch.cat([h - g, h, g], 1)
    share = torch.relu(net.w(torch.relu(net.v(both)))) + 1e-6
    return (net.z(torch.relu(net.s(both))) * share).sum(0) / share.sum(0)


def _controlled(net: nn.Module, x: Tensor, control: Tensor) -> Tensor:
    """CFSNet: a main and a tuning branch, blended for each channel by what a control input says."""
    head = net.a(x)
    main, tuned = head + net.c(torch.relu(net.b(head))), net.e(torch.relu(net.d(head)))
    alpha = net.g(net.f(net.k(control))).view(-1, 8, 1, 1)
    return net.z((1 - alpha) * main + alpha * tuned + head)


def _cube_attention(net: nn.Module, x: Tensor) -> Tensor:
    """A-CubeNet's ADAM, as the paper has it."""
    where = net.b(x).flatten(2).softmax(2)
    vector = (x.flatten(2) @ where.transpose(1, 2)).unsqueeze(-1)
    spatial = net.alpha * net.d(torch.relu(net.c(vector)))
    what = functional.adaptive_avg_pool2d(x, 1).flatten(1).softmax(1).unsqueeze(1)
    picture = (what @ x.flatten(2)).view(1, 1, 8, 8)
    channel = net.beta * net.f(torch.relu(net.e(picture)))
    return x + spatial + channel


def _cube_attention_released(net: nn.Module, x: Tensor) -> Tensor:
    """The same as its authors released it: memory `[c, h, w]` is read as `[h w, c]` without being turned."""
    what = functional.adaptive_avg_pool2d(x, 1).view(1, 1, 8).softmax(2)
    picture = (x.view(1, 64, 8) @ what.transpose(1, 2)).view(1, 1, 8, 8)
    return x + net.beta * net.f(torch.relu(net.e(picture)))


def _blended_groups(net: nn.Module, x: Tensor) -> Tensor:
    """A-CubeNet's AHAM: a softmax over the outputs of groups."""
    outputs = [x, net.b(x)]
    outputs.append(net.c(outputs[-1]))
    layers = zip((net.k, net.l, net.m), outputs, strict=True)
    logits = [layer(functional.adaptive_avg_pool2d(y, 1)) for layer, y in layers]
    share = torch.cat(logits, 1).softmax(1)
    return outputs[-1] + net.gamma * sum(share[:, n : n + 1] * y for n, y in enumerate(outputs))


def _slots(net: nn.Module, x: Tensor) -> Tensor:
    """LCSC units: a linear and a non-linear part side by side, with the border between them moving."""
    y = torch.cat([net.b(x), net.c(torch.relu(x))], 1)
    y = torch.cat([net.d(y), net.e(torch.relu(y))], 1)
    return net.f(torch.cat([x, y], 1))


def _gated_pictures(net: nn.Module, x: Tensor) -> Tensor:
    """E-LCSC: one reconstruction for the output of each block, fused one after the other."""
    fused = net.r(x)
    for layer in (net.b, net.c):
        x = torch.relu(layer(x)) + x
        new = net.r(x)
        gate = torch.sigmoid(net.g(torch.cat([fused, new], 1)))
        fused = (fused - new) * gate + new
    return fused


def _aligned(net: nn.Module, x: Tensor) -> Tensor:
    """STDF: a small U-net makes offsets and masks for a deformable convolution."""
    low = torch.relu(net.d(x))
    y = torch.cat([torch.relu(net.u(low)), x], 1)
    offset, mask = net.o(y).split([18, 9], 1)
    return torch.relu(deform_conv2d(x, offset, net.w, padding=(1, 1), mask=torch.sigmoid(mask)))


def _patches(net: nn.Module, x: Tensor) -> Tensor:
    """CNNIQA: the largest and the smallest feature of a patch, joined."""
    y = net.b(x)
    return torch.cat([y.amax((2, 3)), y.amin((2, 3))], 1)[:, :, None, None]


def _shifted(net: nn.Module, x: Tensor) -> Tensor:
    """The channel means that restoration networks subtract and add again, in a fixed convolution."""
    return net.back(net.z(net.b(net.a(net.shift(x)))))


RESTORATION: Patterns = {
    "LFFN's spindle": (
        between(_spindle, 8, 8, b=conv(8, 12), c1=depthwise(3), c2=depthwise(3), c3=depthwise(3), c4=depthwise(3),
                c5=depthwise(3), p2=nn.PReLU(3), p3=nn.PReLU(3), p4=nn.PReLU(3), d=conv(12, 8)),
        {"a": 8, "b": 3, "b#2": 3, "b#3": 3, "b#4": 3},
    ),
    "LFFN's spindle of ordinary convolutions": (
        between(_spindle, 8, 8, b=conv(8, 12), c1=conv(3, 3, 3), c2=conv(3, 3, 3), c3=conv(3, 3, 3), c4=conv(3, 3, 3),
                c5=conv(3, 3, 3), p2=nn.PReLU(3), p3=nn.PReLU(3), p4=nn.PReLU(3), d=conv(12, 8)),
        {"a": 8, "b": 3, "b#2": 3, "b#3": 3, "b#4": 3, "c1": 3, "c2": 3, "c3": 3, "c4": 3, "c5": 3},
    ),
    "LFFN's fusion of modules": (
        between(_fused_modules, 8, 8, b=conv(8, 8, 3), c=conv(8, 8, 3), f=nn.Linear(8, 8, bias=False),
                g=nn.Linear(8, 8, bias=False)),
        {"a": 8},
    ),
    "RCAN's block": (
        between(_channel_attention, 8, 8, b=conv(8, 6, 3), c=conv(6, 8, 3), d=conv(8, 3), e=conv(3, 8)),
        {"a": 8, "b": 6, "d": 3},
    ),
    "RDN's block": (between(_dense_block, 8, 8, b=conv(8, 3, 3), c=conv(11, 3, 3), d=conv(14, 8)),
                    {"a": 8, "b": 3, "c": 3}),
    "EDSR": (between(_scaled_residual, 8, 6, b=conv(8, 6, 3), c=conv(6, 8, 3), u=conv(8, 24, 3)),
             {"a": 8, "b": 6, "u": 6}),
    "SRResNet's tail": (
        between(_up_twice, 8, 3, b=conv(8, 16, 3), p=nn.PReLU(4), c=conv(4, 12, 3), q=nn.PReLU(3)),
        {"a": 8, "b": 4, "c": 3},
    ),
    "ESPCN": (
        Net(
            lambda net, x: functional.pixel_shuffle(net.z(torch.tanh(net.b(torch.tanh(net.a(x))))), 2),
            a=conv(3, 8, 5),
            b=conv(8, 6, 3),
            z=conv(6, 12, 3),
        ),
        {"a": 8, "b": 6},
    ),
    "FSRCNN": (
        Net(
            lambda net, x: net.z(net.q(net.c(net.p(net.b(net.a(x)))))),
            a=conv(3, 8, 5),
            b=conv(8, 4),
            p=nn.PReLU(4),
            c=conv(4, 8),
            q=nn.PReLU(8),
            z=nn.ConvTranspose2d(8, 3, 9, 2, 4, output_padding=1),
        ),
        {"a": 8, "b": 4, "c": 8},
    ),
    "VDSR": (
        Net(lambda net, x: x + net.z(torch.relu(net.b(torch.relu(net.a(x))))), a=conv(3, 8, 3), b=conv(8, 8, 3),
            z=conv(8, 3, 3)),
        {"a": 8, "b": 8},
    ),
    "mean shift": (
        Net(_shifted, shift=conv(3, 3), a=conv(3, 8, 3), b=conv(8, 6, 3), z=conv(6, 3, 3), back=conv(3, 3)),
        {"shift": 3, "a": 8, "b": 6, "z": 3},
    ),
    "IFCNN": (
        Net(_max_fusion, a=conv(3, 8, 7), b=nn.Conv2d(8, 6, 3), n=nn.BatchNorm2d(6), c=conv(6, 4, 3), z=conv(4, 3)),
        {"a": 8, "b": 6, "c": 4},
    ),
    "DenseFuse": (Net(_mean_fusion, a=conv(3, 4, 3), b=conv(4, 4, 3), c=conv(8, 4, 3), z=conv(12, 3, 3)),
                  {"a": 4, "b": 4, "c": 4}),
    "U2Fusion": (Net(_joined_fusion, a=conv(6, 4, 3), b=conv(4, 4, 3), c=conv(8, 4, 3), z=conv(12, 3, 3)),
                 {"a": 4, "b": 4, "c": 4}),
    "CNN-Fuse": (Net(_decision_fusion, a=conv(3, 8, 3), z=conv(16, 2)), {"a": 8}),
    "WaDIQaM": (
        Net(_quality, a=conv(3, 8, 3), s=nn.Linear(24, 6), z=nn.Linear(6, 1), v=nn.Linear(24, 5), w=nn.Linear(5, 1)),
        {"a": 8, "s": 6, "v": 5},
    ),
    "CFSNet": (
        Net(_controlled, a=conv(3, 8, 3), b=conv(8, 6, 3), c=conv(6, 8, 3), d=conv(8, 5, 3), e=conv(5, 8, 3),
            k=nn.Linear(4, 6, bias=False), f=nn.Linear(6, 5, bias=False), g=nn.Linear(5, 8, bias=False),
            z=conv(8, 3, 3)),
        {"a": 8, "b": 6, "d": 5, "k": 6, "f": 5},
    ),
    "A-CubeNet's attention": (
        between(_cube_attention, 8, 8, b=conv(8, 1), c=conv(8, 3), d=conv(3, 8), e=conv(1, 1, 3), f=conv(1, 1, 3),
                alpha=weight(1), beta=weight(1)),
        {"a": "~8", "c": 3},
    ),
    "A-CubeNet's attention as released": (
        between(_cube_attention_released, 8, 8, e=conv(1, 1, 3), f=conv(1, 1, 3), beta=weight(1)),
        {"a": "size is fixed"},
    ),
    "A-CubeNet's blend of groups": (
        between(_blended_groups, 8, 8, b=conv(8, 8, 3), c=conv(8, 8, 3), k=conv(8, 1), l=conv(8, 1), m=conv(8, 1),
                gamma=weight(1)),
        {"a": 8},
    ),
    "LCSC units": (
        between(_slots, 8, 6, b=conv(8, 5), c=conv(8, 3, 3), d=conv(8, 4), e=conv(8, 4, 3), f=conv(16, 6)),
        {"a": 8, "b": 5, "c": 3, "d": 4, "e": 4, "f": 6},
    ),
    "E-LCSC's fused pictures": (
        Net(
            lambda net, x: _gated_pictures(net, net.a(x)),
            a=conv(3, 8, 3),
            b=conv(8, 8, 3),
            c=conv(8, 8, 3),
            r=conv(8, 3, 3),
            g=conv(6, 3),
        ),
        {"a": 8},
    ),
    "STDF": (
        between(_aligned, 8, 6, d=nn.Conv2d(8, 4, 3, 2, 1), u=nn.ConvTranspose2d(4, 5, 4, 2, 1), o=conv(13, 27, 3),
                w=weight(6, 8, 3, 3)),
        {"a": 8, "d": 4, "u": 5, "o": "moves of its kernel's places", "w": 6},
    ),
    "CNNIQA": (between(_patches, 8, 12, b=conv(8, 6)), {"a": 8, "b": 6}),
}  # fmt: skip

INPUTS: dict[str, tuple[int, ...]] = {
    "IFCNN": (1, 3, 8, 8),
    "DenseFuse": (1, 3, 8, 8),
    "U2Fusion": (1, 3, 8, 8),
    "CNN-Fuse": (1, 3, 8, 8),
    "WaDIQaM": (1, 3, 8, 8),
    "CFSNet": (1, 4),
}
"""The shape of the second input, where a network takes two."""
