"""What `export` tells of the files that it wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruner.conversion import Conversion


@dataclass(frozen=True)
class ExportReport:
    """What was written for deployment.

    Attributes:
        path: of the engine or ONNX file.
        backend, compute_capabilities: what it was made for.
        conversion: its precision, and what that costs.
        onnx: the ONNX file that an engine was built from.
        weights_bytes, activation_bytes, workspace_bytes: the compiler's ahead-of-time bound (workspace lies inside
            activation); None where the runtime tells none.
        file_bytes: size of the file.
        seconds: of the build.
        kernels: how many kernels the network became.
        warnings: the compiler's.
        sidecar: what the JSON file beside it says besides.
    """

    path: Path
    backend: str
    conversion: Conversion
    compute_capabilities: tuple[str, ...] = ()
    onnx: Path | None = None
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    workspace_bytes: int | None = None
    file_bytes: int = 0
    seconds: float = 0.0
    kernels: int = 0
    warnings: tuple[str, ...] = ()
    sidecar: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON; the memory is named as the bound that it is."""
        sizes = ("weights_bytes", "activation_bytes", "workspace_bytes")
        plain = ("backend", "file_bytes", "seconds", "kernels")
        return {
            "path": str(self.path),
            **{name: getattr(self, name) for name in plain},
            "compute_capabilities": list(self.compute_capabilities),
            "warnings": list(self.warnings),
            "onnx": self.onnx.name if self.onnx else None,
            "ahead_of_time_bound": {name: getattr(self, name) for name in sizes},
            **self.sidecar,
        }
