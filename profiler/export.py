"""Write a network as ONNX with PyTorch's own exporter, and check the file against the module."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lut.errors import LatpruneError
from profiler.collecting import without_collecting
from profiler.export_graph import finish, fold, quiet, tidy
from profiler.folding import drop, fold_norms
from profiler.undisturbed import undisturbed, without_fusing

_CODE = re.compile(r'File "([^"]+)", line (\d+), in \w+\n([^\n]+)')
OUTPUTS_MATCH = 1e-4
"""Largest relative difference of an exported file's outputs from the network's."""


def to_onnx(model: nn.Module, inputs: Sequence[Any], *, free: dict[str, Any] | None = None) -> onnx.ModelProto:
    """Export `model(*inputs)` in eval mode, shapes fixed to those of the inputs, constants and BatchNorm folded.

    Args:
        model: left as it was.
        inputs: positional arguments.
        free: which dimensions are not fixed, by the names of `forward`'s arguments, as `torch.export` takes them.

    Raises:
        LatpruneError: the exporter cannot translate the network; the message is the exporter's.
    """
    found = fold_norms(export_named(model, inputs, free=free))
    return finish(drop(found.model, found.norms), own_names(model))


def export_named(model: nn.Module, inputs: Sequence[Any], *, free: dict[str, Any] | None = None) -> onnx.ModelProto:
    """Export with every parameter under its own name, all else folded, and nodes that do not hang on any width.

    Raises:
        LatpruneError: as `to_onnx`.
    """
    graph = _exported(model, inputs, free)
    fold(graph)
    tidy(graph)
    return onnx_ir.to_proto(graph)


def own_names(model: nn.Module) -> set[str]:
    """Names of all parameters and buffers, shared ones by each of theirs."""
    parameters, buffers = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    return {name for name, _ in parameters} | {name for name, _ in buffers}


def _exported(model: nn.Module, inputs: Sequence[Any], free: dict[str, Any] | None) -> onnx_ir.Model:
    with undisturbed(model), without_fusing(), quiet(), without_collecting():
        model.eval()
        try:
            # The exporter takes a dict at the end for arguments by name; an empty one says that there are none.
            program = torch.onnx.export(
                model, (*inputs, {}), dynamo=True, optimize=False, verbose=False, dynamic_shapes=free
            )
        except Exception as error:
            why = error.__cause__ or error  # the exporter's own words say only in which of its steps it failed
            raise LatpruneError(
                f"PyTorch's exporter cannot write this network as ONNX: {_said(why)}{_place(why)}"
            ) from error
        if program is None:
            raise LatpruneError("PyTorch's exporter gave no ONNX program.")
        return program.model


def _said(error: BaseException) -> str:
    """The first line of an error, with the next where that only announces it."""
    lines = [line.strip("- ") for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _place(error: BaseException) -> str:
    """The line of the network's code that an error of the exporter tells, with what to do about it, or nothing."""
    found = _CODE.findall(str(error).partition("Original traceback:")[2])
    if not found:
        return ""
    file, line, code = found[-1]
    return (
        f" This is line {line} of {file}: {code.strip()}. Write it otherwise in the network, or deploy the part "
        "without it: network(model) in the task names that part (tasks/README.md)."
    )


def write_onnx(proto: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file whole or not at all.

    Raises:
        LatpruneError: the disk is full, or the folder cannot be written to.
    """
    contents = proto.SerializeToString()
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(contents)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise LatpruneError(
            f"{path.name} ({len(contents) / 1e6:.1f} MB) cannot be written into {path.parent}: {error.strerror}. "
            "Make room there; for temporary files TMPDIR names another folder."
        ) from error


def lively(inputs: Sequence[Any], seed: int = 0) -> tuple[Any, ...]:
    """The inputs, with random normal numbers in place of float tensors that are constant.

    Users like to give zeros as example inputs; on these, too much of a network is silent to tell right from wrong.
    """
    generator = torch.Generator().manual_seed(seed)

    def wake(leaf: Any) -> Any:
        if (
            not isinstance(leaf, Tensor)
            or not leaf.dtype.is_floating_point
            or leaf.numel() < 2
            or leaf.min() != leaf.max()
        ):
            return leaf
        return torch.randn(leaf.shape, generator=generator).to(leaf)

    return tuple(tree_map(wake, tuple(inputs)))


def flat_arrays(value: Any) -> list[NDArray[Any]]:
    """The tensors of a nested argument or output, in order, as numpy arrays."""
    return [
        np.ascontiguousarray(leaf.detach().cpu().numpy()) for leaf in tree_leaves(value) if isinstance(leaf, Tensor)
    ]


def output_arrays(model: nn.Module, inputs: Sequence[Any]) -> list[NDArray[Any]]:
    """The network's outputs in eval mode, in the order in which they stand in the ONNX file."""
    with undisturbed(model), torch.no_grad():
        model.eval()
        return flat_arrays(model(*inputs))


def largest_difference(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> float:
    """Largest difference over the largest element of the second, tensor by tensor; infinite where shapes differ."""
    if len(one) != len(other):
        return float("inf")
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.size:
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max() / max(np.abs(b).max(), 1e-12)
            worst = max(worst, float(difference) if np.isfinite(difference) else float("inf"))
    return worst
