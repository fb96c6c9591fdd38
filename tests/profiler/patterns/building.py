"""What patterns are made of: a network written as a function over named layers, and short names for layers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Expectation = int | str
"""A group's size; "~4" for four that are approximate; else words of the reason for which the group is frozen."""

Expected = Mapping[str, Expectation]
Patterns = Mapping[str, tuple[nn.Module, Expected]]
"""By name: the network, and by group what a person finds in it (groups at the network's borders are left out)."""


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


def depthwise(channels: int, kernel: int = 3, multiplier: int = 1) -> nn.Conv2d:
    return conv(channels, channels * multiplier, kernel, groups=channels)


def between(code: Callable[[nn.Module, Tensor], Tensor], outputs: int, inputs: int, **layers: Any) -> Net:
    """A 3-channel input, `a` makes `outputs` channels, the code runs, `z` takes `inputs` channels to 2."""
    return Net(lambda net, x: net.z(code(net, net.a(x))), a=conv(3, outputs, 3), z=conv(inputs, 2), **layers)


def over_tokens(code: Callable[[nn.Module, Tensor], Tensor], outputs: int, inputs: int, **layers: Any) -> Net:
    """The same with 64 tokens of `outputs` channels between, and a linear layer at the end."""
    return Net(lambda net, x: net.z(code(net, tokens(net.a(x)))), a=conv(3, outputs), z=nn.Linear(inputs, 2), **layers)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def tokens(x: Tensor) -> Tensor:
    """A map `[n, c, h, w]` as tokens `[n, h w, c]`."""
    return x.flatten(2).transpose(1, 2)


def channels_last(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer that takes channels last on a map that has them second."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def shuffle(x: Tensor, parts: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, parts, c // parts, h, w).transpose(1, 2).reshape(n, c, h, w)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """Tokens `[n, t, c]` as `[n, heads, t, c / heads]`."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by hand, with its scale read from the tensors; heads are put side by side again."""
    y = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
    return y.transpose(1, 2).flatten(2)


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
    """The norm of LLaMA, over the last dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = weight(width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def linears(**sizes: tuple[int, int]) -> dict[str, nn.Linear]:
    """Linear layers by name, from inputs and outputs."""
    return {name: nn.Linear(*size) for name, size in sizes.items()}


def three(net: nn.Module, x: Tensor, heads: int) -> list[Tensor]:
    """Queries, keys and values of layers `q`, `k` and `v`, by heads."""
    return [heads_of(layer(x), heads) for layer in (net.q, net.k, net.v)]
