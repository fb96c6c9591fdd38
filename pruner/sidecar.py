"""What stands beside a deployed file: all that somebody needs who has the file and nothing else of us."""

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import onnx

from pruner.conversion import Conversion
from pruner.plan import PrunePlan
from pruner.versions import versions

PLAN, RESULT = "plan.json", "result.json"
DRIVERS = {
    "tensorrt-rtx": "an NVIDIA driver for the runtime's CUDA version; none was here to try it with",
    "tensorrt": "the TensorRT version above, and the GPU model that it was built on",
}


def describe(run: Path, model: onnx.ModelProto, conversion: Conversion) -> dict[str, Any]:
    """What is known of a file before it is written: its tensors, precision and accuracy, and the run it is from."""
    inputs, outputs = _tensors(model.graph.input), _tensors(model.graph.output)
    result = _read(run / RESULT)
    after = result.get("after", {})
    converted = conversion.converted
    return {
        "inputs": inputs,
        "outputs": outputs,
        "io_bytes": sum(_size(tensor) for tensor in (*model.graph.input, *model.graph.output)),
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
        "notes": list(conversion.notes),
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
            "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim],
        }
        for value in values
    ]


def _size(value: onnx.ValueInfoProto) -> int:
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return int(prod(dim.dim_value for dim in value.type.tensor_type.shape.dim) * kind.itemsize)


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
