"""A small residual network on scikit-learn's handwritten digits: the task of `make demo`.

1,797 images of 8 × 8 pixels come with scikit-learn, so nothing is downloaded. The network has what pruning meets in
larger ones: residual trunks, depthwise convolutions, squeeze-and-excite gates and a projection on a shortcut.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor]

DEPLOYED_BATCH = 16
TRAINING_BATCH = 64
EPOCHS = 16
PEAK_LEARNING_RATE = 4e-3


def convolution(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the borders, and its norm."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3 × 3 convolutions around a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride=stride)
        self.second = convolution(outputs, outputs, 3)
        changes = inputs != outputs or stride != 1
        self.shortcut = convolution(inputs, outputs, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(self.pool(x)))))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, gate, narrow, and add the input."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = convolution(channels, hidden, 1)
        self.depthwise = convolution(hidden, hidden, 3, groups=hidden)
        self.gate = SqueezeExcite(hidden, hidden // 8)
        self.project = convolution(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.relu(self.depthwise(functional.relu(self.expand(x))))
        return x + self.project(self.gate(wide))


class DigitsNet(nn.Module):
    """A stem, two stages at 8 × 8 and 4 × 4 pixels, and a linear head."""

    def __init__(self, narrow: int = 64, wide: int = 128) -> None:
        super().__init__()
        self.stem = convolution(1, narrow, 3)
        self.stages = nn.Sequential(
            Residual(narrow, narrow),
            InvertedResidual(narrow, 3 * narrow),
            Residual(narrow, wide, stride=2),
            InvertedResidual(wide, 3 * wide),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(wide, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Give the ten logits of each image, `[N, 1, 8, 8]` in 0 … 1."""
        return self.head(self.pool(self.stages(functional.relu(self.stem(images)))).flatten(1))


def load_split() -> tuple[Batch, Batch]:
    """The images and labels for training (1,347) and for testing (450), the same ones every time."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target).long()
    train, test = train_test_split(torch.arange(len(labels)), test_size=450, random_state=0, stratify=labels)
    return (images[train], labels[train]), (images[test], labels[test])


def shift(images: Tensor) -> Tensor:
    """Move each image by up to one pixel, at random, in both directions."""
    padded = functional.pad(images, (1, 1, 1, 1))
    across, down = torch.randint(3, (2, len(images))).tolist()
    moved = [one[:, y : y + 8, x : x + 8] for one, x, y in zip(padded, across, down, strict=True)]
    return torch.stack(moved)


def train_from_scratch(network: nn.Module) -> None:
    """Train in place, with progress on stderr."""
    steps = EPOCHS * sum(1 for _ in train_batches())
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        network.train()
        total = 0.0
        for batch in train_batches():
            optimizer.zero_grad()
            mean = loss(network, batch).mean()
            mean.backward()
            optimizer.step()
            schedule.step()
            total += mean.item()
        if epoch % 2 == 1:
            top1 = evaluate(network)["top1"]
            print(f"digits: trained {epoch + 1} of {EPOCHS} epochs, top1 {top1:.3f}", file=sys.stderr, flush=True)


def model() -> nn.Module:
    """The trained network, in eval mode; trained at the first call, then read from `runs/` beside this file."""
    source = Path(__file__)
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    weights = source.parent / "runs" / f"digits-{version}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DigitsNet()
        if weights.exists():
            network.load_state_dict(load_file(weights))
        else:
            train_from_scratch(network)
            weights.parent.mkdir(exist_ok=True)
            unfinished = weights.with_suffix(f".{os.getpid()}.tmp")
            save_file(network.state_dict(), unfinished)
            unfinished.replace(weights)
    return network.eval()


def example_inputs() -> tuple[Tensor]:
    """The shape to deploy."""
    return (torch.zeros(DEPLOYED_BATCH, 1, 8, 8),)


def train_batches() -> Iterator[Batch]:
    """One epoch of shuffled, slightly moved training images."""
    (images, labels), _ = load_split()
    for chosen in torch.randperm(len(labels)).split(TRAINING_BATCH):
        yield shift(images[chosen]), labels[chosen]


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """The cross entropy, one value a sample."""
    images, labels = batch
    return functional.cross_entropy(network(images), labels, reduction="none")


@torch.no_grad()
def evaluate(network: nn.Module) -> dict[str, float]:
    """The share of test images whose digit is found."""
    _, (images, labels) = load_split()
    network.eval()
    return {"top1": (network(images).argmax(1) == labels).float().mean().item()}
