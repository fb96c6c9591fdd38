"""Run a model in ONNX Runtime as it stands, to see what it computes; nothing is timed."""

from collections.abc import Sequence

from lut.errors import BackendError
from profiler.backends.inputs import name_feeds
from profiler.backends.interface import Array, Feeds
from profiler.backends.onnxruntime import PROVIDER, import_runtime, runtime_errors
from profiler.device import usable_cores

FATAL_ONLY = 4
"""Of what severity on ONNX Runtime's own code speaks."""


class PlainSession:
    """A model as it stands, with all optimisations off unless they are asked for; nothing is timed."""

    def __init__(self, model: bytes, *, optimised: bool = False) -> None:
        """Load a serialised ONNX model.

        Raises:
            BackendError: it does not load.
        """
        runtime = import_runtime()
        options = runtime.SessionOptions()
        if not optimised:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = usable_cores()
        options.log_severity_level = FATAL_ONLY
        try:
            self._session = runtime.InferenceSession(model, options, providers=[PROVIDER])
        except runtime_errors() as error:
            raise BackendError(f"ONNX Runtime cannot run the model: {error}") from error

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Run on the inputs given, and return the outputs by name.

        Raises:
            BackendError: inputs are missing, or the model does not run on them.
        """
        named = name_feeds(feeds, [item.name for item in self._session.get_inputs()])
        names = [item.name for item in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, named), strict=True))
        except runtime_errors() as error:
            raise BackendError(f"ONNX Runtime cannot run the model: {error}") from error


def evaluate(model: bytes, inputs: Sequence[Array]) -> dict[str, Array]:
    """Compute a model's outputs as it stands, with all optimisations off.

    Args:
        model: a serialised ONNX model.
        inputs: in the model's order.

    Raises:
        BackendError: the model does not load or run.
    """
    return PlainSession(model).outputs(inputs)
