"""TensorRT for RTX compiles with no GPU; what it fused is sorted by node and by unit, padding and all."""

import json
from types import SimpleNamespace

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

from lut.errors import BackendError
from profiler.backends import KernelRecord
from profiler.backends.trt_log import UNREAD
from profiler.compiled_units import fusion_of, node_units, place_units
from profiler.compiler_fusion import FusionSettings, find_padding, paddings, probe_padding, read_fusion
from profiler.fusion_record import Fusion
from profiler.network import analyze
from profiler.node_fates import name_nodes
from profiler.precision.convert import to_precision
from profiler.variants import Variants, prepare
from tests.pruner.networks import GatedNet, ResidualNet

pytest.importorskip("tensorrt_rtx")


class HardGate(GatedNet):
    """A gate whose curve is taken away from its convolution, and computed where the gate is applied."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.depthwise(functional.relu(self.expand(x))))
        gate = functional.hardsigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.project(x * gate).mean((2, 3))


HALF = FusionSettings(precision="fp16")


@pytest.fixture(scope="module")
def residual() -> Variants:
    torch.manual_seed(0)
    return prepare(analyze(ResidualNet().eval(), (torch.randn(1, 3, 16, 16),)))


@pytest.fixture(scope="module")
def gated() -> Variants:
    torch.manual_seed(0)
    return prepare(analyze(HardGate().eval(), (torch.randn(1, 3, 16, 16),)))


def _narrow(variants: Variants, off: int) -> dict[str, int]:
    return {name: max(1, size - off) for name, size in variants.network.widths.items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("off", [0, 1])
def test_every_node_and_every_unit_is_accounted_for_in_any_precision(
    residual: Variants, gated: Variants, precision: str, off: int
) -> None:
    for variants in (residual, gated):
        found = read_fusion(variants, _narrow(variants, off), FusionSettings(precision=precision))  # type: ignore[arg-type]
        assert found.unaccounted == ()
        assert found.covered + len(found.folded) == found.nodes
        assert [unit.name for unit in found.units] == [unit.name for unit in variants.network.units]
        working = [kernel for kernel in found.kernels if kernel.role == "work"]
        assert all(kernel.units for kernel in working)
        assert found.agreeing is not None
        assert found.bearing


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_for_turing_a_network_with_a_linear_layer_is_compiled_as_it_is_deployed(
    residual: Variants, precision: str
) -> None:
    found = read_fusion(residual, residual.network.widths, FusionSettings(("7.5",), precision))  # type: ignore[arg-type]
    assert found.unaccounted == ()
    assert found.units
    assert all(unit.kernels for unit in found.units if unit.operation == "linear")


def test_a_residual_network_is_fused_as_it_was_cut(residual: Variants) -> None:
    found = read_fusion(residual, residual.network.widths, FusionSettings())
    assert found.agreeing == 1.0
    assert found.patterns() == {}


def test_a_gate_shares_its_kernel_and_both_sides_say_so(gated: Variants) -> None:
    found = read_fusion(gated, gated.network.widths, FusionSettings())
    by_name = {unit.name: unit for unit in found.units}
    sharing = [unit for unit in found.units if unit.agreement in {"shared", "spread"}]
    assert sharing
    assert found.agreeing is not None
    assert found.agreeing < 1
    for unit in sharing:
        assert unit.partners
        assert all(unit.name in by_name[partner].partners for partner in unit.partners)
    assert sum(found.patterns().values()) == sum(len(k.units) > 1 for k in found.kernels if k.role == "work")


def test_odd_widths_are_padded_in_fp16_and_even_ones_are_not(residual: Variants) -> None:
    even = {name: width - width % 2 for name, width in residual.network.widths.items()}
    without, with_padding = find_padding(residual, [even, _narrow(residual, 1)], HALF)
    assert {padding.before for padding in without} <= {3}, "the picture's three channels alone"
    assert {(padding.before, padding.after) for padding in with_padding} >= {(5, 6)}
    assert all(padding.units for padding in with_padding)


def test_a_layer_is_padded_to_even_widths_in_fp16(residual: Variants) -> None:
    assert probe_padding("convolution", 62, HALF) == (0, 0)
    assert probe_padding("convolution", 61, HALF) == (0, 1)
    assert probe_padding("linear", 63, HALF) == (1, 0), "the product before it writes a column more"
    with pytest.raises(ValueError, match="no operation 'pooling'"):
        probe_padding("pooling", 64, HALF)


def test_streams_are_counted_on_request_and_hold_every_kernel(residual: Variants) -> None:
    found = read_fusion(residual, residual.network.widths, FusionSettings(streams=True))
    assert sum(found.streams.values()) == len(found.kernels)
    assert 0 in found.streams


def test_conversions_add_nodes_that_belong_to_the_units_beside_them(residual: Variants) -> None:
    plain = name_nodes(residual.at({}))
    half = name_nodes(to_precision(plain, "fp16"))
    before, after = node_units(residual, plain.graph), node_units(residual, half.graph)
    assert {name: after[name] for name in before} == before
    assert {node.name for node in half.graph.node} == set(after)


def test_a_renamed_value_keeps_its_unit_though_the_networks_other_form_has_a_node_of_that_name() -> None:
    def graph(*nodes: tuple[str, str, str]) -> onnx.ModelProto:
        made = [helper.make_node("Relu", [given], [out], name=name) for name, given, out in nodes]
        return helper.make_model(helper.make_graph(made, "g", [], []))

    smaller, full = graph(("one", "x", "a"), ("two", "a", "b")), graph(("two", "x", "w.a"), ("one", "w.a", "w.b"))
    cut = SimpleNamespace(owner={0: 0, 1: 1})
    known = {"a": 0, "b": 1, "w.a": 0, "w.b": 1}
    variants = SimpleNamespace(network=SimpleNamespace(cut=cut), base=smaller, whole=full, value_of=known)
    for model, units in ((smaller, {"one": 0, "two": 1}), (full, {"two": 0, "one": 1})):
        converted = onnx.GraphProto()
        converted.CopyFrom(model.graph)
        converted.node[1].output[0] = "renamed"
        assert node_units(variants, converted) == units  # type: ignore[arg-type]


def test_everything_that_is_told_is_plain_json(gated: Variants) -> None:
    found = read_fusion(gated, gated.network.widths, FusionSettings(streams=True))
    told = json.loads(json.dumps(found.to_json()))
    assert told["nodes_covered"] == found.covered
    assert [unit["name"] for unit in told["units"]] == [unit.name for unit in gated.network.units]
    assert sum(told["agreements"].values()) == len(found.units)
    assert paddings(found) == ()


def test_a_list_that_cannot_be_read_is_an_error_and_no_empty_answer() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    for records in ([], [KernelRecord("Name: new form", UNREAD, ())]):
        with pytest.raises(BackendError, match="list of kernels cannot be read"):
            fusion_of(model, records, None)
    with pytest.raises(BackendError, match="does not have: ghost"):
        fusion_of(model, [KernelRecord("k", "gemm", ("ghost",), 0)], None)


def test_a_unit_without_a_kernel_bears_no_time() -> None:
    units = place_units([], {0: "turn"}, {0: "permute"})
    found = Fusion(0, {}, (), units)
    assert [unit.agreement for unit in units] == ["gone"]
    assert found.bearing == ()
    assert found.agreeing is None
