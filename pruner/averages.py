"""Keeps an optimizer's averages by the weights' names: an interrupted training goes on as if it had not been."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lut.errors import RunError

PREFIX = "optimizer:"
"""Begins the names of an optimizer's tensors where they are kept beside a network's: no module's name has a colon."""


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What an optimizer remembers of each weight (AdamW: two averages and the number of steps).

    Returns:
        `optimizer:KEY:NAME` for each of it; the tensors are the optimizer's own and change with its next step.
    """
    return {
        f"{PREFIX}{key}:{name}": value
        for name, weight in model.named_parameters()
        for key, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def without_optimizer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own tensors of those that were kept together."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back what it remembered, as copies; tensors that are not an optimizer's are passed over.

    Raises:
        RunError: they belong to weights that the network does not have, or that have another shape.
    """
    weights = dict(model.named_parameters())
    for full_name, kept in tensors.items():
        if not full_name.startswith(PREFIX):
            continue
        key, _, name = full_name.removeprefix(PREFIX).partition(":")
        weight = weights.get(name)
        if weight is None or kept.shape not in (weight.shape, torch.Size([])):
            found = "which the model lacks" if weight is None else f"{list(kept.shape)} for {list(weight.shape)}"
            raise RunError(f"The optimizer's state belongs to another model: it has {key} of {name!r}, {found}.")
        # AdamW counts its steps on the CPU, wherever the weights are.
        place = torch.device("cpu") if key == "step" else weight.device
        optimizer.state[weight][key] = kept.detach().to(place, copy=True)
