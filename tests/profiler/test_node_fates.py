"""Every node without a kernel falls under a rule that really holds of it, or is unaccounted for."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from profiler.backends.interface import KernelRecord, KernelTensor
from profiler.node_fates import handed_over, hidden_nodes, name_nodes, node_fates


def _graph(nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",)) -> onnx.GraphProto:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    sizes = numpy_helper.from_array(np.array([4, 2], np.int64), "sizes")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(nodes, "g", [given], made, [weight, sizes])


def _node(name: str, kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=name, **attributes)


def test_a_computing_node_that_no_kernel_names_is_unaccounted_for() -> None:
    graph = _graph([_node("product", "MatMul", "x w", "a"), _node("curve", "Relu", "a", "y")])
    assert node_fates(graph, {"product"}) == {"curve": None}
    assert node_fates(graph, {"product", "curve"}) == {}


def test_what_depends_on_weights_alone_is_constant_and_what_nothing_reads_serves_no_output() -> None:
    nodes = [
        _node("turned", "Transpose", "w", "v"),
        _node("product", "MatMul", "x v", "y"),
        _node("lost", "Relu", "y", "nowhere"),
    ]
    assert node_fates(_graph(nodes), {"product"}) == {"turned": "constant", "lost": "serves no output"}


def test_sizes_are_known_while_building() -> None:
    nodes = [
        _node("shape", "Shape", "x", "s"),
        _node("doubled", "Add", "s s", "t"),
        _node("view", "Reshape", "x s", "a"),
        _node("product", "MatMul", "a w", "y"),
        _node("told", "Cast", "t", "z", to=1),
    ]
    found = node_fates(_graph(nodes, ("y", "z")), {"product"})
    assert found == {"shape": "shape", "doubled": "shape", "view": "view", "told": "shape"}


def test_moves_between_kernels_are_theirs_and_a_chain_of_them_too() -> None:
    nodes = [
        _node("first", "MatMul", "x w", "a"),
        _node("view", "Reshape", "a sizes", "b"),
        _node("turn", "Transpose", "b", "c"),
        _node("second", "Relu", "c", "y"),
    ]
    assert node_fates(_graph(nodes), {"first", "second"}) == {"view": "view", "turn": "moved in place"}


def test_taking_known_places_moves_and_looking_up_computes() -> None:
    nodes = [
        _node("first", "MatMul", "x w", "a"),
        _node("taken", "Gather", "a place", "b", axis=0),
        _node("places", "Cast", "x", "p", to=7),
        _node("looked_up", "Gather", "a p", "c", axis=0),
        _node("second", "Relu", "b", "y"),
        _node("third", "Relu", "c", "z"),
    ]
    graph = _graph(nodes, ("y", "z"))
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "place"))
    fates = node_fates(graph, {"first", "places", "second", "third"})
    assert fates == {"taken": "moved in place", "looked_up": None}
    assert hidden_nodes(graph, [["first"], ["second"], ["third"]], {(0, 1), (0, 2)}) == {"looked_up": 2}
    assert node_fates(graph, {"first", "places"})["taken"] is None


def test_a_padding_by_nothing_is_a_view_and_one_by_something_is_not() -> None:
    for amount, fate in ((0, "view"), (1, None)):
        nodes = [
            _node("first", "MatMul", "x w", "a"),
            _node("pad", "Pad", "a pads", "b"),
            _node("second", "Relu", "b", "y"),
        ]
        graph = _graph(nodes)
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, amount], np.int64), "pads"))
        assert node_fates(graph, {"first", "second"}) == {"pad": fate}


def test_a_move_beside_a_node_that_is_unaccounted_for_is_so_itself() -> None:
    nodes = [
        _node("first", "MatMul", "x w", "a"),
        _node("turn", "Transpose", "a", "b"),
        _node("second", "Relu", "b", "y"),
    ]
    assert node_fates(_graph(nodes), {"first"}) == {"turn": None, "second": None}
    assert node_fates(_graph(nodes), {"second"}) == {"first": None, "turn": None}


def test_of_two_nodes_that_compute_the_same_one_kernel_serves_both() -> None:
    nodes = [
        _node("one", "Relu", "x", "a"),
        _node("other", "Relu", "x", "b"),
        _node("unlike", "Sigmoid", "x", "c"),
        _node("sum", "Sum", "a b c", "y"),
    ]
    assert node_fates(_graph(nodes), {"one", "sum"}) == {"other": "merged with its double", "unlike": None}


def test_what_lies_between_two_nodes_of_one_kernel_is_computed_in_it_though_it_is_not_named() -> None:
    nodes = [
        _node("product", "MatMul", "x w", "a"),
        _node("curve", "HardSigmoid", "a", "b"),
        _node("view", "Reshape", "b sizes", "c"),
        _node("square", "Mul", "c c", "d"),
        _node("gate", "Mul", "d x", "e"),
        _node("after", "Relu", "e", "y"),
    ]
    graph = _graph(nodes)
    hidden = hidden_nodes(graph, [["product"], ["product", "gate"]])
    assert hidden == {"curve": 1, "square": 1}
    fates = node_fates(graph, {"product", "gate"}, hidden)
    assert fates == {"curve": "inside a kernel", "view": "view", "square": "inside a kernel", "after": None}
    assert hidden_nodes(graph, [["product"], ["gate"]]) == {}


def test_what_lies_between_two_kernels_that_hand_over_to_each_other_is_computed_in_one_of_them() -> None:
    nodes = [
        _node("product", "MatMul", "x w", "a"),
        _node("curve", "Sigmoid", "a", "b"),
        _node("silu", "Mul", "a b", "c"),
        _node("mean", "ReduceMean", "c", "d"),
        _node("other", "Relu", "x", "e"),
        _node("both", "Add", "d e", "f"),
        _node("last", "Relu", "f", "y"),
    ]
    graph, kernels = _graph(nodes), [["product"], ["mean"], ["last"], ["other"]]
    assert hidden_nodes(graph, kernels, {(0, 1)}) == {"curve": 1, "silu": 1}
    assert hidden_nodes(graph, kernels, {(0, 1), (1, 2)}) == {"curve": 1, "silu": 1}
    assert hidden_nodes(graph, kernels, {(1, 2), (3, 2)}) == {"both": 2}
    assert hidden_nodes(graph, kernels, set()) == {}
    padded = [["product"], ["product"], ["mean"]]
    assert hidden_nodes(graph, padded, {(0, 1), (1, 2)}) == {"curve": 2, "silu": 2}
    assert hidden_nodes(graph, padded, {(1, 2)}) == {}


def _kernel(nodes: str, reads: str, writes: str) -> KernelRecord:
    tensors = [tuple(KernelTensor(name, (1,), "Float", "") for name in names.split()) for names in (reads, writes)]
    return KernelRecord("k", "kgen", tuple(nodes.split()), inputs=tensors[0], outputs=tensors[1])


def test_steps_of_a_recurrence_that_name_no_node_hand_on_what_they_were_given() -> None:
    nodes = [
        _node("before", "MatMul", "x w", "a"),
        _node("recurrent", "GRU", "a w w", "b"),
        _node("after", "Relu", "b", "y"),
    ]
    kernels = [
        _kernel("before", "x", "a"),
        _kernel("", "a", "first all"),
        _kernel("", "a first", "all"),
        _kernel("after", "all", "y"),
    ]
    handed = handed_over(kernels)
    assert handed == {(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}
    assert hidden_nodes(_graph(nodes), [kernel.onnx_nodes for kernel in kernels], handed) == {"recurrent": 3}


def test_a_kernel_that_names_a_node_hands_on_nothing_but_its_own() -> None:
    kernels = [_kernel("one", "x", "a"), _kernel("two", "a", "b"), _kernel("three", "b", "y")]
    assert handed_over(kernels) == {(0, 1), (1, 2)}


def test_nodes_are_put_behind_what_they_read_and_else_stay_where_they_are() -> None:
    nodes = [_node("c", "Relu", "b", "d"), _node("a", "Relu", "x", "a"), _node("b", "Relu", "a", "b")]
    nodes.append(_node("e", "Relu", "x", "y"))
    named = name_nodes(helper.make_model(_graph(nodes)))
    assert [node.name for node in named.graph.node] == ["a", "b", "e", "c"]


def test_nodes_are_given_names_of_their_own_and_those_that_have_one_keep_it() -> None:
    names = ["", "same", "same", "alone [x]", "broken\x1f", "Relu_0"]
    nodes = [_node(name, "Relu", f"v{at}", f"v{at + 1}") for at, name in enumerate(names)]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    named = [node.name for node in name_nodes(model).graph.node]
    assert named[3] == "alone [x]"
    assert named[5] == "Relu_0"
    assert len(set(named)) == len(names)
    assert all(name and name.isprintable() for name in named)
    assert [node.name for node in model.graph.node] == names
