"""Run a network once and write down every ATen operation as it runs: the record that units and groups are read from.

While it is traced, no tensor asks for gradients and the fused attention path is switched off, so that attention shows
its single operations. Parameters and buffers appear by their qualified names; modes, buffers and random generators are
put back.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from lut.errors import LatpruneError
from lut.program import Ref as Ref
from lut.records import short_hash

KEPT_INTEGERS = 1 << 20
"""Integer and boolean tensors up to this many elements keep their values in the trace (they may be indices)."""

KEPT_CONSTANTS = 1 << 12
"""Tensors that the code holds outside of parameters and buffers keep their values up to this many elements."""


@dataclass(frozen=True)
class Opaque:
    """Stands for an argument that is neither a tensor nor a plain value."""

    kind: str


@dataclass(frozen=True)
class Value:
    """A tensor that stood in the run.

    Attributes:
        shape, dtype: of the tensor.
        storage: number of its memory; views and in-place results share their source's.
        name: qualified name of a parameter or buffer, else None.
        trainable: it is a parameter.
        is_input: the network was given it.
        from_input: it depends on what the network was given.
        data: the elements of a small integer or boolean tensor, else None.
        constant: the elements of a small tensor of any type that the code holds outside of parameters, else None.
        print: a few numbers made of a float tensor's elements, by which it is known again elsewhere, or None.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int
    name: str | None = None
    trainable: bool = False
    is_input: bool = False
    from_input: bool = False
    data: Tensor | None = None
    constant: Tensor | None = None
    print: tuple[float, ...] | None = None

    @property
    def bytes(self) -> int:
        """Size of the tensor, dense."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Step:
    """One ATen operation: its arguments with tensors as `Ref`, what it made, and the modules that were running.

    `grad` tells whether the code let gradients flow there.
    """

    operation: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    modules: tuple[str, ...]
    grad: bool = True

    @property
    def name(self) -> str:
        """The operation's name without namespace and overload: "convolution"."""
        return str(self.operation.overloadpacket.__name__)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The tensors read, in the arguments' order."""
        leaves = tree_leaves((self.args, dict(self.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref))
        return tuple(leaf.index for leaf in leaves if isinstance(leaf, Ref))

    @property
    def module(self) -> str:
        """The innermost module that was running."""
        return self.modules[-1] if self.modules else ""

    @property
    def in_place(self) -> bool:
        """Whether the operation writes into its first argument."""
        return self.name.endswith("_") and not self.name.endswith("__")


@dataclass(frozen=True)
class Call:
    """One run of a module.

    Attributes:
        module: its name.
        first, last: the steps that ran meanwhile, the last one exclusive.
        args, kwargs, output: as given and returned, with tensors as `Ref` and what is not plain as `Opaque`.
    """

    module: str
    first: int
    last: int
    args: Any
    kwargs: Any
    output: Any


@dataclass(frozen=True)
class Trace:
    """The run: values and steps in order, and which values went in and came out."""

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    unseen: tuple[str, ...] = field(default=())
    """Parameters of the model that no step read."""
    calls: tuple[Call, ...] = field(default=(), repr=False)
    """Runs of modules, in the order in which they ended."""
    running: str | None = None
    """The innermost module that was running when the network failed, or None."""

    @property
    def network_hash(self) -> str:
        """A hash of the structure and the shapes, but not of the weights."""
        steps = [
            [str(step.operation), repr(step.args), repr(sorted(step.kwargs.items())), list(step.outputs)]
            for step in self.steps
        ]
        named = [[value.name, list(value.shape)] for value in self.values if value.name]
        return short_hash([steps, named, [list(self.values[index].shape) for index in self.inputs]])


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and random generators back at the end, whatever happens between."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for buffer, saved in buffers:
                    if buffer.shape == saved.shape:
                        buffer.copy_(saved)


@contextlib.contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients: activations are freed as in a plain run, and yet `no_grad` in the code shows."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def without_fusing() -> Iterator[None]:
    """PyTorch's transformer layers do not run as one opaque operation."""
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def fingerprint(tensor: Tensor) -> tuple[float, ...]:
    """Boil a float tensor down to three numbers that another runtime's copy of it shares to rounding."""
    flat = tensor.detach().reshape(-1).float()
    if not flat.numel():
        return (0.0, 0.0, 0.0)
    ramp = torch.cos(torch.arange(flat.numel(), dtype=torch.float32) * 0.7390851)
    return (float(flat.abs().mean()), float(flat.mean()), float((flat * ramp).mean()))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down each operation; tensors are known by identity, weakly, so that memory is freed as in a plain run."""

    def __init__(self, fingerprints: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fingerprints = fingerprints
        self.values: list[Value] = []
        self.steps: list[Step] = []
        self.known: Any = WeakIdKeyDictionary()
        self.modules: list[str] = []
        self.calls: list[Call] = []
        self.entered: list[tuple[int, Any]] = []
        self.storages = 0

    def add(self, tensor: Tensor, storage: int | None = None, **facts: Any) -> int:
        """Give the tensor a number; a tensor written in place gets a new one."""
        if storage is None:
            storage, self.storages = self.storages, self.storages + 1
        kept = not tensor.dtype.is_floating_point and not tensor.dtype.is_complex and tensor.numel() <= KEPT_INTEGERS
        wanted = self.fingerprints and tensor.dtype.is_floating_point
        self.values.append(
            Value(
                tuple(tensor.shape),
                tensor.dtype,
                storage,
                data=tensor.detach().clone() if kept and tensor.layout == torch.strided else None,
                print=fingerprint(tensor) if wanted else None,
                **facts,
            )
        )
        self.known[tensor] = len(self.values) - 1
        return len(self.values) - 1

    def reference(self, leaf: Any) -> Any:
        """Turn a tensor argument into its `Ref`; an unknown one was made outside (a constant of the code)."""
        if not isinstance(leaf, Tensor):
            return leaf
        index = self.known.get(leaf)
        if index is None:
            small = leaf.numel() <= KEPT_CONSTANTS and leaf.layout == torch.strided and not leaf.is_meta
            index = self.add(leaf, constant=leaf.detach().clone() if small else None)
        return Ref(index)

    def plain(self, leaf: Any) -> Any:
        """Turn a leaf of a module's arguments or outputs into what the trace keeps of it."""
        if isinstance(leaf, Tensor):
            return self.reference(leaf)
        return leaf if leaf is None or isinstance(leaf, bool | int | float | str) else Opaque(type(leaf).__name__)

    def enter(self, name: str, given: Any) -> None:
        """A module begins to run."""
        self.modules.append(name)
        self.entered.append((len(self.steps), tree_map(self.plain, given)))

    def leave(self, output: Any) -> None:
        """It ends."""
        first, (args, kwargs) = self.entered.pop()
        outcome = tree_map(self.plain, output)
        self.calls.append(Call(self.modules.pop(), first, len(self.steps), args, kwargs, outcome))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and write it down."""
        return self.run(func, func, args, dict(kwargs or {}))

    def run(self, func: Any, how: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Write down operation `func`, carried out by `how`."""
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        referred = tree_map(self.reference, (args, kwargs))
        indices = [self.known[leaf] for leaf in sources]
        storages = {
            leaf.untyped_storage()._cdata: self.values[index].storage
            for leaf, index in zip(sources, indices, strict=True)
            if leaf.layout == torch.strided
        }
        from_input = any(self.values[index].from_input for index in indices)
        result = how(*args, **kwargs)
        outputs: list[int | None] = []
        for leaf in tree_flatten(result)[0]:
            if not isinstance(leaf, Tensor):
                outputs.append(None)
                continue
            shared = storages.get(leaf.untyped_storage()._cdata) if leaf.layout == torch.strided else None
            outputs.append(self.add(leaf, shared, from_input=from_input))
        grad = torch.is_grad_enabled()
        self.steps.append(Step(func, referred[0], referred[1], tuple(outputs), tuple(self.modules), grad))
        return result


class _Composites(TorchFunctionMode):
    """Settles what some composite operations become, which differs from device to device.

    Attention stays one operation; recurrent layers are taken apart.
    """

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a call of PyTorch's."""
        kwargs = dict(kwargs or {})
        if func is self.original:
            return self._attend(args, kwargs)
        if func in RECURRENT:
            enabled = torch._C._get_mkldnn_enabled()
            torch._C._set_mkldnn_enabled(False)
            try:
                with torch.backends.cudnn.flags(enabled=False):
                    return func(*args, **kwargs)
            finally:
                torch._C._set_mkldnn_enabled(enabled)
        return func(*args, **kwargs)

    def __enter__(self) -> "_Composites":
        """Stand also where PyTorch's own functions, which a function mode does not look into, call attention."""
        super().__enter__()  # type: ignore[no-untyped-call]
        self.original = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = lambda *args, **kwargs: self._attend(args, kwargs)
        return self

    def __exit__(self, *raised: Any) -> None:
        functional.scaled_dot_product_attention = self.original
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def _attend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Attention as one step; its scale, which the width of a head sets, is written down."""
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
        given = dict(zip(names, args, strict=False)) | kwargs
        operands = [given.pop(name) for name in names[:3]]
        if given.get("scale") is None:
            given["scale"] = operands[0].shape[-1] ** -0.5
        mask = given.pop("attn_mask", None)
        operation = torch.ops.aten.scaled_dot_product_attention.default

        with _disable_current_modes():  # what the record keeps of the result is no step of the network
            result: Tensor = self.recorder.run(operation, operation, (*operands, mask), given)
        return result


RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
"""Layers that are one operation on some devices."""


def _module_hooks(model: nn.Module, recorder: _Recorder) -> list[Any]:
    handles = []
    for name, module in model.named_modules():

        def enter(_module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            recorder.enter(name, (args, kwargs))

        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            recorder.leave(output)

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    return handles


def tensors_of(output: Any) -> list[Tensor]:
    """Every tensor in a nested output, looking also into plain objects' attributes."""
    found: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module | type) and not callable(leaf):
            found.extend(tensors_of(list(vars(leaf).values())))
    return found


def record(
    model: nn.Module,
    inputs: Sequence[Any],
    *,
    training: bool = False,
    fingerprints: bool = False,
) -> Trace:
    """Run `model(*inputs)` once and record it; the model is left as it was.

    Args:
        model: any module; on the CPU or elsewhere.
        inputs: positional arguments, nested lists and dicts of tensors allowed.
        training: run in train mode (auxiliary heads, other branches) instead of eval mode.
        fingerprints: keep for every float tensor what `fingerprint` makes of it.

    Raises:
        LatpruneError: the network does not run on these inputs.
    """
    trace, error = record_until_failure(model, inputs, training=training, fingerprints=fingerprints)
    if isinstance(error, LatpruneError):
        raise error
    if error is not None:
        given = [leaf for leaf in tree_leaves(tuple(inputs)) if isinstance(leaf, Tensor)]
        where = (trace.running or "the model") if trace.running is not None else "the model"
        raise LatpruneError(
            f"The network does not run on its example inputs ({', '.join(str(list(t.shape)) for t in given)}): "
            f"in {where}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if not trace.outputs:
        raise LatpruneError("The network's output holds no tensor that it computed.")
    return trace


def record_until_failure(
    model: nn.Module, inputs: Sequence[Any], *, training: bool = False, fingerprints: bool = False
) -> tuple[Trace, Exception | None]:
    """Like `record`; where the network fails on its way, what ran until then, and the error."""
    recorder = _Recorder(fingerprints)
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, tensor in named:
            recorder.add(tensor, name=name, trainable=kind == "parameter")
    given = [leaf for leaf in tree_leaves(tuple(inputs)) if isinstance(leaf, Tensor)]
    entered = tuple(recorder.add(leaf, is_input=True, from_input=True) for leaf in given)
    handles = _module_hooks(model, recorder)
    output: Any = None
    failure: Exception | None = None
    try:
        with undisturbed(model), without_gradients(model), without_fusing(), torch.enable_grad():
            model.train(training)
            with recorder, _Composites(recorder):
                output = model(*inputs)
    except Exception as error:  # noqa: BLE001 - handed back: the caller says what it means
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    left = tuple(recorder.known[leaf] for leaf in tensors_of(output) if leaf in recorder.known)
    read = {index for step in recorder.steps for index in step.inputs}
    unseen = tuple(
        value.name
        for index, value in enumerate(recorder.values)
        if value.trainable and value.name and index not in read
    )
    running = recorder.modules[-1] if failure is not None and recorder.modules else None
    values, steps, calls = tuple(recorder.values), tuple(recorder.steps), tuple(recorder.calls)
    return Trace(values, steps, entered, left, unseen, calls, running), failure
