"""A task small enough for tests: a residual network with a depthwise part and a gate, on random images.

Tests copy this file and load it as a user's task would be.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class SmallNet(nn.Module):
    """Wide enough that a runtime's staircase has several steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 48, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.inner = nn.Conv2d(48, 64, 3, padding=1)
        self.outer = nn.Conv2d(64, 48, 3, padding=1)
        self.expand = nn.Conv2d(48, 96, 1)
        self.depthwise = nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.squeeze = nn.Conv2d(96, 24, 1)
        self.excite = nn.Conv2d(24, 96, 1)
        self.project = nn.Conv2d(96, 48, 1)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(x + self.outer(functional.relu(self.inner(x))))
        wide = functional.relu(self.depthwise(functional.relu(self.expand(x))))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(wide.mean((2, 3), keepdim=True)))))
        x = x + self.project(wide * gate)
        return self.head(x.mean((2, 3)))


def model() -> nn.Module:
    torch.manual_seed(0)
    return SmallNet()


def example_inputs() -> tuple[Tensor]:
    return (torch.zeros(8, 1, 16, 16),)


def train_batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        images = torch.randn(8, 1, 16, 16, generator=generator)
        yield images, (images.mean((1, 2, 3)) > 0).long()


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return functional.cross_entropy(model(images), labels, reduction="none")


def evaluate(model: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        right = [(model(images).argmax(1) == labels).float().mean() for images, labels in train_batches()]
    return {"top1": float(torch.stack(right).mean())}
