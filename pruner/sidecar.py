"""What stands beside a deployed file: all that somebody needs who has the file and nothing else of us."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import onnx

from pruner.conversion import Conversion
from pruner.free_batch import FreeBatch
from pruner.plan import PrunePlan
from pruner.versions import versions

PLAN, RESULT = "plan.json", "result.json"
DRIVERS = {
    "tensorrt-rtx": "an NVIDIA driver for the runtime's CUDA version; none was here to try it with",
    "tensorrt": "the TensorRT version above, and the GPU model that it was built on",
}


def describe(
    run: Path, model: onnx.ModelProto, conversion: Conversion, free: FreeBatch | None = None
) -> dict[str, Any]:
    """What is known of a file before it is written: its tensors, precision and accuracy, and the run it is from.

    Latency and the bytes of inputs and outputs are those at the batch that a file with a free one is best at; free
    dimensions are -1 in `inputs` and `outputs`.
    """
    result = _read(run / RESULT)
    after, notes = result.get("after", {}), list(conversion.notes)
    converted = conversion.converted
    if free is not None and free.batches[1] != free.example:
        after = {}
        notes.append(f"The run's latency is that of a batch of {free.example}, so none is told for {free.batches[1]}.")
    return {
        "inputs": _tensors(model.graph.input),
        "outputs": _tensors(model.graph.output),
        "batch": None if free is None else free.to_json(),
        "io_bytes": io_bytes(model, None if free is None else free.shapes[free.batches[1]]),
        "precision": converted.precision,
        "remainder": converted.remainder,
        "kept_fp32": [{"node": kept.node, "because": kept.because} for kept in converted.kept],
        "rewritten": list(conversion.rewritten),
        "accuracy": {
            "before": dict(conversion.before) if conversion.before else None,
            "after": dict(conversion.after) if conversion.after else None,
            "difference": conversion.difference,
            "compared_on": conversion.compared_on,
        },
        "notes": notes,
        "predicted_ms": after.get("predicted_ms"),
        "measured_ms": after.get("measured_ms"),
        "measured_with": result.get("fingerprint"),
        "plan": _plan(run / PLAN),
        "versions": versions(),
    }


def needs(backend: str, version: str | None, compute_capabilities: tuple[str, ...]) -> dict[str, Any]:
    """What a file needs where it runs."""
    return {
        "runtime": backend,
        "runtime_version": version,
        "compute_capabilities": list(compute_capabilities),
        "driver": DRIVERS.get(backend),
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(values: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": value.name,
            "type": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
            "shape": [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim],
        }
        for value in values
    ]


def io_bytes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> int:
    """Bytes of a file's inputs and outputs, of these shapes where its own are not fixed."""
    total = 0
    for value in (*model.graph.input, *model.graph.output):
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        own = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        total += int(prod(own if shapes is None else shapes[value.name]) * kind.itemsize)
    return total


def _plan(path: Path) -> Mapping[str, Any] | None:
    """The plan's hash and what is left of each group; the plan itself stays in the run."""
    if not path.is_file():
        return None
    plan = PrunePlan.read(path)
    return {
        "sha256": hash_file(path),
        "network_hash": plan.network_hash,
        "widths": {name: len(kept) for name, kept in plan.kept.items()},
        "removed_blocks": list(plan.removed_blocks),
    }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
