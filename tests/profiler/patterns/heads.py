"""Attention with heads, as libraries write it: what goes is a whole head, or, with a single head, a place in it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.profiler.patterns.building import (
    Patterns,
    SelfAttention,
    attend,
    heads_of,
    linears,
    over_tokens,
    three,
    weight,
)


def _fused(net: nn.Module, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).view(1, 64, 3, 4, 2).permute(2, 0, 3, 1, 4)
    return net.p(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 64, 8))


def _rolled(net: nn.Module, x: Tensor) -> Tensor:
    """GPT-2: query, key and value split by one size; heads from `unflatten`."""
    q, k, v = (heads_of(part, 4) for part in net.qkv(x).split(8, 2))
    scores = (q @ k.transpose(-2, -1) / 2**0.5).masked_fill(~CAUSAL, float("-inf"))
    return net.p((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _grouped(net: nn.Module, x: Tensor) -> Tensor:
    """Four heads of queries, two of keys and values, each repeated."""
    q = heads_of(net.q(x), 4)
    k, v = (heads_of(layer(x), 2).repeat_interleave(2, 1) for layer in (net.k, net.v))
    return net.p(attend(q, k, v))


def _grouped_by_expanding(net: nn.Module, x: Tensor) -> Tensor:
    q = heads_of(net.q(x), 4)
    k, v = (heads_of(layer(x), 2)[:, :, None].expand(1, 2, 2, 64, 3).reshape(1, 4, 64, 3) for layer in (net.k, net.v))
    return net.p(attend(q, k, v))


def _grouped_fused(net: nn.Module, x: Tensor) -> Tensor:
    q, k, v = heads_of(net.q(x), 4), heads_of(net.k(x), 2), heads_of(net.v(x), 2)
    y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    return net.p(y.transpose(1, 2).flatten(2))


def _one_key(net: nn.Module, x: Tensor) -> Tensor:
    """Multi-query attention: all heads look at one head of keys and values."""
    return net.p(attend(heads_of(net.q(x), 4), heads_of(net.k(x), 1), heads_of(net.v(x), 1)))


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions: pairs of a head's places are turned by an angle that grows with the token's number."""
    angle = torch.outer(torch.arange(64.0), torch.tensor([1.0, 0.1])).to(x)
    one, other = x.chunk(2, -1)
    return torch.cat([one * angle.cos() - other * angle.sin(), one * angle.sin() + other * angle.cos()], -1)


def _rotary(net: nn.Module, x: Tensor) -> Tensor:
    q, k, v = three(net, x, 3)
    return net.p(attend(_rotated(q), _rotated(k), v))


def _half_turned(x: Tensor) -> Tensor:
    return torch.cat([-x[..., 2:], x[..., :2]], -1)


def _rotary_by_halves(net: nn.Module, x: Tensor) -> Tensor:
    angle = torch.outer(torch.arange(64.0), torch.tensor([1.0, 0.1, 1.0, 0.1])).to(x)
    q, k = (y * angle.cos() + _half_turned(y) * angle.sin() for y in three(net, x, 3)[:2])
    return net.p(attend(q, k, heads_of(net.v(x), 3)))


def _rotary_by_complex(net: nn.Module, x: Tensor) -> Tensor:
    turn = torch.polar(torch.ones(64, 2), torch.outer(torch.arange(64.0), torch.tensor([1.0, 0.1])))
    q, k, v = three(net, x, 3)
    pairs = (torch.view_as_complex(y.unflatten(3, (2, 2)).contiguous()) for y in (q, k))
    q, k = (torch.view_as_real(y * turn.to(y.dtype)).flatten(3) for y in pairs)
    return net.p(attend(q, k, v))


def _normed(net: nn.Module, x: Tensor) -> Tensor:
    """Queries and keys are normed within each head."""
    q, k, v = three(net, x, 3)
    return net.p(attend(net.m(q), net.n(k), v))


CAUSAL = torch.ones(64, 64).tril().bool()
THREE = linears(q=(8, 12), k=(8, 12), v=(8, 12), p=(12, 8))
FEW = linears(q=(8, 12), k=(8, 6), v=(8, 6), p=(12, 8))
HEADS: dict[str, int | str] = {"a": 8, "q": 3, "p": 8}

WITH_HEADS: Patterns = {
    "MultiheadAttention": (
        over_tokens(lambda net, x: net.m(x, x, x)[0], 8, 8, m=nn.MultiheadAttention(8, 2, batch_first=True)),
        {"a": 8, "m.in_proj_weight": 2, "m.out_proj": 8},
    ),
    "MultiheadAttention without weights": (
        over_tokens(lambda net, x: net.m(x, x, x, need_weights=False)[0], 8, 8,
                    m=nn.MultiheadAttention(8, 4, batch_first=True)),
        {"a": 8, "m.in_proj_weight": 4, "m.out_proj": 8},
    ),
    "MultiheadAttention across, of other widths": (
        over_tokens(lambda net, x: net.m(x, net.k(x), net.v(x))[0], 8, 8, k=nn.Linear(8, 6), v=nn.Linear(8, 5),
                    m=nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True)),
        {"a": 8, "k": 6, "v": 5, "m.q_proj_weight": 2, "m.out_proj": 8},
    ),
    "TransformerEncoderLayer": (
        over_tokens(lambda net, x: net.m(x), 8, 8, m=nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)),
        {"a": "~8", "m.self_attn.in_proj_weight": 2, "m.linear1": 12},
    ),
    "TransformerDecoderLayer": (
        over_tokens(lambda net, x: net.m(net.t, net.b(x)), 8, 8, b=nn.Linear(8, 8), t=weight(1, 5, 8),
                    m=nn.TransformerDecoderLayer(8, 2, 12, batch_first=True)),
        {"a": 8, "b": "~8", "m.self_attn.in_proj_weight": 2, "m.multihead_attn.in_proj_weight": 2, "m.linear1": 12},
    ),
    "attention by hand": (over_tokens(lambda net, x: net.m(x), 8, 8, m=SelfAttention(8, 4)),
                          {"a": 8, "m.qkv": 4, "m.proj": 8}),
    "fused attention": (over_tokens(_fused, 8, 8, **linears(qkv=(8, 24), p=(8, 8))), {"a": 8, "qkv": 4, "p": 8}),
    "causal attention, split by one size": (
        over_tokens(_rolled, 8, 8, **linears(qkv=(8, 24), p=(8, 8))), {"a": 8, "qkv": 4, "p": 8}
    ),
    "one head": (
        over_tokens(lambda net, x: net.p(attend(*three(net, x, 1))), 8, 8, **linears(q=(8, 4), k=(8, 4), v=(8, 6),
                                                                                       p=(6, 8))),
        {"a": 8, "q": 4, "v": 6, "p": 8},
    ),
    "one fused head": (
        over_tokens(lambda net, x: net.p(functional.scaled_dot_product_attention(net.q(x), net.k(x), net.v(x))), 8, 8,
                    **linears(q=(8, 4), k=(8, 4), v=(8, 6), p=(6, 8))),
        {"a": 8, "q": 4, "v": 6, "p": 8},
    ),
    "two heads of queries for one of keys": (over_tokens(_grouped, 8, 8, **FEW), {"a": 8, "q": 2, "p": 8}),
    "the same by expanding": (over_tokens(_grouped_by_expanding, 8, 8, **FEW), {"a": 8, "q": 2, "p": 8}),
    "the same fused": (over_tokens(_grouped_fused, 8, 8, **FEW), {"a": 8, "q": 2, "p": 8}),
    "all heads of queries for one of keys": (
        over_tokens(_one_key, 8, 8, **linears(q=(8, 12), k=(8, 3), v=(8, 3), p=(12, 8))),
        {"a": 8, "q": 4, "k": "inside each head", "v": "crossed with others", "p": 8},
    ),
    "rotary positions": (over_tokens(_rotary, 8, 8, **THREE), HEADS),
    "rotary positions by halves": (over_tokens(_rotary_by_halves, 8, 8, **THREE), HEADS),
    "rotary positions by complex numbers": (over_tokens(_rotary_by_complex, 8, 8, **THREE), HEADS),
    "norms within heads": (
        over_tokens(_normed, 8, 8, **THREE, m=nn.LayerNorm(4), n=nn.LayerNorm(4)),
        HEADS,
    ),
}  # fmt: skip
