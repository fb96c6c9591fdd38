"""Find residual additions in a trace: one operand is computed from the other alone, and nothing else needs that."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lut.program import Operation, Ref
from profiler.branches import Effect, needed, passed_on
from profiler.trace import Call, Step, Trace
from profiler.units import CONTRACTIONS

ADDITIONS = frozenset({"add", "add_"})

CONTRACTING = frozenset({*CONTRACTIONS, "scaled_dot_product_attention"})
"""A branch holds at least one of these; an addition without any is no layer."""

RELAYING = frozenset(
    "view _unsafe_view reshape unsqueeze squeeze detach alias clone contiguous permute transpose t _to_copy".split()
)
"""Operations that lay all elements of a tensor out anew: their result is as good as their source."""

NEVER_NEGATIVE = frozenset("relu relu_ sigmoid sigmoid_ hardsigmoid hardsigmoid_".split())
"""What these make, a ReLU leaves as it is …"""

CHOOSING = RELAYING | frozenset("max_pool1d max_pool2d_with_indices max_pool3d_with_indices".split())
"""… also behind these, which make no new elements."""

CLAMPS = frozenset({"hardtanh", "hardtanh_"})
RECTIFIERS = frozenset({"relu", "relu_"})


@dataclass(frozen=True, eq=False)
class Residual:
    """A residual addition of a trace.

    Attributes:
        step: the addition.
        kept_at: which of its two arguments stays, 0 or 1.
        kept, branch: the values that these are.
        call: the smallest run of a module that holds the addition and the whole branch.
        inner: the steps between the kept operand and the branch's.
        gone: the steps within `call` that only serve the branch, `inner` among them.
        dead: all steps that nothing hangs on without the branch, wherever they are.
        idle: steps behind the addition that do nothing without the branch.
        additions: how many additions the same innermost module does in this call, and which of them it is.
        refused_because: why the branch cannot go, or None.
    """

    step: int
    kept_at: int
    kept: int
    branch: int
    call: Call
    inner: frozenset[int]
    gone: tuple[int, ...]
    dead: frozenset[int]
    idle: tuple[int, ...]
    additions: tuple[int, int]
    adder: str
    refused_because: str | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """By which the addition is found again in another run of the network."""
        return self.call.module, self.adder, self.additions[1]


def as_operation(step: Step) -> Operation:
    """A step of a trace as programs have it."""
    return Operation(str(step.operation), step.args, dict(step.kwargs), step.outputs, step.grad)


class _Search:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.effects = [Effect.of(as_operation(step)) for step in trace.steps]
        self.maker = {value: number for number, effect in enumerate(self.effects) for value in effect.makes}
        self.calls = Counter(call.module for call in trace.calls)

    @cached_property
    def idle_anyway(self) -> frozenset[int]:
        """The steps that nothing hangs on as it is."""
        return frozenset(range(len(self.effects))) - needed(self.effects, self.trace.outputs, self.trace.inputs)

    @cached_property
    def entangled(self) -> frozenset[int]:
        """Memory that is written through one tensor and read through another later: the record cannot follow that."""
        last: dict[int, int] = {value: len(self.effects) for value in self.trace.outputs}
        for number, effect in enumerate(self.effects):
            for value in effect.reads:
                last[value] = max(last.get(value, -1), number)
        sharing: dict[int, list[int]] = {}
        for value in last:
            sharing.setdefault(self.trace.values[value].storage, []).append(value)
        found = set()
        for number, effect in enumerate(self.effects):
            for value in effect.writes:
                storage, new = self.trace.values[value].storage, min(effect.makes, default=value + 1)
                if any(other < new and last[other] > number for other in sharing.get(storage, ())):
                    found.add(storage)
        return frozenset(found)

    def is_entangled(self, value: int) -> bool:
        return self.trace.values[value].storage in self.entangled

    def found(self) -> list[Residual]:
        """All residual additions, in order."""
        both = ((number, kept_at) for number in range(len(self.trace.steps)) for kept_at in (0, 1))
        return [residual for number, kept_at in both if (residual := self._residual(number, kept_at)) is not None]

    def _residual(self, number: int, kept_at: int) -> Residual | None:
        """The addition, if one of its arguments is computed from that one alone."""
        step = self.trace.steps[number]
        if not is_addition(self.trace, step) or number in self.idle_anyway:
            return None
        kept, branch = step.args[kept_at].index, step.args[1 - kept_at].index
        made = self.trace.values[self.effects[number].makes[0]]
        if made.dtype != self.trace.values[kept].dtype or (kept_at and step.kwargs.get("alpha", 1) != 1):
            return None
        inner = self._between(kept, branch, number)
        if not any(self.trace.steps[each].name in CONTRACTING for each in inner):
            return None
        instead = list(self.effects)
        instead[number] = Effect.of(passed_on(as_operation(step), kept_at))
        left = needed(instead, self.trace.outputs, self.trace.inputs)
        dead = frozenset(range(len(instead))) - left
        call = self._call(min(inner), number)
        within = range(call.first, call.last)
        return Residual(
            step=number,
            kept_at=kept_at,
            kept=kept,
            branch=branch,
            call=call,
            inner=inner,
            gone=tuple(sorted(each for each in dead - self.idle_anyway if each in within)),
            dead=dead,
            idle=tuple(each for each in self._idle(number, kept) if each in within),
            additions=self._counted(number, call),
            adder=step.module,
            refused_because=self._refused(inner, left, call),
        )

    def _refused(self, inner: frozenset[int], left: set[int], call: Call) -> str | None:
        if inner & left:
            return f"a value inside its branch is used elsewhere ({self._where(min(inner & left))})"
        if self.calls[call.module] > 1:
            return f"{call.module or 'the network'} runs {self.calls[call.module]} times"
        return None

    def _where(self, number: int) -> str:
        step = self.trace.steps[number]
        return f"{step.name} in {step.module or 'the network'}"

    def _between(self, kept: int, branch: int, last: int) -> frozenset[int]:
        """The steps by which one value is computed from another alone; none where it is not."""
        if self.is_entangled(kept):
            return frozenset()
        values = self.trace.values
        sources, value = {kept}, kept
        while value in self.maker and self.trace.steps[self.maker[value]].name in RELAYING:
            value = self.trace.steps[self.maker[value]].inputs[0]
            sources.add(value)
        known = self._known(sources, self.maker.get(value, -1) + 1, last)
        if branch not in known or branch in sources:
            return frozenset()
        found: set[int] = set()
        waiting = [branch]
        while waiting:
            value = waiting.pop()
            makers = self.writers[values[value].storage] if self.is_entangled(value) else [self.maker.get(value, -1)]
            for number in makers if value in known and value not in sources else ():
                if number not in found:
                    found.add(number)
                    waiting.extend(self.effects[number].reads)
        return frozenset(found)

    def _known(self, sources: set[int], first: int, last: int) -> set[int]:
        """The values made by the steps from first to last on which the network's input acts through the sources alone.

        Memory that cannot be followed is looked at as a whole.
        """
        values = self.trace.values
        known, mixed = set(sources), {values[each].storage for each in range(len(values)) if values[each].is_input}
        mixed.update(storage for storage, steps in self.writers.items() if min(steps) < first)
        for number in range(first, last):
            effect = self.effects[number]
            reads = [each for each in effect.reads if values[each].from_input or self.is_entangled(each)]
            if all(values[e].storage not in mixed if self.is_entangled(e) else e in known for e in reads):
                known.update(effect.makes if reads else ())
            else:
                mixed.update(values[each].storage for each in (*effect.makes, *effect.writes))
        return known

    @cached_property
    def writers(self) -> Mapping[int, list[int]]:
        """For memory that cannot be followed, the steps that make tensors in it or write into it."""
        found: dict[int, list[int]] = {storage: [] for storage in self.entangled}
        for number, effect in enumerate(self.effects):
            for value in (*effect.makes, *effect.writes):
                storage = self.trace.values[value].storage
                if storage in found and number not in found[storage][-1:]:
                    found[storage].append(number)
        return found

    def _call(self, first: int, last: int) -> Call:
        """The smallest run of a module that holds these steps; of several the innermost."""
        holding = [call for call in self.trace.calls if call.first <= first and last < call.last]
        return min(holding, key=lambda call: call.last - call.first)

    def _counted(self, number: int, call: Call) -> tuple[int, int]:
        module = self.trace.steps[number].module
        alike = [
            each
            for each in range(call.first, call.last)
            if self.trace.steps[each].module == module and adds_alike(self.trace, self.trace.steps[each])
        ]
        return len(alike), alike.index(number)

    def _idle(self, number: int, kept: int) -> list[int]:
        """The steps that read the sum and would leave the kept operand as it is."""
        made = self.effects[number].makes[0]
        readers = [n for n, effect in enumerate(self.effects) if n > number and made in effect.reads]
        return [each for each in readers if self._leaves(self.trace.steps[each], kept)]

    def _leaves(self, step: Step, value: int) -> bool:
        """Whether a step changes nothing in a value."""
        while value in self.maker and not self.is_entangled(value):
            source = self.trace.steps[self.maker[value]]
            if step.name in RECTIFIERS and (source.name in NEVER_NEGATIVE or _from_zero(source)):
                return True
            if step.name in CLAMPS and source.name in CLAMPS:
                return step.args[1:] == source.args[1:] and step.kwargs == source.kwargs
            if source.name not in CHOOSING or source.outputs[0] != value:
                return False
            value = source.inputs[0]
        return False


def _from_zero(step: Step) -> bool:
    """Whether a step clamps to what is not negative."""
    return step.name in CLAMPS and len(step.args) > 1 and step.args[1] >= 0


def adds_alike(trace: Trace, step: Step) -> bool:
    """Whether a step adds two float tensors of one shape."""
    operands = step.args[:2]
    if step.name not in ADDITIONS or len(operands) < 2 or not all(isinstance(each, Ref) for each in operands):
        return False
    one, other = (trace.values[each.index] for each in operands)
    return bool(one.shape == other.shape and one.dtype.is_floating_point)


def is_addition(trace: Trace, step: Step) -> bool:
    """The same, of tensors which the network's input reaches."""
    return adds_alike(trace, step) and all(trace.values[each.index].from_input for each in step.args[:2])


def find_residuals(trace: Trace) -> list[Residual]:
    """Every addition `x + F(x)` of a trace with a layer in F, in order."""
    return _Search(trace).found()


def readers_of(trace: Trace) -> Mapping[str, set[int]]:
    """For each parameter and buffer the steps that read it."""
    found: dict[str, set[int]] = {}
    for number, step in enumerate(trace.steps):
        for value in step.inputs:
            name = trace.values[value].name
            if name is not None:
                found.setdefault(name, set()).add(number)
    return found
