"""What a compiler keeps of small networks, by hand: which operations fuse, what is copied, and when tensors die."""

from collections.abc import Mapping

from profiler.fusion import Kind, Operation, fuse
from profiler.lifetimes import lifetimes

SAME = dict.fromkeys(range(20), (1, 8, 4, 4))
"""All values of one shape."""


def operation(kind: Kind, inputs: tuple[int, ...], *outputs: int) -> Operation:
    return Operation(kind, inputs, outputs)


def fused(operations: list[Operation], shapes: Mapping[int, tuple[int, ...]] = SAME) -> list[list[int]]:
    return [kernel.operations for kernel in fuse(operations, shapes)]


def spans(
    operations: list[Operation], shapes: Mapping[int, tuple[int, ...]] = SAME, **settings: list[int]
) -> dict[int, tuple[int, int]]:
    return {life.value: (life.first, life.last) for life in lifetimes(operations, shapes, **settings).tensors}


def test_a_convolution_takes_its_norm_its_activation_and_the_sum() -> None:
    block = [
        operation("contraction", (0,), 1),
        operation("norm", (1,), 2),
        operation("pointwise", (2,), 3),
        operation("contraction", (3,), 4),
        operation("pointwise", (4, 0), 5),
    ]
    assert fused(block) == [[0, 1, 2], [3, 4]]


def test_the_last_operand_takes_a_sum_and_where_there_are_norms_the_first() -> None:
    plain = [operation("contraction", (0,), 1), operation("contraction", (0,), 2), operation("pointwise", (1, 2), 3)]
    assert fused(plain) == [[0], [1, 2]]
    assert spans(plain, leaving=[3]) == {1: (2, 4)}
    normed = [
        operation("contraction", (0,), 1),
        operation("norm", (1,), 2),
        operation("contraction", (0,), 3),
        operation("norm", (3,), 4),
        operation("pointwise", (2, 4), 5),
    ]
    assert fused(normed) == [[0, 1, 4], [2, 3]]
    assert spans(normed, leaving=[5]) == {4: (2, 4)}


def test_a_value_that_others_read_too_is_kept() -> None:
    assert fused([operation("contraction", (0,), 1), operation("pointwise", (1,), 2), operation("norm", (1,), 3)]) == [
        [0],
        [1],
        [2],
    ]


def test_a_sum_with_a_smaller_operand_joins_no_convolution() -> None:
    gate = [operation("contraction", (0,), 1), operation("pointwise", (1, 5), 2)]
    assert fused(gate, {**SAME, 1: (1, 8, 1, 1)}) == [[0], [1]]


def test_a_mean_takes_the_norm_and_what_follows_from_the_convolution() -> None:
    squeeze = [
        operation("contraction", (0,), 1),
        operation("norm", (1,), 2),
        operation("pointwise", (2,), 3),
        operation("mean", (3,), 4),
        operation("contraction", (4,), 5),
        operation("pointwise", (3, 5), 6),
    ]
    shapes = {**SAME, 4: (1, 8, 1, 1), 5: (1, 8, 1, 1)}
    assert fused(squeeze, shapes) == [[0], [1, 2, 3], [4], [5]]
    assert spans(squeeze, shapes, leaving=[6]) == {1: (2, 4), 3: (4, 8), 4: (4, 6), 5: (6, 8)}


def test_a_mean_takes_a_curve_but_leaves_a_convolution_its_relu() -> None:
    for kind, kernels in (("curve", [[0], [1, 2]]), ("pointwise", [[0, 1], [2]])):
        network = [operation("contraction", (0,), 1), operation(kind, (1,), 2), operation("mean", (2,), 3)]
        assert fused(network) == kernels


def test_a_concatenation_is_written_in_place_unless_it_is_computed_with() -> None:
    branches = [operation("contraction", (0,), 1), operation("contraction", (1,), 2), operation("join", (1, 2), 3)]
    assert spans([*branches, operation("contraction", (3,), 4)], leaving=[4]) == {3: (2, 6)}
    normed = [*branches, operation("norm", (3,), 4), operation("contraction", (4,), 5)]
    assert spans(normed, leaving=[5]) == {1: (2, 6), 2: (4, 6), 4: (6, 8)}


def test_a_concatenation_lives_from_the_first_of_parts_that_nobody_else_reads() -> None:
    fire = [
        operation("contraction", (0,), 1),
        operation("contraction", (1,), 2),
        operation("contraction", (1,), 3),
        operation("join", (2, 3), 4),
        operation("contraction", (4,), 5),
    ]
    assert spans(fire, leaving=[5]) == {1: (2, 6), 4: (4, 8)}


def test_contractions_and_they_alone_need_a_workspace() -> None:
    chain = [
        operation("contraction", (0,), 1),
        operation("pool", (1,), 2),
        operation("generated", (2,), 3),
        operation("contraction", (3,), 4),
        operation("pointwise", (4, 3), 5),
    ]
    assert lifetimes(chain, SAME, leaving=[5]).contractions == (2, 8)
    attended = [operation("product", (0, 1), 2), operation("row", (2,), 3), operation("product", (3, 1), 4)]
    assert lifetimes(attended, SAME, leaving=[4]).contractions == (2, 6)


def test_a_sum_with_what_lies_elsewhere_is_copied_into_the_concatenation() -> None:
    chain = [
        operation("contraction", (0,), 1),
        operation("contraction", (1,), 2),
        operation("pointwise", (2, 1), 3),
        operation("contraction", (3,), 4),
        operation("pointwise", (4, 3), 5),
        operation("join", (3, 5), 6),
        operation("contraction", (6,), 7),
    ]
    assert spans(chain, leaving=[7]) == {1: (2, 4), 3: (4, 5), 6: (5, 8)}


def test_parts_are_copied_out_right_before_they_are_read() -> None:
    parted = [
        operation("contraction", (0,), 1),
        operation("split", (1,), 2, 3),
        operation("contraction", (2,), 4),
        operation("contraction", (3,), 5),
        operation("contraction", (4, 5), 6),
    ]
    assert spans(parted, leaving=[6]) == {1: (2, 5), 2: (5, 6), 3: (3, 4), 4: (6, 8), 5: (4, 8)}


def test_what_is_not_needed_yet_runs_later() -> None:
    late = [
        operation("contraction", (0,), 1),
        operation("contraction", (0,), 2),
        operation("library", (2,), 3),
        operation("library", (1,), 4),
    ]
    assert spans(late, leaving=[3, 4]) == {2: (2, 4), 1: (6, 8)}


def test_inputs_and_outputs_in_another_layout_are_copied() -> None:
    chain = [operation("contraction", (0,), 1), operation("contraction", (1,), 2)]
    assert spans(chain, entering=[0], leaving=[2], turned=[2]) == {0: (0, 2), 1: (2, 4), 2: (4, 5)}
    assert spans(chain, leaving=[2]) == {1: (2, 4)}
    pool = [operation("pool", (0,), 1)]
    assert spans(pool, entering=[0], leaving=[1], turned=[1]) == {0: (0, 2), 1: (2, 3)}


ROWS = dict.fromkeys(range(20), (1, 8, 16))


def test_a_layer_norm_makes_the_sum_before_it_too_unless_a_product_does() -> None:
    step = [operation("product", (0,), 1), operation("pointwise", (1, 9), 2), operation("row", (2,), 3)]
    step += [operation("product", (3,), 4), operation("pointwise", (4, 2), 5)]
    assert fused(step, ROWS) == [[0, 1], [2], [3, 4]]
    turned = [step[0], Operation("pointwise", (1, 9), (2,), turned=(1,)), *step[2:]]
    assert fused(turned, ROWS) == [[0], [1, 2], [3, 4]]
    assert fused(step, SAME) == [[0], [1, 2], [3], [4]]  # pictures: no product takes a sum of them


def test_what_moves_rows_after_a_norm_runs_apart_and_before_one_with_it() -> None:
    moved = [operation("move", (0,), 1), operation("row", (1,), 2), operation("move", (2,), 3)]
    assert fused(moved, ROWS) == [[0, 1], [2]]


def test_queries_keys_and_values_are_picked_by_one_kernel() -> None:
    picked = [operation("product", (0,), 1), operation("move", (1,), 2)]
    picked += [operation("pick", (2,), 3 + part) for part in range(3)]
    picked += [operation("move", (4,), 6), operation("product", (3, 6), 7), operation("product", (7, 5), 8)]
    assert fused(picked, ROWS) == [[0], [1, 2, 3, 4, 5], [6], [7]]
    split = [picked[0], operation("split", (1,), 3, 4, 5), *picked[5:]]
    assert spans(split, ROWS, leaving=[8]) == {1: (2, 4), 3: (4, 6), 6: (4, 6), 5: (4, 8), 7: (6, 8)}


def test_large_keys_are_turned_by_a_kernel_of_their_own() -> None:
    picked = [operation("product", (0,), 1), operation("move", (1,), 2)]
    picked += [operation("pick", (2,), 3), operation("pick", (2,), 4), operation("turn", (4,), 5)]
    assert fused(picked, dict.fromkeys(range(20), (2, 49, 704))) == [[0], [1, 2, 3, 4]]  # 68,992 elements
    assert fused(picked, dict.fromkeys(range(20), (64, 49, 32))) == [[0], [1, 2, 3], [4]]


def test_products_of_one_tensor_run_as_one_and_stand_until_the_last_is_read() -> None:
    apart = [operation("product", (0,), 1), operation("product", (0,), 2), operation("curve", (1,), 3)]
    apart += [operation("product", (3,), 4), operation("curve", (2, 4), 5)]
    found = spans(apart, ROWS, leaving=[5])
    assert found[1] == found[2] == (2, 6)
    assert lifetimes(apart, ROWS, leaving=[5]).contractions == (2, 6)


def test_a_roll_by_slices_is_one_kernel() -> None:
    rolled = [operation("row", (0,), 1), operation("pick", (1,), 2), operation("pick", (1,), 3)]
    rolled += [operation("join", (3, 2), 4), operation("pick", (4,), 5), operation("pick", (4,), 6)]
    rolled += [operation("join", (6, 5), 7), operation("product", (7,), 8)]
    assert fused(rolled, ROWS) == [[0], [1, 2, 3, 4, 5, 6], [7]]


def test_what_gates_one_part_by_what_another_became_joins_no_kernel_that_it_waits_for() -> None:
    gated = [operation("move", (0,), 1), operation("pick", (1,), 2), operation("pick", (1,), 3)]
    gated += [operation("pool", (3,), 4), operation("generated", (2, 4), 5)]
    assert fused(gated, ROWS) == [[0, 1, 2], [3], [4]]
