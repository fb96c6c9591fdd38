"""torchvision's MobileNetV2 on crops of scikit-learn's two photographs, with labels drawn at random.

There is nothing to learn here: the task shows how a network that is not ours is handed over, on real pictures.
"""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

CROP = 224
CLASSES = 10
BATCH = 8

Batch = tuple[Tensor, Tensor]


def model() -> nn.Module:
    """MobileNetV2 with the same random weights every time, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mobilenet_v2(num_classes=CLASSES).eval()


def example_inputs() -> tuple[Tensor]:
    """The shape to deploy."""
    return (torch.zeros(1, 3, CROP, CROP),)


def crops(left: int, right: int, batches: int, seed: int) -> Iterator[Batch]:
    """Cut squares out of the photographs between two columns, and draw a label for each."""
    draw = np.random.default_rng(seed)
    photographs = load_sample_images().images
    for _ in range(batches):
        squares = []
        for _ in range(BATCH):
            photograph = photographs[draw.integers(len(photographs))]
            y = draw.integers(photograph.shape[0] - CROP + 1)
            x = draw.integers(left, right - CROP + 1)
            squares.append(photograph[y : y + CROP, x : x + CROP])
        images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 127.5 - 1
        yield images, torch.from_numpy(draw.integers(CLASSES, size=BATCH))


def train_batches() -> Iterator[Batch]:
    """24 batches of 8 crops from the left of the photographs, the same ones every time."""
    return crops(0, 400, batches=24, seed=0)


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """The cross entropy, one value a sample."""
    images, labels = batch
    return functional.cross_entropy(network(images), labels, reduction="none")


@torch.no_grad()
def evaluate(network: nn.Module) -> dict[str, float]:
    """The share of right labels on 32 crops from the right of the photographs, which training never sees."""
    network.eval()
    hits = [network(images).argmax(1) == labels for images, labels in crops(400, 640, batches=4, seed=1)]
    return {"top1": torch.cat(hits).float().mean().item()}
