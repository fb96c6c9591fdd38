"""One small network for each structural pattern, written as a function over named layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class Net(nn.Module):
    """Layers by name, and the code that runs them: `code(net, x, …)`."""

    def __init__(self, code: Callable[..., Any], **layers: nn.Module | nn.Parameter | Tensor | int) -> None:
        super().__init__()
        self.code = code
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.code(self, *inputs)


def conv(inputs: int, outputs: int, kernel: int = 1, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **settings)


def between(code: Callable[[nn.Module, Tensor], Tensor], outputs: int, inputs: int, **layers: Any) -> Net:
    """A 3-channel input, `a` makes `outputs` channels, the code runs, `z` takes `inputs` channels to 2."""
    return Net(lambda net, x: net.z(code(net, net.a(x))), a=conv(3, outputs, 3), z=conv(inputs, 2), **layers)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


class SelfAttention(nn.Module):
    """Attention as timm writes it: heads counted in an attribute."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, t, -1))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = weight(width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Auxiliary(nn.Module):
    """A head that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.z, self.aux = conv(3, 8, 3), conv(8, 6, 3), nn.Linear(6, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        a = torch.relu(self.a(x))
        y = self.z(torch.relu(self.b(a)).mean((2, 3)))
        return (y, self.aux(a.mean((2, 3)))) if self.training else y


def tokens(net: nn.Module, x: Tensor) -> Tensor:
    return net.a(x).flatten(2).transpose(1, 2)


def shuffle(x: Tensor, parts: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, parts, c // parts, h, w).transpose(1, 2).reshape(n, c, h, w)


INDEX = torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])

PATTERNS: dict[str, Net | nn.Module] = {
    "channel shuffle": between(lambda net, x: shuffle(x, 2), 8, 8),
    "nn.ChannelShuffle": between(lambda net, x: net.s(x), 8, 8, s=nn.ChannelShuffle(4)),
    "flip along channels": between(lambda net, x: x.flip(1), 8, 8),
    "roll along channels": between(lambda net, x: x.roll(3, 1), 8, 8),
    "index_select with a constant": between(lambda net, x: x.index_select(1, net.i), 8, 8, i=INDEX),
    "indexing with a list": between(lambda net, x: x[:, [0, 2, 4]], 8, 3),
    "indexing by the data": between(lambda net, x: x[:, x.mean((0, 2, 3)).argsort()], 8, 8),
    "chunk": between(lambda net, x: (lambda a, b: a * b)(*x.chunk(2, 1)), 8, 4),
    "uneven split": between(
        lambda net, x: (lambda a, b: torch.cat([net.b(a), b], 1))(*x.split([2, 6], 1)), 8, 6 + 5, b=conv(2, 5)
    ),
    "leading slice only": between(lambda net, x: x[:, :8], 12, 8),
    "two slices that cover": between(lambda net, x: torch.cat([net.b(x[:, :3]), x[:, 3:]], 1), 8, 10, b=conv(3, 5)),
    "partial convolution": between(
        lambda net, x: torch.cat([net.b(x[:, : net.part]), x[:, net.part :]], 1), 8, 8, b=conv(2, 2, 3), part=2
    ),
    "every other channel": between(lambda net, x: x[:, ::2] + x[:, 1::2], 8, 4),
    "concat of one tensor at several offsets": between(lambda net, x: torch.cat([x, x * 2, x.flip(1)], 1), 4, 12),
    "concat, then split across the border": between(
        lambda net, x: torch.cat([x, net.b(x)], 1).chunk(2, 1)[1], 6, 4, b=conv(6, 2)
    ),
    "C2f": between(
        lambda net, x: (lambda a, b: torch.cat([a, b, net.b(b)], 1))(*x.chunk(2, 1)), 8, 12, b=conv(4, 4, 3)
    ),
    "group convolution after concat": between(
        lambda net, x: net.g(torch.cat([x, net.b(x)], 1)), 4, 6, b=conv(4, 4), g=conv(8, 6, 3, groups=2)
    ),
    "depthwise with a multiplier": between(lambda net, x: net.d(x), 4, 12, d=conv(4, 12, 3, groups=4)),
    "pixel shuffle": between(lambda net, x: functional.pixel_shuffle(x, 2), 12, 3),
    "pixel unshuffle": between(lambda net, x: functional.pixel_unshuffle(x, 2), 3, 12),
    "hard-coded view": between(lambda net, x: x.view(1, 2, 4, 8, 8).mean(1), 8, 4),
    "view that mixes channels with pixels": between(
        lambda net, x: x.reshape(1, 64, 4).transpose(1, 2).reshape(1, 4, 8, 8), 4, 4
    ),
    "functional weights": between(lambda net, x: functional.conv2d(x, net.w), 4, 6, w=weight(6, 4, 1, 1)),
    "scaled weights": between(
        lambda net, x: functional.conv2d(x, net.w * net.s), 4, 6, w=weight(6, 4, 1, 1), s=weight(6, 1, 1, 1)
    ),
    "einsum with a parameter": between(lambda net, x: torch.einsum("nchw,cd->ndhw", x, net.w), 4, 6, w=weight(4, 6)),
    "matmul with a parameter": between(
        lambda net, x: (x.permute(0, 2, 3, 1) @ net.w).permute(0, 3, 1, 2), 4, 6, w=weight(4, 6)
    ),
    "LayerNorm over one dimension": between(
        lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 4, 4, n=nn.LayerNorm(4)
    ),
    "LayerNorm over several dimensions": between(lambda net, x: net.n(x), 4, 4, n=nn.LayerNorm([4, 8, 8])),
    "RMSNorm by hand": between(lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 4, 4, n=RMSNorm(4)),
    "nn.RMSNorm": between(lambda net, x: net.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 4, 4, n=nn.RMSNorm(4)),
    "GroupNorm": between(lambda net, x: net.n(x), 8, 8, n=nn.GroupNorm(4, 8)),
    "GroupNorm without parameters": between(lambda net, x: net.n(x), 8, 8, n=nn.GroupNorm(4, 8, affine=False)),
    "InstanceNorm without parameters": between(lambda net, x: net.n(x), 8, 8, n=nn.InstanceNorm2d(8)),
    "local response norm": between(lambda net, x: functional.local_response_norm(x, 3), 8, 8),
    "softmax over channels": between(lambda net, x: x.softmax(1), 8, 8),
    "softmax over pixels": between(lambda net, x: x.flatten(2).softmax(-1).view(x.shape), 8, 8),
    "cosine normalisation": between(lambda net, x: functional.normalize(x, dim=1), 8, 8),
    "sum over channels": between(lambda net, x: x * x.sum(1, keepdim=True), 8, 8),
    "argmax over channels": between(lambda net, x: x * x.argmax(1, keepdim=True), 8, 8),
    "MultiheadAttention": Net(
        lambda net, x: net.z(net.m(*[tokens(net, x)] * 3)[0]),
        a=conv(3, 8),
        m=nn.MultiheadAttention(8, 2, batch_first=True),
        z=nn.Linear(8, 2),
    ),
    "attention by hand": Net(
        lambda net, x: net.z(net.m(tokens(net, x))), a=conv(3, 8), m=SelfAttention(8, 4), z=nn.Linear(8, 2)
    ),
    "LSTM": Net(
        lambda net, x: net.z(net.m(tokens(net, x))[0]),
        a=conv(3, 8),
        m=nn.LSTM(8, 6, batch_first=True),
        z=nn.Linear(6, 2),
    ),
    "weight norm": between(lambda net, x: torch.relu(net.b(x)), 4, 6, b=parametrizations.weight_norm(conv(4, 6, 3))),
    "spectral norm": between(
        lambda net, x: torch.relu(net.b(x)), 4, 6, b=parametrizations.spectral_norm(conv(4, 6, 3))
    ),
    "buffer met element-wise": between(
        lambda net, x: (x - net.mean) / net.std, 4, 4, mean=torch.randn(4, 1, 1), std=torch.rand(4, 1, 1) + 1
    ),
    "constant met element-wise": between(lambda net, x: x * torch.arange(4.0).view(4, 1, 1), 4, 4),
    "position table": Net(
        lambda net, x: net.z(tokens(net, x) + net.p), a=conv(3, 8), p=weight(1, 64, 8), z=nn.Linear(8, 2)
    ),
    "class token": Net(
        lambda net, x: net.z(torch.cat([net.c, tokens(net, x)], 1) + net.p),
        a=conv(3, 8),
        c=weight(1, 1, 8),
        p=weight(1, 65, 8),
        z=nn.Linear(8, 2),
    ),
    "embedding added": Net(
        lambda net, x: net.z(tokens(net, x) + net.e(torch.arange(64))),
        a=conv(3, 8),
        e=nn.Embedding(64, 8),
        z=nn.Linear(8, 2),
    ),
    "channels padded in the shortcut": between(
        lambda net, x: net.b(x) + functional.pad(x, (0, 0, 0, 0, 2, 2)), 4, 8, b=conv(4, 8, 3)
    ),
    "one layer called twice": between(lambda net, x: net.b(torch.relu(net.b(x))), 4, 4, b=conv(4, 4, 3)),
    "tied weights": Net(
        lambda net, x: functional.linear(torch.relu(net.z(net.a(x.mean((2, 3))))), net.a.weight.t()),
        a=nn.Linear(3, 8),
        z=nn.Linear(8, 8),
    ),
    "bilinear product of two branches": between(
        lambda net, x: torch.einsum("nchw,ndhw->ncd", x, net.b(x)).flatten(1)[:, :, None, None], 4, 12, b=conv(4, 3)
    ),
    "written into a part": between(lambda net, x: _written(net, x), 4, 8, b=conv(4, 4)),
    "topk over channels": between(lambda net, x: x.topk(3, 1)[0], 8, 3),
    "max over channels": between(lambda net, x: torch.cat([x, x.amax(1, keepdim=True)], 1), 4, 5),
    "frozen BatchNorm": between(lambda net, x: torch.relu(net.n(x)), 8, 8, n=nn.BatchNorm2d(8, affine=False)),
    "PReLU of one slope a channel": between(lambda net, x: net.p(x), 8, 8, p=nn.PReLU(8)),
    "auxiliary head in training": Auxiliary(),
    "unfolded patches": Net(
        lambda net, x: net.z(functional.unfold(net.a(x), 2, stride=2).transpose(1, 2)), a=conv(3, 4), z=nn.Linear(16, 2)
    ),
    "maxout": between(lambda net, x: torch.maximum(*x.chunk(2, 1)), 8, 4),
    "repeat_interleave": between(lambda net, x: x.repeat_interleave(2, 1), 4, 8),
    "mean over a table of experts": between(
        lambda net, x: functional.conv2d(x, net.w.mean(0)), 4, 6, w=weight(3, 6, 4, 1, 1)
    ),
}
"""All patterns take a picture of 1×3×8×8."""


def _written(net: nn.Module, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], 8, *x.shape[2:], dtype=x.dtype, device=x.device)
    out[:, :4] = net.b(x)
    out[:, 4:] = x
    return out
