"""Settle what some of PyTorch's composite operations become while a network is recorded: it differs between devices."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
"""Layers that are one operation on some devices."""


class Composites(TorchFunctionMode):
    """Settles what some composite operations become, which differs from device to device.

    Attention stays one operation, which `run` carries out (given the operation twice, as what to write down and as how,
    its arguments and keywords); recurrent layers are taken apart.
    """

    def __init__(self, run: Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self.run = run

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

    def __enter__(self) -> "Composites":
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
            result: Tensor = self.run(operation, operation, (*operands, mask), given)
        return result
