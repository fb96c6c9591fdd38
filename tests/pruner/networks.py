"""Small networks with what pruning meets: residuals, depthwise and group convolutions, gates, concat, shared layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualNet(nn.Module):
    """A stem with a norm, a residual block, pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(5)
        self.outer = nn.Conv2d(5, 6, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = x + self.outer(functional.relu(self.inner_norm(self.inner(x)), inplace=True))
        return self.head(self.drop(functional.relu(x)).mean((2, 3)))


class GatedNet(nn.Module):
    """A depthwise convolution and a squeeze-and-excite gate."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.project = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.depthwise(functional.relu(self.expand(x))))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.project(x * gate).mean((2, 3))


class ConcatNet(nn.Module):
    """Two branches side by side, flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 5, 1)
        self.after = nn.Conv2d(9, 6, 1)
        self.head = nn.Linear(6 * 25, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x).tanh(), self.right(x).tanh()], 1)
        return self.head(self.after(x).tanh().flatten(1))


class SharedNet(nn.Module):
    """A layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        return self.head(self.shared(self.shared(x).tanh()).tanh().mean((2, 3)))


class WholePartsNet(nn.Module):
    """A group convolution that loses whole parts (as many parts as places, or more)."""

    parts, width = 4, 12

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, self.width, 1)
        self.grouped = nn.Conv2d(self.width, self.width, 3, padding=1, groups=self.parts)
        self.head = nn.Linear(self.width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.stem(x).tanh()).tanh().mean((2, 3)))


class EqualPartsNet(WholePartsNet):
    """A group convolution that loses the same place in each part."""

    parts = 2


class Product(nn.Module):
    """A product with a transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 7) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()


class TransposedNet(nn.Module):
    """A transposed convolution, a one-dimensional one, and a product with a transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.line = nn.Conv1d(5, 7, 3)
        self.product = Product()

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.stem(x).tanh()).tanh().mean(3)
        return self.product(self.line(x).tanh().mean(2))


NETWORKS: list[Callable[[], nn.Module]] = [
    ResidualNet,
    GatedNet,
    ConcatNet,
    SharedNet,
    WholePartsNet,
    EqualPartsNet,
    TransposedNet,
]

Batch = tuple[Tensor, Tensor]


def build(network: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with random weights and norm statistics, in double precision."""
    torch.manual_seed(seed)
    model = network().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def inputs() -> tuple[Tensor]:
    return (torch.randn(1, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),)


def batches(*sizes: int) -> list[Batch]:
    """The same samples for every way of adding up to the same number."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(sum(sizes), 3, 5, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(4, (sum(sizes),), generator=generator)
    return list(zip(images.split(list(sizes)), labels.split(list(sizes)), strict=True))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """One value a sample."""
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def summed(model: nn.Module, batch: Batch) -> Tensor:
    """The sum over samples."""
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def mean(model: nn.Module, batch: Batch) -> Tensor:
    """What is not allowed."""
    return functional.cross_entropy(model(batch[0]), batch[1])
