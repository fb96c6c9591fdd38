"""What a compiled kernel is there for: the network's work, or padding, layouts and borders that the compiler adds.

Generated kernels bear what they do in their names, a word of four letters each: `__myl_MoveConc_myl0_3` moves and
concatenates. One that only moves data, on behalf of a node that computes, is the compiler's own addition.
"""

import re
from collections.abc import Collection, Mapping
from math import prod
from typing import Literal

from profiler.backends.interface import KernelRecord, KernelTensor

Role = Literal["work", "padding", "border", "reformat", "sync"]
"""work: computes nodes of the network, or moves what they move.
padding: makes a tensor larger, or smaller again, that the network has at another size.
border: turns an input or output of the network into another layout or type.
reformat: the same inside, copies included.
sync: keeps two streams in step; no kernel at all.
"""
SYNC = frozenset({"signal", "wait"})
MOVING_WORDS = frozenset("Move Tran Resh Conc Slic Cast".split())
RESIZING_WORDS = frozenset("Conc Slic".split())
MOVING_NODES = frozenset(
    "Transpose Reshape Squeeze Unsqueeze Flatten Identity Expand Concat Split Slice Gather GatherND GatherElements Pad "
    "Tile DepthToSpace SpaceToDepth Cast CastLike ScatterND ScatterElements Resize Upsample".split()
)
RESIZING_NODES = MOVING_NODES - frozenset(
    "Transpose Reshape Squeeze Unsqueeze Flatten Identity Cast CastLike DepthToSpace SpaceToDepth".split()
)
MOST_ADDED = 31
"""Most that padding adds to a dimension; int8 wants multiples of 32 at most."""
_GENERATED = re.compile(r"__myl_((?:[A-Z][a-z]*)+)")


def words(kernel: KernelRecord) -> tuple[str, ...]:
    """What a generated kernel's name says that it does; empty for a library's."""
    match = _GENERATED.match(kernel.name)
    return () if match is None else tuple(re.findall("[A-Z][a-z]*", match[1]))


def role_of(kernel: KernelRecord, operations: Mapping[str, str], borders: Collection[str]) -> Role:
    """Tell what a kernel is there for.

    Args:
        kernel: with its tensors.
        operations: the ONNX operation of each node that is not computed once from constants.
        borders: names of the network's inputs and outputs.
    """
    if kernel.kind in SYNC:
        return "sync"
    said = words(kernel)
    if not said or not set(said) <= MOVING_WORDS:
        return "work"
    types = {operations[name] for name in kernel.onnx_nodes if name in operations}
    if types and types <= MOVING_NODES - {"Cast"}:
        return "work"
    if _resizes(kernel) and not types & RESIZING_NODES:
        return "padding"
    if types & (MOVING_NODES - {"Cast"}):
        return "work"
    return "border" if any(tensor.name in borders for tensor in kernel.inputs + kernel.outputs) else "reformat"


def pads_inside(kernel: KernelRecord, reads: Collection[int], writes: Collection[int]) -> bool:
    """Whether a kernel that computes also pads: it writes a tensor a little larger than its nodes do.

    A library's product writes more columns than there are, at no kernel's cost; a generated kernel pads, or cuts
    padding off that it reads.

    Args:
        kernel: one that works.
        reads: numbers of elements of the values that its nodes read.
        writes: of those that they write.
    """
    cuts = bool(set(words(kernel)) & RESIZING_WORDS)
    wider = any(_is_padded(tensor, writes) for tensor in kernel.outputs)
    return wider or (cuts and any(_is_padded(tensor, reads) for tensor in kernel.inputs))


def _is_padded(tensor: KernelTensor, counts: Collection[int]) -> bool:
    """Whether there is no value of this size, but one with a few less along one dimension."""
    count = prod(tensor.shape)
    smaller = (count // size * (size - few) for size in tensor.shape for few in range(1, min(size, MOST_ADDED + 1)))
    return count not in counts and any(one in counts for one in smaller)


def padded_sizes(kernel: KernelRecord) -> tuple[int, int] | None:
    """The size that a padding kernel finds, and the one that it leaves, where one dimension tells."""
    if len(kernel.inputs) != 1 or not kernel.outputs:
        return None
    before, after = kernel.inputs[0].shape, kernel.outputs[0].shape
    changed = [pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]]
    return changed[0] if len(before) == len(after) and len(changed) == 1 else None


def _resizes(kernel: KernelRecord) -> bool:
    return _elements(kernel.inputs) != _elements(kernel.outputs)


def _elements(tensors: Collection[KernelTensor]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)
