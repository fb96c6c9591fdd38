"""Layers joined to ONNX nodes: on kernels that TensorRT for RTX really logged, with times made up by the test.

What the inspector of classic TensorRT writes has not been seen yet, and no text of it is invented here.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from lut.errors import BackendError
from profiler.backends.interface import BuildSettings, KernelRecord, KernelTensor
from profiler.backends.trt_nodes import GivenNode, join, read_inspector, scale_to
from profiler.backends.trt_opening import read_nodes
from tests.profiler.networks import write_conv_net


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conv_net(tmp_path_factory.mktemp("trt") / "network.onnx", (13, 16), linear=False)


@pytest.fixture(scope="module")
def kernels(network: Path) -> tuple[KernelRecord, ...]:
    pytest.importorskip("tensorrt_rtx")
    from profiler.backends.tensorrt_rtx import TensorRtRtx

    return TensorRtRtx().build(network, network.with_suffix(".engine"), BuildSettings(("8.6",))).kernels


def test_every_logged_kernel_goes_to_a_tensor_of_the_network_and_no_time_is_lost(
    network: Path, kernels: tuple[KernelRecord, ...]
) -> None:
    times = {kernel.name: [1.0 + number, 2.0 + number] for number, kernel in enumerate(kernels)}
    found = join(kernels, times, read_nodes(network))
    outputs = {node.output for node in read_nodes(network)}
    assert [node.name for node in found] == [kernel.name for kernel in kernels]
    assert all(node.origin in outputs for node in found)
    assert sum(sum(node.samples_ms) for node in found) == sum(sum(own) for own in times.values())


def test_a_kernel_of_several_nodes_goes_with_its_contraction(network: Path, kernels: tuple[KernelRecord, ...]) -> None:
    given = read_nodes(network)
    contractions = {node.name: node.output for node in given if node.operation == "Conv"}
    found = dict(zip((kernel.name for kernel in kernels), join(kernels, {}, given), strict=True))
    several = [
        kernel for kernel in kernels if len(kernel.onnx_nodes) > 1 and set(kernel.onnx_nodes) & set(contractions)
    ]
    assert several
    for kernel in several:
        assert found[kernel.name].origin in {contractions.get(name) for name in kernel.onnx_nodes}
        assert found[kernel.name].origin_by == "name"


def test_the_words_for_a_kernel_are_the_same_at_all_widths_that_fuse_alike(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from profiler.backends.tensorrt_rtx import TensorRtRtx

    words = []
    for channels in ((16, 16), (32, 48)):
        path = write_conv_net(tmp_path / f"{channels[1]}.onnx", channels, linear=False)
        kernels = TensorRtRtx().build(path, path.with_suffix(".engine"), BuildSettings(("8.6",))).kernels
        words.append([node.kernel for node in join(kernels, {}, read_nodes(path))])
    assert words[0] == words[1]
    assert any("Conv" in word for word in words[0])


def tensor(name: str) -> KernelTensor:
    return KernelTensor(name, (), "", "")


def test_reformats_go_with_who_reads_them_and_at_the_end_with_who_wrote() -> None:
    layers = (
        KernelRecord("in", "Reformat", (), inputs=(tensor("x"),), outputs=(tensor("x'"),)),
        KernelRecord("a", "Convolution", ("conv_a", "relu_a"), inputs=(tensor("x'"),), outputs=(tensor("t"),)),
        KernelRecord("between", "Reformat", (), inputs=(tensor("t"),), outputs=(tensor("t'"),)),
        KernelRecord("b", "Convolution", ("conv_b",), inputs=(tensor("t'"),), outputs=(tensor("u"),)),
        KernelRecord("out", "Reformat", (), inputs=(tensor("u"),), outputs=(tensor("y"),)),
    )
    given = [GivenNode("conv_a", "Conv", "A"), GivenNode("relu_a", "Relu", "B"), GivenNode("conv_b", "Conv", "y")]
    found = join(layers, {}, given)
    assert [node.origin for node in found] == ["A", "A", "y", "y", "y"]
    assert [node.origin_by for node in found] == ["neighbour", "name", "neighbour", "name", "neighbour"]
    assert found[1].kernel == "Convolution(Conv+Relu)"


def test_two_contractions_in_one_kernel_are_charged_to_the_first_and_seen_in_its_words() -> None:
    layers = (KernelRecord("ab", "Convolution", ("conv_b", "conv_a")),)
    found = join(layers, {}, [GivenNode("conv_a", "Conv", "A"), GivenNode("conv_b", "Conv", "B")])
    assert (found[0].origin, found[0].kernel) == ("A", "Convolution(Conv*2)")


def test_times_that_belong_to_no_layer_are_an_error_and_never_dropped() -> None:
    layer = KernelRecord("a", "Convolution", ("conv",))
    with pytest.raises(BackendError, match="listed never or several times, first 'b'"):
        join([layer], {"b": [1.0]}, [])
    with pytest.raises(BackendError, match="first 'a'"):
        join([layer, layer], {"a": [1.0]}, [])


def test_layers_are_scaled_to_the_whole(network: Path, kernels: tuple[KernelRecord, ...]) -> None:
    nodes = join(kernels, {kernel.name: [0.5] for kernel in kernels}, read_nodes(network))
    scaled, factor = scale_to(nodes, 0.25 * len(kernels))
    assert factor == pytest.approx(0.5)
    assert sum(node.ms for node in scaled) == pytest.approx(0.25 * len(kernels))
    assert sum(sum(node.samples_ms) for node in scaled) == pytest.approx(0.25 * len(kernels))
    with pytest.raises(BackendError, match="no time"):
        scale_to([replace(node, ms=0.0) for node in nodes], 1.0)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}"])
def test_what_is_not_the_inspectors_is_refused(text: str) -> None:
    with pytest.raises(BackendError, match="inspector"):
        read_inspector(text)


def test_an_engine_that_tells_only_names_is_refused() -> None:
    with pytest.raises(BackendError, match="detailed profiling verbosity"):
        read_inspector('{"Layers": ["one", "two"], "Bindings": ["x"]}')


@pytest.mark.parametrize("key", ["Bindings", "I/O Tensors"])
def test_inputs_and_outputs_are_read_under_either_name(key: str) -> None:
    assert read_inspector(f'{{"Layers": [], "{key}": ["x", {{"Name": "y"}}]}}') == ((), ("x", "y"))
