"""Small blocks of transformers and their relatives, each written as networks in the wild write it."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """Two linear layers on tokens, with LayerScale and a residual sum behind them, as DeiT and ConvNeXt have it."""

    def __init__(self, width: int = 8, inner: int = 12) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout, self.scale = nn.Dropout(0.1), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.second(functional.gelu(self.first(self.norm(x))))) * self.scale


class WrittenOut(nn.Module):
    """Attention written as products and a softmax, the scale on the queries, as Swin has it."""

    def __init__(self, heads: int = 2, width: int = 8, head: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, head**-0.5
        self.packed, self.join = nn.Linear(width, 3 * heads * head), nn.Linear(heads * head, width)
        self.bias = nn.Parameter(torch.zeros(1, 1, 5, 5))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.packed(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.split(x)
        weights = torch.softmax((queries * self.scale) @ keys.transpose(-2, -1) + self.bias, -1)
        return self.join((weights @ values).transpose(1, 2).flatten(2))


class Fused(WrittenOut):
    """The same with PyTorch's own attention."""

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.split(x)
        return self.join(functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


class Peeping(WrittenOut):
    """A network that gives its queries away, too, so that the split into heads is not attention's alone."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        parts = self.packed(x).chunk(3, -1)
        queries, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        made = functional.scaled_dot_product_attention(queries, keys, values)
        return self.join(made.transpose(1, 2).flatten(2)), queries


class Shuffle(nn.Module):
    """Two branches whose channels are joined, shuffled and parted again, as ShuffleNet has them."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, channels, 3), nn.Conv2d(4, channels, 3)
        self.left, self.right = nn.Conv2d(channels, 4, 1), nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([torch.relu(self.one(x)), torch.relu(self.two(x))], 1)
        first, second = joined.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2).chunk(2, 1)
        return self.left(first), self.right(second)


def encoder(inner: int = 24, *, norm_first: bool) -> nn.Module:
    """PyTorch's own encoder layer, twice."""
    return nn.Sequential(
        *(
            nn.TransformerEncoderLayer(16, 2, inner, activation="gelu", batch_first=True, norm_first=norm_first)
            for _ in range(2)
        )
    )
