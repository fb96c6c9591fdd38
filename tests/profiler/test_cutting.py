"""What joins what: across views, before attention, around norms; and what does not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lut.records import Unit, full_widths
from profiler.backends import BACKENDS
from profiler.compiler_fusion import FusionSettings, read_fusion
from profiler.forms import compile_forms
from profiler.fusion_record import AGREES
from profiler.groups import read_structure
from profiler.network import analyze
from profiler.units import cut_units
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from tests.profiler.attention_blocks import Fused, Mlp, Peeping, Shuffle, WrittenOut, encoder
from tests.profiler.test_units import shapes

TOKENS = (1, 5, 8)
TIMING = [backend.name for backend in BACKENDS if "times nodes" in backend.status().abilities]


def units_of(model: nn.Module, *shape: int) -> dict[str, Unit]:
    torch.manual_seed(0)
    return {unit.name: unit for unit in cut_units(read_structure(model.eval(), (torch.randn(*shape),))).units}


def test_what_follows_a_linear_layer_on_tokens_joins_it_across_the_view() -> None:
    units = units_of(Mlp(), *TOKENS)
    assert list(units) == ["norm:layer_norm", "first", "second"]
    assert units["first"].family.followers == ("gelu",)
    assert units["first"].family.outputs == ((1, 5, "c0"),)
    assert units["second"].family.followers == ("mul", "add")


def test_a_view_that_repeats_elements_is_no_place_to_follow() -> None:
    class Repeated(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(super().forward(x).view(1, 5).expand(3, 5))

    assert [unit.family.followers for unit in units_of(Repeated(8, 5), 1, 8).values()] == [(), ()]


def test_elements_in_another_order_are_no_place_to_follow() -> None:
    class Strided(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(super().forward(x).as_strided((4, 4), (1, 4)))

    class Turned(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(super().forward(x).transpose(0, 1))

    for model in (Strided(8, 4), Turned(8, 4)):
        linear, other = units_of(model, 4, 8).values()
        assert (linear.family.operation, linear.family.followers) == ("linear", ())
        assert "relu" in other.family.followers or other.family.operation == "elementwise"


def test_one_step_that_reads_a_value_through_two_views_joins_if_both_show_it_in_place() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            made = super().forward(x)
            return made.view(2, 2, 4) * made.view(4, 4).view(2, 2, 4)

    assert [unit.family.followers for unit in units_of(Doubled(8, 4), 4, 8).values()] == [("mul",)]


@pytest.mark.parametrize(
    ("model", "operation", "before"),
    [
        (WrittenOut(), "matmul", {"permute", "unbind", "mul", "transpose"}),
        (Fused(), "scaled_dot_product_attention", {"permute", "unbind"}),
    ],
)
def test_attention_is_one_unit_with_what_splits_heads_off(model: nn.Module, operation: str, before: set[str]) -> None:
    units = units_of(model, *TOKENS)
    assert [unit.family.operation for unit in units.values()] == ["linear", operation, "linear"]
    attention = list(units.values())[1]
    assert attention.family.followers[-1] == "transpose", "heads are put together again"
    assert set(dict(attention.family.attributes)["before"]) == before


def test_attention_that_is_written_out_has_both_products_in_its_unit() -> None:
    structure = read_structure(WrittenOut().eval(), (torch.randn(*TOKENS),))
    attention = cut_units(structure).units[1]
    assert attention.family.followers == ("add", "softmax", "bmm", "transpose")
    assert attention.macs(full_widths(structure.groups)) == 2 * (2 * 5 * 5 * 4)


def test_heads_that_others_read_are_split_off_apart() -> None:
    units = units_of(Peeping(), *TOKENS)
    assert [unit.family.operation for unit in units.values()] == [
        "linear",
        "split",
        "transpose",
        "scaled_dot_product_attention",
        "linear",
    ]
    attention = next(unit for unit in units.values() if unit.family.operation == "scaled_dot_product_attention")
    assert dict(attention.family.attributes)["before"] == ("transpose", "transpose")


def test_a_norm_joins_what_makes_its_sum_and_takes_moves_with_it() -> None:
    behind, before = (units_of(encoder(norm_first=first), 1, 5, 16) for first in (False, True))
    assert behind["0.linear2"].family.followers == ("add", "layer_norm"), "who else reads the result gets it unturned"
    assert before["0.linear2"].family.followers == ("add", "layer_norm", "transpose")
    assert before["1.linear2"].family.followers == ("add",)
    assert before["0.norm1:layer_norm"].family.followers == ("transpose",)
    assert before["0.linear2"].family.outputs == ((1, 5, 16), (5, 1, 16)), "the residual branch reads the sum, too"


def test_a_norm_takes_a_sum_that_no_product_computes_and_the_residual_branch_still_gets_it() -> None:
    torch.manual_seed(0)
    found = cut_units(read_structure(encoder(norm_first=True).eval(), (torch.randn(1, 5, 16),)))
    number, norm = next((at, unit) for at, unit in enumerate(found.units) if unit.name == "0.norm2:layer_norm")
    assert dict(norm.family.attributes)["before"] == ("transpose", "add")
    assert len(norm.family.outputs) == 2
    passed = [tensor for tensor in found.liveness.activations if tensor.first == number]
    assert sorted(tensor.last for tensor in passed) == [number + 1, number + 2]


def test_moves_between_convolutions_are_one_unit() -> None:
    units = units_of(Shuffle(), 1, 4, 8, 8)
    assert [unit.family.operation for unit in units.values()] == [
        "convolution",
        "convolution",
        "cat",
        *["convolution"] * 2,
    ]
    shuffle = list(units.values())[2]
    assert shuffle.family.followers == ("transpose", "split")
    assert dict(shuffle.family.attributes)["moves"] == (("transpose", 1, 2),)


def test_softmax_behind_a_linear_layer_is_no_attention() -> None:
    units = units_of(nn.Sequential(nn.Linear(8, 4), nn.Softmax(-1)), *TOKENS)
    assert [unit.family.operation for unit in units.values()] == ["linear", "softmax"]


@pytest.mark.parametrize(
    ("make", "full", "kept", "shape"),
    [
        (WrittenOut, 4, 3, TOKENS),
        (Fused, 4, 2, TOKENS),
        (lambda inner: Mlp(8, inner), 12, 5, TOKENS),
        (Shuffle, 6, 4, (1, 4, 8, 8)),
        (lambda inner: encoder(inner, norm_first=True), 24, 7, (1, 5, 16)),
        (lambda inner: encoder(inner, norm_first=False), 24, 7, (1, 5, 16)),
    ],
    ids=["written out", "fused", "mlp", "shuffle", "pre-norm", "post-norm"],
)
def test_a_smaller_block_has_the_units_that_were_predicted_for_it(
    make: Callable[[int], nn.Module], full: int, kept: int, shape: tuple[int, ...]
) -> None:
    inputs = (torch.randn(*shape),)
    structure, smaller = (read_structure(make(number).eval(), inputs) for number in (full, kept))
    found, sizes = cut_units(smaller), full_widths(smaller.groups)
    planned, before = cut_units(structure), full_widths(structure.groups)
    widths = {name: sizes[name] for name in before}
    assert widths != before
    for one, other in zip(planned.units, found.units, strict=True):
        assert one.name == other.name
        assert shapes(one, widths) == shapes(other, sizes), one.name
        assert one.macs(widths) == pytest.approx(other.macs(sizes)), one.name
        assert one.family == other.family
    assert planned.liveness.at(widths) == found.liveness.at(sizes)


TOGETHER = {True: ("0.linear2", "1.norm2:layer_norm"), False: ("0.linear2", "1.self_attn:transpose")}
"""By `norm_first`, the units of the encoder that TensorRT for RTX (1.7.1) runs in one kernel, against the cut.

The first layer's last sum: the norm that it goes into takes the second layer's residual sum along; and the tokens are
turned for the second layer's attention.
"""


@pytest.mark.parametrize("norm_first", [True, False])
def test_every_unit_of_a_transformer_has_kernels_of_its_own_in_each_runtime(*, norm_first: bool) -> None:
    torch.manual_seed(0)
    network = analyze(encoder(norm_first=norm_first).eval(), (torch.randn(2, 5, 16),))
    variants = prepare(network)
    for backend in TIMING:
        with WorkerClient(backend) as client:
            forms = compile_forms(variants, network.widths, client)
        assert [name for name, form in forms.items() if form == ("merged",)] == [], backend
    pytest.importorskip("tensorrt_rtx")
    for precision in ("fp32", "fp16"):
        found = read_fusion(variants, network.widths, FusionSettings(precision=precision))  # type: ignore[arg-type]
        assert found.unaccounted == ()
        others = {unit.name: unit.partners for unit in found.bearing if unit.agreement not in AGREES}
        first, second = TOGETHER[norm_first]
        assert others == {first: (second,), second: (first,)}, precision
