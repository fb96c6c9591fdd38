"""Forms and programs once channels are gone, and what can still go of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut.program import Axis, Form, Operation, Program, Shape
from profiler.remains import Remains
from profiler.rewrites import rewritten


def narrow_operations(
    form: Form, remove: Mapping[str, Collection[int]]
) -> tuple[list[Operation], dict[int, Shape], dict[int, NDArray[Any]]]:
    """The form's operations without these choices, with the shapes of its values and its constants."""
    at = Remains(form, remove)
    operations = [rewritten(operation, at) for operation in form.operations]
    return operations, {value: at.shape(value) for value in form.shapes}, at.constants


def narrow_form(form: Form, remove: Mapping[str, Collection[int]]) -> Form:
    """The form without these choices of each group, and what can still go of it."""
    at = Remains(form, remove)
    operations = tuple(rewritten(operation, at) for operation in form.operations)
    axes: dict[int, dict[int, Axis]] = {}
    renewed: dict[int, Axis | None] = {}
    for value, dims in form.axes.items():
        for dimension, axis in dims.items():
            if id(axis) not in renewed:
                renewed[id(axis)] = at.axis(axis, value, dimension)
            left = renewed[id(axis)]
            if left is not None:
                axes.setdefault(value, {})[dimension] = left
    shapes = {value: at.shape(value) for value in form.shapes}
    shapes.update((value, array.shape) for value, array in at.constants.items() if value not in shapes)
    return replace(form, operations=operations, constants=at.constants, shapes=shapes, axes=axes)


def narrow_program(program: Program, remove: Mapping[str, Collection[int]]) -> Program:
    """The program without these choices of each group; choices that stay are counted anew."""
    evaluation = narrow_form(program.evaluation, remove)
    if program.training is program.evaluation or program.training is None:
        return replace(program, evaluation=evaluation, training=evaluation if program.training else None)
    return replace(program, evaluation=evaluation, training=narrow_form(program.training, remove))


def outermost(programs: Sequence[Program]) -> list[Program]:
    """The programs, each module's once, without those that lie inside another's module."""
    by_module = {program.module: program for program in programs}
    return [
        program
        for name, program in by_module.items()
        if not any(other != name and (not other or name.startswith(f"{other}.")) for other in by_module)
    ]


def groups_in(program: Program) -> set[str]:
    """The groups whose channels pass through a program."""
    found: set[str] = set()
    for form in program.forms:
        for axis in {id(axis): axis for dims in form.axes.values() for axis in dims.values()}.values():
            found.update(axis.groups[number] for number in np.unique(axis.group).tolist() if number >= 0)
    return found
