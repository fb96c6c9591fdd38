"""Write a module down as a program: the steps of its recorded calls, and which sizes grow with the batch.

The network is recorded at two batches. A number that is the same in both is part of the code; one that is not grows
with the batch. Where the two runs do not match, the batch stays what it was.
"""

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from lut.errors import LatpruneError
from lut.program import Form, Growing, Named, Program, Ref
from profiler.groups import Reading, Structure, repeated
from profiler.paired_runs import Pair, pair_runs
from profiler.program_writer import UnwritableError, write_call
from profiler.proof import to_meta
from profiler.recording import record

log = logging.getLogger(__name__)


class Author:
    """Writes modules of one network down; the further runs that this takes are made once, when they are needed."""

    def __init__(
        self, model: nn.Module, inputs: Sequence[Any], structure: Structure, dry: nn.Module | None = None
    ) -> None:
        """Get ready.

        Args:
            model: as it was analysed.
            inputs: the same.
            structure: what was read of them, with its readings on more samples.
            dry: the same network on PyTorch's meta device, if it runs there, where another batch costs little.
        """
        self.model, self.inputs, self.structure, self.dry = model, inputs, structure, dry
        self.written: dict[str, Program] = {}

    @cached_property
    def evaluation(self) -> Pair:
        """The run in eval mode, at two batches; or at the given batch alone, where the network takes no other."""
        reading = self.structure.again
        pair = self._beside_one or (self._pair(reading, training=False) if reading else None)
        return pair if pair is not None and pair.again is not None else Pair(self.structure.reading)

    @cached_property
    def training(self) -> Pair | None:
        """The run in train mode, at two batches; None where the network does not train."""
        return self._pair(self.structure.training, training=True) if self.structure.training else None

    def _pair(self, reading: Reading, *, training: bool) -> Pair:
        """A run on the inputs repeated once beside one at another batch."""
        for model, inputs, direction in self._ways():
            try:
                found = record(model, inputs, training=training)
            except LatpruneError as error:
                log.debug("the network does not run at another batch: %s", error)
                continue
            pair = pair_runs(reading, found, direction)
            if pair is not None:
                return pair
        log.info("the network runs otherwise at another batch, which stays fixed")
        return Pair(reading)

    def _ways(self) -> Iterator[tuple[nn.Module, tuple[Any, ...], int]]:
        """Networks and inputs for another batch, the cheap ones first; and whether that is smaller or larger."""
        if self._beside_one is not None:
            yield self.model, tuple(self.inputs), -1
        elif self.dry is not None:
            for many in repeated(self.inputs, 3):
                with torch.device("meta"):
                    yield self.dry, to_meta(many), 1
        for many in repeated(self.inputs, 3):
            yield self.model, many, 1

    @cached_property
    def _beside_one(self) -> Pair | None:
        """The run in eval mode on more samples beside that on those that were given, where it is the same run."""
        reading = self.structure.again
        return pair_runs(reading, self.structure.trace, -1) if reading is not None else None

    def program(self, module: str) -> Program:
        """The module as a program.

        Raises:
            UnwritableError: it does something that no program can repeat.
        """
        if module not in self.written:
            evaluation = self._form(self.evaluation, module)
            training: Form | None = None
            if self.training is not None:
                training = self._form(self.training, module)
                training = evaluation if _same(evaluation, training) else training
            self.written[module] = Program(module, evaluation, training)
        return self.written[module]

    def _form(self, pair: Pair, module: str) -> Form:
        calls = [call for call in pair.reading.trace.calls if call.module == module]
        if not calls:
            raise UnwritableError(f"{module} does not run on the example inputs")
        forms = [write_call(self.model, self.structure, pair, call) for call in calls]
        if any(not _same(forms[0], form) for form in forms[1:]):
            raise UnwritableError(f"{module or 'the network'} runs several times, each time otherwise")
        return forms[0]


def _same(one: Form, other: Form) -> bool:
    """Whether two forms do the same, though one may have been written down at a larger batch."""

    def plain(form: Form) -> Any:
        def each(leaf: Any) -> Any:
            if isinstance(leaf, Growing) and form.batch:
                return ("grows", Fraction(leaf.more, form.batch[2]), leaf.base - leaf.more)
            return leaf

        done = [(op.name, op.args, dict(op.kwargs), op.outputs, op.grad) for op in form.operations]
        marks = (form.args, form.kwargs, form.output, done)
        return tree_map(each, marks, is_leaf=lambda leaf: isinstance(leaf, Ref | Growing | Named))

    if one.parameters != other.parameters or one.constants.keys() != other.constants.keys():
        return False
    if any(not np.array_equal(array, other.constants[value]) for value, array in one.constants.items()):
        return False
    return bool(plain(one) == plain(other))
