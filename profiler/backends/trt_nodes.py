"""Joins what TensorRT's profiler times to the layers that its inspector lists, and those to the network as given.

A layer tells the ONNX nodes that it became (`Metadata`), several units' at times: then it goes with its contraction, or
else with its first node. Reformatting layers tell none and are charged by their tensors: to who reads them, or else to
who wrote them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lut.errors import BackendError
from profiler.backends.interface import KernelRecord, KernelTensor, NodeTime
from profiler.backends.origins import Origin, spread
from profiler.backends.trt_log import UNREAD, read_metadata
from profiler.robust import midmean

CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "QLinearConv", "QLinearMatMul")
BINDINGS = ("I/O Tensors", "Bindings")
"""Where the inspector lists the engine's inputs and outputs: since TensorRT 11, and before."""


@dataclass(frozen=True)
class GivenNode:
    """A node of the ONNX file: its name, operation and first output."""

    name: str
    operation: str
    output: str


def read_inspector(text: str) -> tuple[tuple[KernelRecord, ...], tuple[str, ...]]:
    """Read an engine's layers, in the order in which they run, and the names of its inputs and outputs.

    Raises:
        BackendError: it is not the inspector's JSON, or was built without detailed verbosity.
    """
    try:
        found = json.loads(text)
        layers = found["Layers"]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise BackendError(f"TensorRT's inspector says nothing that can be read: {text[:200]!r}") from error
    if layers and not any(isinstance(layer, Mapping) for layer in layers):
        raise BackendError(
            "The engine tells only its layers' names: it was built without detailed profiling verbosity."
        )
    listed: Any = next((found[key] for key in BINDINGS if key in found), [])
    names = tuple(_name(item) for item in listed)
    return tuple(_read_layer(layer) for layer in layers), names


def _read_layer(layer: Any) -> KernelRecord:
    if not isinstance(layer, Mapping):
        return KernelRecord(str(layer), UNREAD, ())
    stream = layer.get("StreamId")
    return KernelRecord(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", "")),
        onnx_nodes=read_metadata(str(layer.get("Metadata", ""))),
        stream=int(stream) if stream is not None else None,
        inputs=tuple(_read_tensor(item) for item in layer.get("Inputs", ())),
        outputs=tuple(_read_tensor(item) for item in layer.get("Outputs", ())),
        tactic=str(layer.get("TacticName", "")),
    )


def _read_tensor(item: Any) -> KernelTensor:
    if not isinstance(item, Mapping):
        return KernelTensor(str(item), (), "", "")
    shape = tuple(int(size) for size in item.get("Dimensions", ()))
    layout = str(item.get("Format/Datatype", item.get("Format", "")))
    return KernelTensor(_name(item), shape, str(item.get("Datatype", "")), layout)


def _name(item: Any) -> str:
    return str(item.get("Name", "")) if isinstance(item, Mapping) else str(item)


def join(
    layers: Sequence[KernelRecord], samples_ms: Mapping[str, Sequence[float]], given: Sequence[GivenNode]
) -> list[NodeTime]:
    """Give every layer its times and the tensor of the network as given that it helps to compute.

    Args:
        layers: in the order in which they run.
        samples_ms: one a run, by the layer's name, as the profiler reported them; empty to tell which layers there are.
        given: the ONNX file's nodes, in order.

    Raises:
        BackendError: the profiler timed layers that are not listed, or several by one name.
    """
    counts = Counter(layer.name for layer in layers)
    unknown = [name for name in samples_ms if counts[name] != 1]
    if unknown:
        raise BackendError(
            f"TensorRT's profile and its inspector do not fit together: {len(unknown)} layers that were timed are "
            f"listed never or several times, first {unknown[0]!r}."
        )
    nodes = {node.name: node for node in given}
    origins: list[Origin | None] = [_origin(layer, nodes, [node.name for node in given]) for layer in layers]
    spread(origins, _neighbours(layers))
    times = []
    for layer, origin in zip(layers, origins, strict=True):
        own = tuple(samples_ms.get(layer.name, ()))
        times.append(
            NodeTime(
                name=layer.name,
                op_type=layer.kind,
                inputs=tuple(tensor.name for tensor in layer.inputs),
                outputs=tuple(tensor.name for tensor in layer.outputs),
                ms=midmean(own) if own else 0.0,
                samples_ms=own,
                origin=origin[0] if origin else None,
                origin_by=origin[1] if origin else None,
                kernel=_words(layer, nodes),
            )
        )
    return times


def _origin(layer: KernelRecord, nodes: Mapping[str, GivenNode], order: Sequence[str]) -> Origin | None:
    known = [name for name in order if name in set(layer.onnx_nodes)]
    first = next((name for name in known if nodes[name].operation in CONTRACTIONS), next(iter(known), None))
    return None if first is None else (nodes[first].output, "name")


def _neighbours(layers: Sequence[KernelRecord]) -> list[list[int]]:
    """For each layer those that read what it writes, then those that write what it reads."""
    writers = {tensor.name: place for place, layer in enumerate(layers) for tensor in layer.outputs}
    readers: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        for tensor in layer.inputs:
            readers.setdefault(tensor.name, []).append(place)
    return [
        [place for tensor in layer.outputs for place in readers.get(tensor.name, ())]
        + [writers[tensor.name] for tensor in layer.inputs if tensor.name in writers]
        for layer in layers
    ]


def _words(layer: KernelRecord, nodes: Mapping[str, GivenNode]) -> str:
    """What the layer runs, the same words at all channel counts: its kind and its operations, with their numbers."""
    operations = Counter(nodes[name].operation for name in layer.onnx_nodes if name in nodes)
    parts = [name if count == 1 else f"{name}*{count}" for name, count in sorted(operations.items())]
    return f"{layer.kind}({'+'.join(parts)})" if parts else layer.kind


def scale_to(nodes: Sequence[NodeTime], whole_ms: float) -> tuple[list[NodeTime], float]:
    """Scale times of layers, each of which was watched, so that their sum is the time of the whole, which was not.

    Returns:
        The layers, and the factor.

    Raises:
        BackendError: the layers took no time.
    """
    total = sum(node.ms for node in nodes)
    if total <= 0:
        raise BackendError("TensorRT's profiler told no time of any layer.")
    factor = whole_ms / total
    return [
        replace(node, ms=node.ms * factor, samples_ms=tuple(ms * factor for ms in node.samples_ms)) for node in nodes
    ], factor
