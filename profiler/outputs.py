"""The tensors in a network's output, and how far two outputs lie apart."""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def tensors_of(output: Any) -> list[Tensor]:
    """Every tensor in a nested output, looking also into plain objects' attributes."""
    found: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module | type) and not callable(leaf):
            found.extend(tensors_of(list(vars(leaf).values())))
    return found


def relative_difference(one: Any, other: Any) -> float:
    """Largest difference between two outputs' tensors over the largest element; infinite where shapes differ."""
    worst = 0.0
    first, second = tensors_of(one), tensors_of(other)
    if len(first) != len(second):
        return float("inf")
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if not a.numel() or not a.dtype.is_floating_point:
            continue
        scale = max(float(b.abs().max()), 1e-12)
        difference = float((a.double() - b.double()).abs().max()) / scale
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst
