"""What `make gpu` prunes: torchvision's networks with random weights and random batches.

What is lost does not matter here, only what is promised: milliseconds. Norms have statistics as training leaves them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
BATCHES, BATCH, CLASSES = 2, 4, 1000


def make(name: str) -> tuple[Callable[..., Any], ...]:
    """A task's functions for one of torchvision's networks: model, example_inputs, train_batches, loss."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        network: nn.Module = torchvision.models.get_model(name, weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return network.eval()

    def example_inputs() -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, 224, 224),)

    def train_batches() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(BATCHES):
            images = torch.randn(BATCH, 3, 224, 224, generator=generator)
            yield images, torch.randint(0, CLASSES, (BATCH,), generator=generator)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(network(batch[0]), batch[1], reduction="none")

    return model, example_inputs, train_batches, loss
