"""Where samples stand in front of the layers of a program, which a contraction alone does not tell.

Attention flattens `[sequence, samples, channels]` as well as `[samples, sequence, channels]` to rows. A program knows
which: the shapes that it was written down with say what grows with the batch.
"""

from torch import nn

from lut.program import Form, Growing, Ref
from profiler.program_module import ProgramModule

ROWS = {"mm": (0, 1), "addmm": (1, 2), "linear": (0, 1)}
"""Operations on rows: where what enters stands among their arguments, and where the weight."""

PASSING = frozenset("reshape view _unsafe_view clone contiguous t transpose alias detach _to_copy".split())


def behind_sequences(model: nn.Module) -> frozenset[str]:
    """The weights of programs that take in rows which hold all samples of the sequence's first place, then the next's.

    Returns:
        The weights' names in the model.
    """
    found: set[str] = set()
    for path, module in model.named_modules():
        if isinstance(module, ProgramModule):
            for form in module.program.forms:
                found.update(f"{path}.{name}".lstrip(".") for name in _in_form(form))
    return frozenset(found)


def _in_form(form: Form) -> list[str]:
    makers = {output: op for op in form.operations for output in op.outputs if output is not None}

    def source(value: int) -> int:
        maker = makers.get(value)
        if maker is None or maker.kind not in PASSING or not isinstance(maker.args[0], Ref):
            return value
        return source(maker.args[0].index)

    def grows(value: int) -> list[bool]:
        return [isinstance(length, Growing) for length in form.shapes[value]]

    found = []
    for operation in form.operations:
        if operation.kind not in ROWS:
            continue
        entering, weight = (operation.args[place].index for place in ROWS[operation.kind])
        value = entering
        while len(form.shapes[value]) < 3 and value in makers and makers[value].kind in PASSING:
            value = makers[value].args[0].index
        name = form.parameters.get(source(weight))
        if name is not None and len(form.shapes[value]) > 2 and grows(value)[:2] == [False, True]:
            found.append(name)
    return found
