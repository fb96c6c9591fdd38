"""What a kernel is there for is told by its name, its nodes and its tensors."""

from pathlib import Path

import pytest

from profiler.backends import KernelRecord, KernelTensor
from profiler.backends.trt_log import LogRecord, read_kernels
from profiler.kernel_roles import Role, padded_sizes, pads_inside, role_of, words

RECORDED = Path(__file__).parent / "backends" / "recorded" / "kernels-rtx-1.7.1.txt"
OPERATIONS = {
    "product": "MatMul",
    "turn": "Transpose",
    "cut": "Slice",
    "cast": "Cast",
    "joined": "Concat",
    "sum": "Add",
}


def _kernel(
    name: str, nodes: str = "", before: tuple[int, ...] = (8, 6), after: tuple[int, ...] = (8, 6), reads: str = "t"
) -> KernelRecord:
    sides = [(KernelTensor(label, shape, "Float", "Linear"),) for label, shape in ((reads, before), ("u", after))]
    return KernelRecord(name, "kgen", tuple(nodes.split()), 0, *sides)


def test_the_roles_in_a_recorded_list_are_those_that_it_was_made_for() -> None:
    kernels = read_kernels([LogRecord("VERBOSE", RECORDED.read_text())])
    operations = {"first[0]": "Conv", "a][b, LayerType: x": "Relu", "second": "Conv"}
    roles = [role_of(kernel, operations, {"x", "y"}) for kernel in kernels]
    assert roles == ["border", "work", "padding", "work", "border"]
    assert padded_sizes(kernels[2]) == (121, 122)


@pytest.mark.parametrize(
    ("kernel", "role"),
    [
        (_kernel("__myl_MoveConc_myl0_3", "product", after=(8, 8)), "padding"),
        (_kernel("__myl_Slic_myl0_3", "product", before=(8, 8)), "padding"),
        (_kernel("__myl_Slic_myl0_3", "cut", before=(8, 8)), "work"),
        (_kernel("__myl_Conc_myl0_3", "joined", after=(16, 6)), "work"),
        (_kernel("__myl_Tran_myl0_3", "turn"), "work"),
        (_kernel("__myl_TranConc_myl0_3", "turn product", after=(8, 8)), "padding"),
        (_kernel("__myl_Tran_myl0_3"), "reformat"),
        (_kernel("__myl_Move_myl0_3", reads="x"), "border"),
        (_kernel("__myl_Cast_myl0_3", "cast", reads="x"), "border"),
        (_kernel("__myl_MulAdd_myl0_3", "sum"), "work"),
        (_kernel("a_node_s_own_name", "product"), "work"),
        (KernelRecord("__mye1_myl0_2", "signal", (), 0), "sync"),
    ],
)
def test_a_kernel_that_only_moves_is_the_compilers_unless_the_network_moves_there(
    kernel: KernelRecord, role: Role
) -> None:
    assert role_of(kernel, OPERATIONS, {"x", "y"}) == role


@pytest.mark.parametrize(
    ("kernel", "pads"),
    [
        (_kernel("__myl_SlicAddConc_myl0_3", "sum", after=(8, 8)), True),
        (_kernel("__myl_SlicReshAdd_myl0_3", "sum", before=(8, 8)), True),
        (_kernel("product_myl0_3", "product", after=(8, 8)), True),
        (_kernel("product_myl0_3", "product", before=(8, 8)), False),
        (_kernel("__myl_ReshMulSlicSlicAdd_myl0_3", "product"), False),
        (_kernel("product_myl0_3", "product", after=(80, 60)), False),
    ],
)
def test_padding_along_the_way_is_seen_by_a_tensor_a_little_larger_than_the_nodes(
    kernel: KernelRecord, pads: bool
) -> None:
    assert pads_inside(kernel, {48, 24}, {48}) == pads


def test_a_padded_tensor_is_seen_though_it_is_as_large_as_another() -> None:
    assert pads_inside(_kernel("product_myl0_3", "product", (8, 8), (8, 8)), {64}, {56})


def test_a_generated_kernels_name_is_read_word_by_word() -> None:
    assert words(_kernel("__myl_MoveConc_myl0_3")) == ("Move", "Conc")
    assert words(_kernel("node_conv2d_myl0_3")) == ()
