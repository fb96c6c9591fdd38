"""An engine of either TensorRT whose layers are timed, one by one, in a run of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from profiler.backends.interface import NodeTime
from profiler.backends.trt_session import EngineSession, LaunchSettings


class ProfiledEngine:
    """An engine whose layers are timed, in a run of its own: one by one, without a graph, on one stream.

    `describe` turns the inspector's words and the times into nodes.
    """

    def __init__(
        self,
        trt: Any,
        engine: bytes,
        cuda: Any,
        settings: LaunchSettings,
        describe: Callable[[str, Mapping[str, Sequence[float]]], list[NodeTime]],
    ) -> None:
        self._session = EngineSession(trt, engine, cuda, replace(settings, graph=False))
        self._describe = describe
        self._times: list[dict[str, float]] = []
        try:
            self._text = self._session.inspect()
            self._session.profile_into(self._note)
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Run one inference, and have its layers' times told."""
        self._times.append({})
        self._session.run()
        self._session.report()

    def finish(self, keep: Sequence[int]) -> list[NodeTime]:
        """Give every layer's times in the runs to keep, in the order in which they run."""
        kept = [self._times[number] for number in keep]
        names = dict.fromkeys(name for run in kept for name in run)
        return self._describe(self._text, {name: [run.get(name, 0.0) for run in kept] for name in names})

    def close(self) -> None:
        """Give everything back."""
        self._session.close()

    def _note(self, layer: str, ms: float) -> None:
        run = self._times[-1]
        run[layer] = run.get(layer, 0.0) + ms
