"""Which steps of a traced network a runtime runs as one.

One cut serves all runtimes: a step joins the unit before it where some of them run both as one kernel and none of the
others hands what lies between them to anybody else; those that run several kernels there run them for that unit alone.

A *contraction* (convolution, matrix product) takes up what follows element by element, across views, and the layer norm
behind it. A *product* of two activations (attention) also takes what only prepares its operands: splits into heads,
scales. What stands between contractions and is neither pooling nor a mean runs as one (moves, sums, norms, softmax)
while nobody else reads what lies between.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from profiler.groups import Structure
from profiler.step_kinds import (
    ATTENTION,
    CONTRACTIONS,
    LAYER_NORMS,
    MOVES,
    SOFTMAX,
    free_because,
    is_follower,
)
from profiler.trace import Step

Kind = Literal["contraction", "product", "between", "closed"]
"""What a unit is, which says what can join it.

contraction: of activations with weights.
product: of activations with each other.
between: moves, sums, norms and softmax that no contraction takes up.
closed: all else (pooling, resizing, means …); element-wise operations can follow it.
"""


@dataclass
class Draft:
    """A unit while it grows.

    Attributes:
        kind: what can join it.
        steps: their numbers, in the order in which they run.
        taken: those that only prepare what the anchor reads.
        tail: the value at its end; -1 once it has several, and nothing follows.
        place: the step that tells where it stands among the others.
    """

    kind: Kind
    steps: list[int] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    tail: int = -1
    place: int = -1

    @property
    def own(self) -> list[int]:
        """The step that the unit is about, and what follows it."""
        return [number for number in self.steps if number not in self.taken]

    @property
    def anchor(self) -> int:
        """The step that the unit is about."""
        return self.own[0]


class Cutter:
    """Sorts a trace's steps into drafts.

    Attributes:
        drafts: in the order of their places, once `run` is done.
        free: for each step that belongs to none, why.
        owner: for each value that a step makes, views aside, its draft.
        readers: for each value, views seen as what they are views of, the steps that read it; -1 where it leaves.
    """

    def __init__(self, structure: Structure) -> None:
        """Find what is free and who reads what."""
        self.structure = structure
        self.trace = structure.trace
        self.source: dict[int, int] = {}
        self.reordered: set[int] = set()
        self.free: dict[int, str] = {}
        self.readers: dict[int, set[int]] = defaultdict(set)
        self.drafts: list[Draft] = []
        self.owner: dict[int, Draft] = {}
        self.draft_of: dict[int, Draft] = {}
        for number, step in enumerate(self.trace.steps):
            why = free_because(self.trace, step)
            if why:
                self.free[number] = why
                self._see_through(step)
                continue
            for index in step.inputs:
                self.readers[self.root(index)].add(number)
        for index in self.trace.outputs:
            self.readers[self.root(index)].add(-1)

    def _see_through(self, step: Step) -> None:
        """Note of what a view is one, and whether it shows other elements, or in another order."""
        inputs = [index for index in step.inputs if self.trace.values[index].from_input]
        for output in step.outputs if inputs else ():
            if output is not None:
                self.source[output] = self.root(inputs[0])
                same = self._elements(inputs[0]) == self._elements(output) and not step.name.startswith("as_strided")
                if not same or inputs[0] in self.reordered:
                    self.reordered.add(output)

    def _elements(self, value: int) -> int:
        return prod(self.trace.values[value].shape)

    def root(self, value: int) -> int:
        """The value of which this one is a view."""
        return self.source.get(value, value)

    def data_inputs(self, step: Step) -> list[int]:
        """The activations that a step reads, as roots, each once."""
        return list(dict.fromkeys(self.root(i) for i in step.inputs if self.trace.values[i].from_input))

    def run(self) -> None:
        """Put each step that is not free into a draft."""
        for number, step in enumerate(self.trace.steps):
            if number not in self.free:
                self._place(number, step)
        self.drafts.sort(key=lambda draft: draft.place)

    def _place(self, number: int, step: Step) -> None:
        kind = self._kind(step)
        host = self._host(step) if kind == "between" else None
        if host is not None:
            self._append(host, number)
        elif kind == "product":
            self._multiply(number, step)
        elif kind == "between":
            self._merge(number, step)
        else:
            self._start(kind, number)

    def _kind(self, step: Step) -> Kind:
        if ATTENTION in step.name:
            return "product"
        if step.name in CONTRACTIONS:
            computed = all(self.trace.values[index].from_input for index in step.inputs[-2:])
            return "product" if computed and step.name != "convolution" else "contraction"
        if step.name in MOVES | LAYER_NORMS | SOFTMAX or is_follower(step):
            return "between"
        return "closed"

    def _start(self, kind: Kind, number: int) -> Draft:
        draft = Draft(kind, place=number)
        self.drafts.append(draft)
        self._append(draft, number)
        return draft

    def _append(self, draft: Draft, number: int) -> None:
        draft.steps.append(number)
        self.draft_of[number] = draft
        outputs = [output for output in self.trace.steps[number].outputs if output is not None]
        for output in outputs:
            self.owner[output] = draft
        if outputs:
            draft.tail = -1 if sum(bool(self.readers[output]) for output in outputs) > 1 else outputs[0]

    def _take(self, draft: Draft, others: Iterable[Draft]) -> None:
        """Make other drafts' steps part of this one, as what prepares its anchor."""
        for other in others:
            draft.taken |= set(other.steps)
            draft.steps = sorted({*draft.steps, *other.steps})
            self.drafts.remove(other)
            for number in other.steps:
                self.draft_of[number] = draft
                self.owner |= {output: draft for output in self.trace.steps[number].outputs if output is not None}

    def _tails(self, step: Step) -> list[tuple[int, Draft]]:
        """What a step reads that stands at the end of a draft."""
        found = [(value, self.owner[value]) for value in self.data_inputs(step) if value in self.owner]
        return [(value, draft) for value, draft in found if draft.tail == value]

    def _is_alone(self, value: int) -> bool:
        return len(self.readers[value]) == 1

    def _keeps(self, step: Step, value: int) -> bool:
        """Whether a step's output has the elements of a value that it reads, each at its place; views do not count."""
        output = step.outputs[0]
        read = [index for index in step.inputs if self.root(index) == value]
        return output is not None and all(
            index not in self.reordered and self.trace.values[index].shape == self.trace.values[output].shape
            for index in read
        )

    def _host(self, step: Step) -> Draft | None:
        """The unit that takes up a step: the latest whose tail only this step reads, element by element.

        A layer norm joins what makes the sum that it reads, even if a residual branch reads that, too.
        """
        if step.name in MOVES:
            return None
        hosts = []
        for value, draft in self._tails(step):
            alone = self._is_alone(value) or step.name in LAYER_NORMS
            if alone and self._keeps(step, value) and self._takes_up(draft, step):
                hosts.append(draft)
        return max(hosts, key=lambda draft: draft.place, default=None)

    def _takes_up(self, draft: Draft, step: Step) -> bool:
        if step.name in SOFTMAX:
            return draft.kind == "product"
        if step.name in LAYER_NORMS:
            return draft.kind == "contraction"
        return draft.kind != "between"

    def _merge(self, number: int, step: Step) -> None:
        """Join what stands between contractions: the units before a step that make something for it alone.

        A product takes the move behind it, which puts heads together again. A single element's function joins the
        latest alone.
        """
        normed = step.name in LAYER_NORMS
        hosts: list[Draft] = []
        for value, draft in self._tails(step):
            if not self._is_open(draft, step) or (is_follower(step) and not self._keeps(step, value)):
                continue
            if self._is_alone(value) or (normed and not self._has(draft, LAYER_NORMS)):
                hosts.append(draft)
        plain = [draft for draft in hosts if draft.kind == "between" and not self._has(draft, LAYER_NORMS)]
        if len(hosts) > 1 and len(plain) < len(hosts):
            hosts = plain
        if is_follower(step):
            hosts = sorted(hosts, key=lambda draft: draft.place)[-1:]
        if len(hosts) == 1 and not (normed and plain):
            self._append(hosts[0], number)
            return
        self._take(self._start("between", number), hosts)

    def _is_open(self, draft: Draft, step: Step) -> bool:
        if draft.kind == "product" and step.name in MOVES:
            return True
        return draft.kind == "between" or self._has(draft, LAYER_NORMS)

    def _has(self, draft: Draft, names: Collection[str]) -> bool:
        return any(self.trace.steps[number].name in names for number in draft.steps)

    def _multiply(self, number: int, step: Step) -> None:
        """Start a product, or join that before the softmax; either takes what only prepares its operands."""
        before = [draft for value, draft in self._tails(step) if self._is_alone(value) and self._has(draft, SOFTMAX)]
        hosts = [draft for draft in before if draft.kind == "product" and self._alike(draft.anchor, number)]
        draft = hosts[0] if hosts else self._start("product", number)
        if hosts:
            self._append(draft, number)
            draft.place = number
        self._take(draft, self._preparing(draft, step))

    def _preparing(self, draft: Draft, step: Step) -> list[Draft]:
        """Moves and single elements' functions whose results reach nothing but a draft."""
        found: dict[int, Draft] = {}
        waiting = [step]
        while waiting:
            for value in self.data_inputs(waiting.pop()):
                owner = self.owner.get(value)
                if owner is None or id(owner) in found or owner.kind != "between":
                    continue
                if not self._has(owner, LAYER_NORMS | SOFTMAX):
                    found[id(owner)] = owner
                    waiting += [self.trace.steps[number] for number in owner.steps]
        while lost := [key for key, one in found.items() if not self._only_for(one, [draft, *found.values()])]:
            for key in lost:
                del found[key]
        return list(found.values())

    def _only_for(self, draft: Draft, readers: Sequence[Draft]) -> bool:
        outputs = [
            output for number in draft.steps for output in self.trace.steps[number].outputs if output is not None
        ]
        reading = {number for output in outputs for number in self.readers[output]}
        return all(number in self.draft_of and self.draft_of[number] in readers for number in reading)

    def _alike(self, first: int, second: int) -> bool:
        """Whether two products depend on the same channel counts, so that one number tells both their sums."""
        counted = [
            {
                coordinate
                for value in (*step.inputs, *step.outputs)
                if value is not None
                for d in range(len(self.trace.values[value].shape))
                if (coordinate := self.structure.coordinate(value, d)).terms
            }
            for step in (self.trace.steps[first], self.trace.steps[second])
        ]
        return counted[0] == counted[1]
