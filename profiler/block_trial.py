"""Try on an awake copy that a network without blocks is the network with their branches at zero."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from lut.records import ChannelGroup
from profiler.branches import Block
from profiler.cut import cut, zero
from profiler.network import Network
from profiler.outputs import relative_difference
from profiler.program_module import install
from profiler.proof import EXACT, ROUNDING, Proof, double_by_default

log = logging.getLogger(__name__)


def proved(network: Network, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks, of which those that fail on an awake copy are frozen, with the reason."""
    offered = [block for block in blocks if not block.frozen_because]
    if not offered:
        return tuple(blocks)
    trial = _Trial(network)
    reasons: dict[str, str] = {}
    if trial.failure(offered) is not None:
        for block in offered:
            reason = trial.failure([block])
            if reason is not None:
                log.info("%s cannot go: %s", block.name, reason)
                reasons[block.name] = reason
        sound = [block for block in offered if block.name not in reasons]
        together = trial.failure(sound) if sound else None
        if together is not None:
            reasons.update((block.name, f"with others, {together}") for block in sound)
    return tuple(
        replace(block, frozen_because=reasons[block.name]) if block.name in reasons else block for block in blocks
    )


class _Trial:
    """Tries removals on an awake copy of a network."""

    def __init__(self, network: Network) -> None:
        self.groups: Sequence[ChannelGroup] = network.groups
        self.proof = Proof(network.model, network.inputs, training=False)

    def failure(self, blocks: Sequence[Block]) -> str | None:
        """Why the network without these blocks is not the network with their branches at zero, or None."""
        try:
            difference = self._difference(self.proof.model, self.proof.full, blocks)
            if difference <= ROUNDING:
                return None
            with double_by_default():
                precise = copy.deepcopy(self.proof.model).double()
                difference = self._difference(precise, _double(self.proof.full), blocks)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
            first = str(error).splitlines()[0] if str(error) else ""
            return f"the network does not run without it: {type(error).__name__}: {first}"
        return None if difference <= EXACT else f"the network computes something else (difference {difference:.1g})"

    def _difference(self, model: nn.Module, inputs: tuple[Any, ...], blocks: Sequence[Block]) -> float:
        homes = {written.program.module: written.program for block in blocks for written in [block.home]}
        whole = self.proof.run(model, inputs)
        written = self.proof.run(install(copy.deepcopy(model), homes.values()), inputs)
        gone = self.proof.run(cut(model, self.groups, {}, blocks=blocks, share=True), inputs)
        zeroed = self.proof.run(zero(model, self.groups, {}, blocks=blocks, share=True), inputs)
        return max(relative_difference(written, whole), relative_difference(gone, zeroed))


def _double(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def convert(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point else leaf

    return tuple(tree_map(convert, inputs))
