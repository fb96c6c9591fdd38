"""The compiler's list of kernels is read whole, whatever the nodes are called."""

import json
from dataclasses import asdict
from pathlib import Path

from profiler.backends import KernelRecord
from profiler.backends.trt_log import UNREAD, LogRecord, read_kernels

RECORDED = Path(__file__).parent / "recorded" / "kernels-rtx-1.7.1.txt"
"""What TensorRT for RTX 1.7.1.116 wrote of two fp16 convolutions (8 → 121 → 16 channels, a ReLU between) for 8.6."""


def _recorded() -> tuple[KernelRecord, ...]:
    return read_kernels([LogRecord("VERBOSE", RECORDED.read_text()), LogRecord("VERBOSE", "Layers 3")])


def test_every_line_of_the_list_is_a_kernel_and_the_tensors_below_are_none() -> None:
    kernels = _recorded()
    assert [kernel.kind for kernel in kernels] == ["kgen", "correlation", "runtime_function", "correlation", "kgen"]
    assert [kernel.stream for kernel in kernels] == [0] * 5


def test_nodes_are_told_apart_though_their_names_hold_brackets_and_the_lists_own_words() -> None:
    assert [kernel.onnx_nodes for kernel in _recorded()] == [
        (),
        ("first[0]", "a][b, LayerType: x"),
        ("second",),
        ("second",),
        (),
    ]


def test_tensors_come_with_shape_type_and_layout() -> None:
    kernels = _recorded()
    (read,), (written,) = kernels[2].inputs, kernels[2].outputs
    assert (read.shape, written.shape) == ((1, 121, 8, 8), (1, 122, 8, 8))
    assert (written.datatype, written.format) == ("Half", "NHWC")
    assert (kernels[-1].outputs[0].name, kernels[-1].outputs[0].format) == ("y", "Linear")


def test_a_kernel_survives_the_way_through_json() -> None:
    for kernel in _recorded():
        assert KernelRecord.from_json(json.loads(json.dumps(asdict(kernel)))) == kernel


def test_a_line_that_reads_otherwise_is_kept_as_unread() -> None:
    listing = "Layers:\nName: move, Kind: kgen\n" + RECORDED.read_text().removeprefix("Layers:\n")
    kernels = read_kernels([LogRecord("VERBOSE", listing)])
    assert [kernel.kind for kernel in kernels].count(UNREAD) == 1
    assert kernels[0].name == "Name: move, Kind: kgen"
    assert kernels[1:] == _recorded()
