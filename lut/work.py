"""How much work a unit does: multiply-adds, elements read and written, weights, as functions of its channel counts.

What units of one kernel have in common, whatever their shapes: where a surface has few points of its own, these
figures say how its kernel's time goes with the channels elsewhere.
"""

from math import prod

import numpy as np

from lut.records import UnitFamily
from lut.trend import Floats, Ints, solve_non_negative

WORK = ("call", "multiply-adds", "elements read", "elements written", "weights")
"""The columns of `work`."""


def work(family: UnitFamily, channels: Ints) -> Floats:
    """Count the work at channel counts `[m, k]`: `[m, 5]`, columns as in `WORK`."""
    counts = channels.astype(np.float64)
    entering = [_sizes(shape, counts) for shape in family.inputs]
    leaving = [_sizes(shape, counts) for shape in family.outputs]
    read, written = _elements(entering, len(counts)), _elements(leaving, len(counts))
    macs, weights = _contraction(family, entering, leaving)
    return np.stack([np.ones(len(counts)), macs + 0 * read, read, written, weights + 0 * read], axis=1)


def fit_work(design: Floats, ms: Floats) -> Floats:
    """Milliseconds for each kind of work, `[5]`, never negative: least squares on relative errors.

    Args:
        design: `[n, 5]`, as `work` counts it.
        ms: `[n]`, positive.
    """
    scale = np.maximum(design.max(axis=0), 1.0)
    relative = design / scale / ms[:, None]
    weights = np.ones(len(ms))
    solution = np.zeros(design.shape[1])
    for _ in range(3):
        weighted = relative * weights[:, None]
        gram = weighted.T @ relative
        gram += 1e-6 * np.trace(gram) * np.eye(len(gram))
        solution = solve_non_negative(gram, weighted.sum(axis=0))
        misses = np.abs(relative @ solution - 1)
        limit = max(3 * float(np.median(misses)), 1e-3)
        weights = limit / np.maximum(misses, limit)
    return np.asarray(solution / scale, dtype=np.float64)


def _sizes(shape: tuple[int | str, ...], counts: Floats) -> list[Floats]:
    """Each dimension's length `[m]`."""
    return [counts[:, int(size[1:])] if isinstance(size, str) else np.full(len(counts), float(size)) for size in shape]


def _elements(tensors: list[list[Floats]], count: int) -> Floats:
    total = np.zeros(count)
    for sizes in tensors:
        total += prod(sizes, start=np.ones(count))
    return total


def _contraction(
    family: UnitFamily, entering: list[list[Floats]], leaving: list[list[Floats]]
) -> tuple[Floats | float, Floats | float]:
    """Multiply-adds and weights; 0 where the anchor is no contraction."""
    if not entering or not leaving or len(entering[0]) < 2:
        return 0.0, 0.0
    source, target = entering[0], leaving[0]
    settings = dict(family.attributes)
    if family.operation == "convolution" and "kernel" in settings:
        window = float(prod(settings["kernel"]))
        inner = settings.get("part", source[1] / settings.get("groups", 1))
        weights = target[1] * inner * window
        pixels = prod((source if settings.get("transposed") else target)[2:], start=target[0])
        return weights * pixels, weights
    if family.operation in {"linear", "matmul"}:
        rows = prod(target[:-1], start=np.ones_like(target[-1]))
        inner = source[-1] if family.operation == "matmul" else prod(source, start=np.ones_like(rows)) / rows
        return rows * target[-1] * inner, target[-1] * inner
    return 0.0, 0.0
