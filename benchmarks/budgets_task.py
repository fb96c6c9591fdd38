"""A task made up around a network: random weights, as if they had been trained, with random inputs and targets."""

import torch
from torch import Tensor, nn

from benchmarks.fidelity_networks import make_network
from pruner.task import Task

BATCHES, BATCH = 2, 4
"""Of random inputs and targets: what is lost does not matter here, only what is promised."""


def with_lived_norms(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and scales as training leaves them, in place.

    Those of a fresh network fold into no bias at all: OpenVINO runs such a MobileNetV2 2 % faster than a trained one.
    """
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.affine:
                nn.init.normal_(module.bias, 0, 0.1, generator=generator)
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return model


def made_up_task(name: str) -> Task:
    """A task around a network with random weights: random inputs, random targets of the outputs' shape."""
    torch.manual_seed(0)
    _, picture = make_network(name)

    def model() -> nn.Module:
        torch.manual_seed(0)
        return with_lived_norms(make_network(name)[0]).eval()

    def batches() -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [torch.randn((BATCH, *picture.shape[1:]), generator=generator) for _ in range(BATCHES)]

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        found = network(batch)
        outputs = [found] if isinstance(found, Tensor) else list(found)
        generator = torch.Generator().manual_seed(2)
        each = [
            (output - torch.randn(output.shape, generator=generator)).square().flatten(1).mean(1) for output in outputs
        ]
        return torch.stack(each).sum(0)

    return Task(name, model, lambda: (picture,), batches, loss)
