"""Let a network's code follow its channels: modules to blame for what differs are written down as programs.

The smallest module first; the one around it where that cannot be written down; the whole network at last.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import nn

from lut.program import Program
from lut.records import ChannelGroup
from profiler.culprits import Expectation, alike, is_below
from profiler.cut import cut
from profiler.groups import Structure
from profiler.narrowing import groups_in, outermost
from profiler.program_writer import UnwritableError
from profiler.programs import Author
from profiler.proof import Proof, uneven_removal
from profiler.recording import record_until_failure

log = logging.getLogger(__name__)

ROUNDS = 12
"""Most modules of different kinds that are looked for one after another."""


NO_CHANNELS = "no channels pass through it"


class Scribe:
    """Finds the modules of one network that must be programs, and writes them."""

    def __init__(self, model: nn.Module, inputs: Sequence[Any], structure: Structure, proof: Proof) -> None:
        self.model, self.inputs, self.structure, self.proof = model, inputs, structure, proof
        self.author = Author(model, inputs, structure, proof.dry if proof.dries else None)
        self.programs: dict[str, Program] = {}
        self.unwritable: dict[str, str] = {}

    @cached_property
    def expectation(self) -> Expectation:
        """What a run of the shrunk network should be."""
        return Expectation(self.structure)

    def followed(self, groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
        """The groups with the programs that they need so that the network's code follows when they are cut.

        They were tried as they are, and failed.
        """
        groups = self.with_programs(groups)
        met = self.proof.blamed
        for number in range(ROUNDS):
            prunable = [group for group in groups if not group.frozen_because]
            if number:
                if self.proof.failure(prunable) is None:
                    break
                met = self.proof.blamed
            blamed, failed = self._blamed(prunable)
            if not (blamed or failed) and met is not None:
                blamed = {met}  # PyTorch's fused layers, which the record leaves aside, are met in the proof only
            written = [self._write(module) for module in sorted(blamed)]
            if not any(written):
                break
            groups = self.with_programs(groups)
        return tuple(groups)

    def _blamed(self, groups: Sequence[ChannelGroup]) -> tuple[set[str], bool]:
        """The modules, not yet programs, whose own code does not follow; and whether the shrunk network failed."""
        remove = uneven_removal(groups, 0)
        smaller = cut(self.model, groups, remove, share=True)
        actual, error = record_until_failure(smaller, self.inputs)
        return self.expectation.culprits(actual, remove, self._in_use(groups)), error is not None

    @staticmethod
    def _in_use(groups: Iterable[ChannelGroup]) -> set[str]:
        return {program.module for group in groups for program in group.programs}

    def why_not(self) -> str:
        """Why modules could not be written down, in words to end a sentence with; nothing where all could."""
        reasons = [why for why in self.unwritable.values() if why != NO_CHANNELS]
        return f" ({reasons[-1]}, so it cannot be a program)" if reasons else ""

    def _write(self, module: str) -> bool:
        """Write a module and all of its kind, or those around them; whether that gave a new program."""
        new = False
        for name in alike(self.model, module):
            found = self._around(name)
            if found is not None and found not in self.programs:
                self.programs[found] = self.author.program(found)
                new = True
        return new

    def _around(self, module: str) -> str | None:
        """The module, or the smallest around it, that can be written down."""
        while True:
            parents = [".".join(module.split(".")[:depth]) for depth in range(module.count(".") + 2)]
            if not is_below(parents, self.programs) and module not in self.unwritable:
                try:
                    if groups_in(self.author.program(module)):
                        return module
                    self.unwritable[module] = NO_CHANNELS
                except UnwritableError as error:
                    log.info("%s is not written down: %s", module or "the network", error)
                    self.unwritable[module] = str(error)
            if not module:
                return None
            module = module.rpartition(".")[0]

    def with_programs(self, groups: Iterable[ChannelGroup]) -> tuple[ChannelGroup, ...]:
        """The groups, each with the programs in which it stands."""
        touched = [(program, groups_in(program)) for program in outermost(list(self.programs.values()))]
        return tuple(
            group
            if group.frozen_because
            else replace(group, programs=tuple(program for program, names in touched if group.name in names))
            for group in groups
        )
