"""Small networks with residual blocks of every kind, and how many of these can go."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDTH = 6


class Basic(nn.Module):
    """ResNet's block as torchvision writes it: in-place ReLUs and an in-place addition."""

    def __init__(self, width: int = WIDTH, inner: int = 5, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 3, stride, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(width, width, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Inverted(nn.Module):
    """MobileNetV2's, with squeeze and excitation, and dropout of the whole branch in training."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(WIDTH, 9, 1), nn.BatchNorm2d(9), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(9, 9, 3, padding=1, groups=9), nn.BatchNorm2d(9), nn.ReLU6())
        self.squeeze, self.excite = nn.Conv2d(9, 4, 1), nn.Conv2d(4, 9, 1)
        self.project = nn.Sequential(nn.Conv2d(9, WIDTH, 1), nn.BatchNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + self.project(y)


class PreActivation(nn.Module):
    """Norm and activation first; the sum is written into the input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(WIDTH), nn.Conv2d(WIDTH, 7, 3, padding=1)
        self.last = nn.Conv2d(7, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x += self.last(torch.relu(self.conv(torch.relu(self.norm(x)))))
        return x


class Scaled(nn.Module):
    """EDSR's, whose branch is scaled, and ConvNeXt's, with a scale for each channel; a GELU after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(WIDTH, 8, 3, padding=1), nn.Conv2d(8, WIDTH, 3, padding=1)
        self.gamma = nn.Parameter(torch.full((WIDTH, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gamma * self.two(nn.functional.gelu(self.one(x)))
        return nn.functional.gelu(torch.add(x, y, alpha=0.7))


class Nested(nn.Module):
    """RCAN's: a group of blocks with a skip of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.last = nn.Sequential(Basic(), PreActivationCopy()), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(x)) + x


class PreActivationCopy(PreActivation):
    """The same with a sum of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(torch.relu(self.conv(torch.relu(self.norm(x)))))


class Swapped(nn.Module):
    """Its code holds a width, so that it must be a program, and the block lies in it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.Conv2d(WIDTH, WIDTH, 1), Basic()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.inner(torch.cat([x[:, 2:], x[:, :2]], 1))


class Around(nn.Module):
    """A picture in, residual modules between two convolutions, and ten numbers out."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.inner = nn.Sequential(*inner)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.stem(x)).mean((2, 3)))


class Tokens(nn.Module):
    """PyTorch's own encoder between two linear layers; samples stand second where `batch_first` is not asked for."""

    def __init__(self, *, norm_first: bool, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, norm_first=norm_first, batch_first=batch_first)
        self.before, self.after = nn.Linear(4, 8), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.turned = not batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = self.encoder(x.transpose(0, 1)).transpose(0, 1) if self.turned else self.encoder(x)
        return self.after(x).mean(1)


class Windows(nn.Module):
    """Attention within windows, in one module with its skip; a mask is written into zeros piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, 8), nn.Linear(8, 3)
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def attend(self, x: Tensor) -> Tensor:
        windows = x.reshape(-1, 2, 8)
        q, k, v = self.qkv(windows).chunk(3, -1)
        mask = x.new_zeros(2, 2)
        mask[:1, 1:] = -1.0
        weights = torch.softmax(q @ k.transpose(1, 2) + mask, -1)
        return self.out((weights @ v).reshape(x.shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = x + self.attend(self.norm(x))
        return self.after(x).mean(1)


@dataclass(frozen=True)
class Case:
    """A network, the shape of one batch, and the names of the blocks that can go."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    blocks: tuple[str, ...]


ENCODER = tuple(f"encoder.layers.{layer}{count}" for layer in (0, 1) for count in ("", "#2"))

CASES = {
    "resnet": Case(lambda: Around(Basic(), Basic(stride=2), Basic()), (2, 3, 8, 8), ("inner.0", "inner.2")),
    "mobilenet": Case(lambda: Around(Inverted(), Inverted()), (2, 3, 8, 8), ("inner.0", "inner.1")),
    "pre-activation": Case(lambda: Around(PreActivation(), PreActivation()), (2, 3, 8, 8), ("inner.0", "inner.1")),
    "scaled": Case(lambda: Around(Scaled(), Scaled()), (2, 3, 8, 8), ("inner.0", "inner.1")),
    "nested": Case(
        lambda: Around(Nested()), (2, 3, 8, 8), ("inner.0.blocks.0", "inner.0.blocks.1", "inner.0")
    ),
    "in a program": Case(lambda: Around(Swapped(), Basic()), (2, 3, 8, 8), ("inner.0.inner", "inner.1")),
    "encoder": Case(lambda: Tokens(norm_first=True, batch_first=True), (2, 6, 4), ENCODER),
    "encoder, norms last": Case(lambda: Tokens(norm_first=False, batch_first=False), (2, 6, 4), ENCODER),
    "windows": Case(Windows, (2, 6, 4), ("network",)),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, tuple[Tensor]]:
    """A network of `CASES`, and inputs."""
    torch.manual_seed(0)
    case = CASES[name]
    return case.build().eval(), (torch.randn(case.shape),)
