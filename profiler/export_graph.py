"""Make an exported graph plain: constants as initialisers, sizes written out, and nothing in it that serves no purpose.

What is left out stems from the way in which PyTorch lays tensors in memory, or does nothing at the widths exported.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from math import prod
from string import ascii_lowercase

import numpy as np
import onnx
import onnx_ir
from onnx_ir.convenience import get_const_tensor
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript import optimizer

KEPT_WHOLE = "latprune.kept"
"""Stands for the domain of nodes that the folding of constants is not to look at."""

BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operations that may take a bias."""

BIAS = 2
"""Which of their inputs it is."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter prints and warns about its own progress; its errors still come through as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fold(model: onnx_ir.Model) -> None:
    """Fold constants but no parameters, in place, so that nodes stay the same ones at any widths."""
    parameters = set(model.graph.initializers)

    def foldable(node: onnx_ir.Node) -> bool | None:
        return False if any(value is not None and value.name in parameters for value in node.inputs) else None

    with _kept_whole(model):
        optimizer.fold_constants(model, should_fold=foldable)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in list(model.graph):
        if node.op_type == "Split" and "num_outputs" in node.attributes:
            _write_sizes(node)
        elif node.op_type == "Slice":
            _write_ends(node)
        elif node.op_type == "Conv":
            _drop_misshapen_bias(node)


def _drop_misshapen_bias(node: onnx_ir.Node) -> None:
    """Leave out the zeros that the exporter gives a convolution of volumes for a bias: two a channel, which is no bias.

    Source:
        `aten_conv3d` in onnxscript 0.7.2: the bias's shape is the number of channels *and* 2.
    """
    given = node.inputs[BIAS] if len(node.inputs) > BIAS else None
    bias = get_const_tensor(given) if given is not None else None
    if bias is not None and len(bias.shape) != 1 and not bias.numpy().any():
        node.resize_inputs(BIAS)


@contextlib.contextmanager
def _kept_whole(model: onnx_ir.Model) -> Iterator[None]:
    """No reshape or expansion of what is computed is left out meanwhile, though it does nothing at these widths."""
    live = {id(value) for value in [*model.graph.inputs, *model.graph.initializers.values()]}
    kept: list[tuple[onnx_ir.Node, str]] = []
    for node in model.graph:
        contents = () if node.op_type in {"Shape", "Size"} else node.inputs[: 1 if node.op_type == "CastLike" else None]
        if any(id(value) in live for value in contents):
            live.update(map(id, node.outputs))
            if node.op_type in {"Reshape", "Expand"} and id(node.inputs[0]) in live:
                kept.append((node, node.domain))
                node.domain = KEPT_WHOLE
    try:
        yield
    finally:
        for node, domain in kept:
            node.domain = domain


def _write_sizes(node: onnx_ir.Node) -> None:
    """Give a split into a number of parts the parts' sizes."""
    lengths = _lengths(node.inputs[0])
    if lengths is None:
        return
    length, parts = lengths[node.attributes.get_int("axis") or 0], len(node.outputs)
    each = -(-length // parts)
    _give(node, 1, [each] * (parts - 1) + [length - each * (parts - 1)])
    node.attributes.pop("num_outputs")


def _write_ends(node: onnx_ir.Node) -> None:
    """Give a slice the places where it begins and ends, counted from the beginning and within what there is."""
    lengths, given = _lengths(node.inputs[0]), [get_const_tensor(value) for value in node.inputs[1:] if value]
    if lengths is None or len(given) != len(node.inputs) - 1 or any(constant is None for constant in given):
        return
    starts, ends, *others = [constant.numpy().tolist() for constant in given if constant is not None]
    axes = others[0] if others else range(len(starts))
    if any(step < 1 for step in (others[1] if len(others) > 1 else ())):
        return
    for position, places in ((1, starts), (2, ends)):
        whole = [lengths[axis] for axis in axes]
        pairs = zip(places, whole, strict=True)
        _give(node, position, [min(max(place + length * (place < 0), 0), length) for place, length in pairs])


def finish(model: onnx.ModelProto, own: Collection[str]) -> onnx.ModelProto:
    """Simplify a graph as it stands at its widths, the way the exporter would: what does nothing at these goes.

    Everything that is measured or deployed passes here last, so that equal networks become equal files. Weights' values
    have no part in it: a bias that is zero before training stays, for it is none afterwards.

    Args:
        model: with all sizes written out; what it tells of shapes is found anew.
        own: names of the network's parameters and buffers.

    Returns:
        Another model; values that are left keep their names.
    """
    graph = onnx_ir.from_proto(model)
    for node in graph.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
    with quiet(), _biases_hidden(graph, own):
        optimizer.optimize(graph)
    tidy(graph)
    return onnx_ir.to_proto(graph)


@contextlib.contextmanager
def _biases_hidden(model: onnx_ir.Model, own: Collection[str]) -> Iterator[None]:
    """No pass sees meanwhile what stands in the network's biases."""
    hidden = {
        value: value.const_value
        for node in model.graph
        for value in (node.inputs if node.op_type == "Add" else node.inputs[BIAS:] if node.op_type in BIASED else ())
        if value is not None and value.name in own and value.const_value is not None
    }
    for value in hidden:
        value.const_value = None
    try:
        yield
    finally:
        for value, content in hidden.items():
            value.const_value = content


def tidy(model: onnx_ir.Model) -> None:
    """Leave out what does nothing, in place.

    A weight is not repeated for each matrix that it is multiplied with, and a tensor whose strides alone are set anew
    (`as_strided`, written as a look-up of every single element) is taken as it is. An einsum's indices become small
    letters, which all runtimes read.
    """
    for node in list(model.graph):
        if node.op_type == "MatMul":
            _multiply_once(node, 0, 1)
            _multiply_once(node, 1, 0)
        elif node.op_type == "Gather":
            _reshape_only(node)
        elif node.op_type == "Einsum":
            _write_small(node)
    optimizer.remove_unused_nodes(model)


def _multiply_once(node: onnx_ir.Node, own: int, other: int) -> None:
    """Take what an expansion repeats, where the product repeats it anyway."""
    source = node.inputs[own]
    made = source.producer() if source is not None else None
    if made is not None and made.op_type == "Reshape" and _lengths(made.inputs[0]) == _lengths(source):
        source = made.inputs[0]  # PyTorch writes a product of batches so: expanded, laid out anew, multiplied
        made = source.producer() if source is not None else None
    if made is None or made.op_type != "Expand":
        return
    before, after, partner = _lengths(made.inputs[0]), _lengths(source), _lengths(node.inputs[other])
    if before and after and partner and len(before) > 1 and before[-2:] == after[-2:] and partner[:-2] == after[:-2]:
        node.replace_input_with(own, made.inputs[0])


def _write_small(node: onnx_ir.Node) -> None:
    """Name an einsum's indices by small letters, from the first; TensorRT takes no capitals."""
    equation = (node.attributes.get_string("equation") or "").replace(" ", "")
    letters = dict.fromkeys(letter for letter in equation if letter.isalpha())
    if len(letters) <= len(ascii_lowercase):
        small = str.maketrans(dict(zip(letters, ascii_lowercase, strict=False)))
        node.attributes["equation"] = onnx_ir.AttrString("equation", equation.translate(small))


def _reshape_only(node: onnx_ir.Node) -> None:
    """Make a look-up of all elements, one after the other, a reshape."""
    flat, places = node.inputs
    index = get_const_tensor(places) if places is not None else None
    made = flat.producer() if flat is not None else None
    if index is None or made is None or made.op_type != "Reshape" or (node.attributes.get_int("axis") or 0):
        return
    sizes, lengths = get_const_tensor(made.inputs[1]) if made.inputs[1] is not None else None, _lengths(made.inputs[0])
    if sizes is None or sizes.numpy().tolist() != [-1] or lengths is None or prod(lengths) != index.size:
        return
    if np.array_equal(index.numpy().reshape(-1), np.arange(index.size)):
        node.op_type = "Reshape"
        node.attributes.pop("axis", None)
        node.replace_input_with(0, made.inputs[0])
        _give(node, 1, list(index.numpy().shape))


def _lengths(value: onnx_ir.Value | None) -> list[int] | None:
    """A value's shape, or None where it is not known."""
    if value is None or value.shape is None:
        return None
    return list(value.shape.numpy()) if value.shape.is_static() else None


def _give(node: onnx_ir.Node, position: int, numbers: list[int]) -> None:
    """Make numbers an input of a node."""
    constant = onnx_ir.tensor(np.asarray(numbers, dtype=np.int64))
    given = onnx_ir.val(f"{node.outputs[0].name}_given_{position}", const_value=constant)
    assert node.graph is not None
    node.graph.register_initializer(given)
    node.resize_inputs(max(len(node.inputs), position + 1))
    node.replace_input_with(position, given)
