"""Torch-Pruning's choice of channels, told in our groups: its own groups, its own importance, its own allocation.

Ratios are global, as in its published benchmarks, and the output layer is left out; all else is as it comes.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import Tensor, nn

from benchmarks.coverage_measures import output_layers, quiet
from benchmarks.versus_data import Batch
from benchmarks.versus_peers import Kept
from benchmarks.versus_task import loss
from lut.records import ChannelGroup
from profiler.cut import cut
from pruner.surgery import named_tensors

IMPORTANCES = {"taylor": tp.importance.GroupTaylorImportance, "magnitude": tp.importance.GroupMagnitudeImportance}
"""Its classes, with the arguments that they come with."""
MOST = 0.98
"""The largest share of all channels that is asked for: at 1 nothing would be left of the network."""
MOST_OF_A_GROUP = 0.95
"""The largest share of one group."""
STEPS = 10
"""In how many steps a ratio is reached. In one, every group that the ratio would empty is kept whole instead."""


class DifferentGroupsError(Exception):
    """Torch-Pruning cut something that our groups do not hold together, or the other way round."""


class TorchPruning:
    """A pruner that is built anew for each strength, on a copy of the network."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Any],
        groups: Sequence[ChannelGroup],
        importance: str,
        batches: Iterable[Batch] = (),
    ) -> None:
        """Take the gradients of the whole loss once, if the importance looks at gradients.

        Args:
            model: the unpruned network; left as it was.
            inputs: positional arguments.
            groups: ours.
            importance: of `IMPORTANCES`.
            batches: on which gradients are taken.
        """
        self.model, self.inputs, self.importance = model, tuple(inputs), importance
        self.groups = [group for group in groups if not group.frozen_because]
        self.gradients = _gradients(model, batches) if importance == "taylor" else {}
        self.outputs = output_layers(model, [self.inputs])

    def kept(self, strength: float) -> Kept:
        """What is left of our groups.

        Raises:
            DifferentGroupsError: the pruned network is not one that our groups describe.
        """
        if strength <= 0:
            return {group.name: tuple(range(group.size)) for group in self.groups}
        model, left = self._pruned(strength)
        remove: dict[str, set[int]] = {}
        for group in self.groups:
            for member in group.members:
                rows = left.get(member.parameter)
                if rows is not None and member.dimension == 0:
                    stays = [rows.issuperset(positions) for positions in member.table.tolist()]
                    remove.setdefault(group.name, set()).update(c for c, stay in enumerate(stays) if not stay)
        ours = dict(named_tensors(cut(self.model, self.groups, remove)))
        for name, tensor in named_tensors(model).items():
            if tensor.shape != ours[name].shape or not torch.equal(tensor, ours[name]):
                raise DifferentGroupsError(
                    f"Torch-Pruning leaves {name} with shape {list(tensor.shape)}, our groups with "
                    f"{list(ours[name].shape)}: it cut something else than they hold together."
                )
        return {
            group.name: tuple(choice for choice in range(group.size) if choice not in remove.get(group.name, ()))
            for group in self.groups
        }

    def _pruned(self, strength: float) -> tuple[nn.Module, dict[str, set[int]]]:
        """A pruned copy, and which rows of the unpruned weight each of its weights has that lost some."""
        model = copy.deepcopy(self.model).eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(True)
            parameter.grad = self.gradients[name].clone() if name in self.gradients else None
        names = {module: f"{name}.weight" for name, module in model.named_modules()}
        left: dict[str, list[int]] = {}
        torch.manual_seed(0)
        with quiet():
            pruner = tp.pruner.BasePruner(
                model,
                self.inputs,
                importance=IMPORTANCES[self.importance](),
                global_pruning=True,
                pruning_ratio=strength * MOST,
                max_pruning_ratio=MOST_OF_A_GROUP,
                iterative_steps=STEPS,
                ignored_layers=[model.get_submodule(name) for name in self.outputs],
            )
            for _ in range(STEPS):
                for group in pruner.step(interactive=True):
                    for name, gone in _rows(group, names, pruner.DG).items():
                        rows = left.get(name) or list(range(model.get_parameter(name).shape[0]))
                        left[name] = [row for place, row in enumerate(rows) if place not in gone]
                    group.prune()
        return model, {name: set(rows) for name, rows in left.items()}


def _rows(group: Any, names: Mapping[nn.Module, str], graph: Any) -> dict[str, set[int]]:
    """Of each weight that loses rows with one of Torch-Pruning's groups, which, as numbered at present."""
    return {
        names[dependency.target.module]: {int(position) for position in positions}
        for dependency, positions in group
        if dependency.target.module in names and graph.is_out_channel_pruning_fn(dependency.handler)
    }


def _gradients(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Of the summed loss by each parameter, in eval mode."""
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    for batch in batches:
        loss(copied, batch).sum().backward()
    return {name: parameter.grad for name, parameter in copied.named_parameters() if parameter.grad is not None}
