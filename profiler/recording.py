"""Run a network once and write down every ATen operation as it runs, which makes a `Trace`.

While it is recorded, no tensor asks for gradients and the fused attention path is switched off, so that attention shows
its single operations. Parameters and buffers appear by their qualified names; modes, buffers and random generators are
put back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from lut.errors import LatpruneError
from profiler.composites import Composites
from profiler.outputs import tensors_of
from profiler.trace import Call, Opaque, Ref, Step, Trace, Value
from profiler.undisturbed import undisturbed, without_fusing, without_gradients

KEPT_INTEGERS = 1 << 20
"""Integer and boolean tensors up to this many elements keep their values in the trace (they may be indices)."""

KEPT_CONSTANTS = 1 << 12
"""Tensors that the code holds outside of parameters and buffers keep their values up to this many elements."""


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
            with recorder, Composites(recorder.run):
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
