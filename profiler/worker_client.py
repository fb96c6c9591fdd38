"""The parent's end of the worker: asks a child, one thing after another, and survives whatever happens to it."""

import contextlib
import json
import queue
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from lut.errors import BackendError
from lut.records import DeviceFingerprint, MeasureConfig, freeze_value
from profiler.backends.interface import BuildReport, BuildSettings, Feeds, KernelRecord, NodeTime
from profiler.progress import Event, Progress, silent
from profiler.worker_child import Child, signal_name
from profiler.worker_replies import BuildReply, NodesReply, OutputsReply, TimeReply

COMPILERS, COMPILING_S = ("tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt"), 1200.0
"""Runtimes that compile a network when it is opened, and how long that may take."""


class WorkerClient:
    """A worker process for one runtime; a context manager.

    Each method asks once and waits. When the child takes too long or dies, the reply says so in `failure`, and the next
    request starts another child.

    Args:
        backend: the runtime's name.
        threads: of a CPU runtime.
        cache: beginning of the paths of what the runtime keeps from one worker to the next (kernels that it chose or
            compiled), such as a table's path; None keeps nothing.
        progress: told how far the runtime's compiler is.
    """

    def __init__(
        self,
        backend: str = "onnxruntime",
        *,
        threads: int = 1,
        cache: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self.backend = backend
        self.progress = progress
        self.threads = threads
        self.cache = cache
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kill=kind is not None)

    def close(self, *, kill: bool = False) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.end(kill=kill)

    @property
    def pid(self) -> int | None:
        """The child's process number, or None while there is none."""
        return None if self._child is None else self._child.process.pid

    def time(self, path: Path, config: MeasureConfig, *, reference: Path | None = None, builds: int = 1) -> TimeReply:
        """Time whole runs of an ONNX file (or an engine), alternating with those of a reference.

        Args:
            path: the network.
            config: how long and how carefully.
            reference: taken by turns.
            builds: where a runtime compiles for a GPU, how many engines to build anew and time; the figures are those
                of the one whose median is the middle one.
        """
        request = self._about("time", path, config, reference) | {"builds": builds}
        reply = self.request(request, self._patience(config, builds))
        return TimeReply(**_frozen(reply))

    def nodes(self, path: Path, config: MeasureConfig, *, runs: int = 20, reference: Path | None = None) -> NodesReply:
        """Time an ONNX file's whole runs and each node of the graph that the runtime makes of it.

        Args:
            path: the network.
            config: its warm-up, longest time and timeout; `runs` stands for the number of samples.
            runs: kept runs of each session.
            reference: taken by turns too.
        """
        return self.start_nodes(path, config, runs=runs, reference=reference)()

    def start_nodes(
        self, path: Path, config: MeasureConfig, *, runs: int = 20, reference: Path | None = None
    ) -> Callable[[], NodesReply]:
        """The same without waiting: call what is returned, before anything else is asked, for the reply."""
        wait = self._start(self._about("nodes", path, config, reference) | {"runs": runs}, self._patience(config, 2))

        def finish() -> NodesReply:
            reply = wait()
            nodes = tuple(NodeTime(**_frozen(node)) for node in reply.pop("nodes", ()))
            return NodesReply(**_frozen(reply), nodes=nodes)

        return finish

    def kernels(self, path: Path, *, timeout_s: float = 120.0) -> NodesReply:
        """Compile an ONNX file and tell which nodes would run, without times."""
        reply = self.request(self._about("kernels", path), timeout_s)
        nodes = tuple(NodeTime(**_frozen(node)) for node in reply.pop("nodes", ()))
        return NodesReply(**_frozen(reply), nodes=nodes)

    def outputs(self, path: Path, feeds: Feeds, *, timeout_s: float = 120.0) -> OutputsReply:
        """Run an ONNX file once on inputs given by name or in order."""
        named = isinstance(feeds, Mapping)
        arrays = list(feeds.values()) if isinstance(feeds, Mapping) else list(feeds)
        with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
            inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
            np.savez(inputs, *arrays)
            request = self._about("outputs", path) | {
                "inputs": str(inputs),
                "outputs": str(outputs),
                "input_names": list(feeds) if named else None,
            }
            reply = self.request(request, timeout_s)
            if reply.get("failure") is not None:
                return OutputsReply({}, reply["failure"])
            with np.load(outputs, allow_pickle=False) as file:
                return OutputsReply({name: file[f"arr_{number}"] for number, name in enumerate(reply["names"])})

    def build(self, path: Path, out: Path, settings: BuildSettings, *, timeout_s: float = 600.0) -> BuildReply:
        """Compile an ONNX file into an engine."""
        request = self._about("build", path) | {"out": str(Path(out).absolute()), "settings": _plain(settings)}
        reply = self.request(request, timeout_s)
        if reply.get("failure") is not None:
            return BuildReply(None, reply["failure"])
        report = reply["report"]
        kernels = tuple(KernelRecord.from_json(kernel) for kernel in report.pop("kernels"))
        return BuildReply(BuildReport(**_frozen(report), kernels=kernels))

    def fingerprint(self, *, timeout_s: float = 60.0) -> DeviceFingerprint:
        """Tell device and runtime, as the worker sees them.

        Raises:
            BackendError: the runtime is missing, or cannot measure here.
        """
        request = {"kind": "fingerprint", "backend": self.backend, "threads": self.threads}
        reply = self.request(request, timeout_s)
        if reply.get("failure") is not None:
            raise BackendError(reply["failure"])
        return DeviceFingerprint.from_json(reply["fingerprint"])

    def _patience(self, config: MeasureConfig, builds: int) -> float:
        """How long to wait: a runtime that compiles for a GPU takes minutes before it runs anything."""
        return config.timeout_s + (COMPILING_S * builds if self.backend in COMPILERS else 0.0)

    def request(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask the child, starting one where there is none; a reply without a `failure` succeeded."""
        return self._start(request, timeout_s)()

    def _start(self, request: Mapping[str, Any], timeout_s: float) -> Callable[[], dict[str, Any]]:
        """Send a request; what is returned waits for its reply."""
        if self._child is None:
            self._child = Child()
        child = self._child
        what = " ".join(str(request[key]) for key in ("kind", "onnx") if key in request)
        with contextlib.suppress(OSError):  # a child that is gone shows when its reply is waited for
            child.send(json.dumps(request))

        def wait() -> dict[str, Any]:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    line = child.replies.get(timeout=max(deadline - time.monotonic(), 0.0))
                except queue.Empty:
                    self.close(kill=True)
                    return {"failure": f"The worker took longer than {timeout_s:g} s for: {what}. It was stopped."}
                except BaseException:
                    self.close(kill=True)
                    raise
                if line is None:
                    return {"failure": self._bury(what)}
                reply: dict[str, Any] = json.loads(line)
                if "progress" not in reply:
                    return reply
                self.progress(Event(**reply["progress"]))

        return wait

    def _bury(self, what: str) -> str:
        """Reap a child that died, and tell how."""
        child, self._child = self._child, None
        assert child is not None
        status = child.end(kill=False)
        how = f"was ended by {signal_name(-status)}" if status < 0 else f"ended with status {status}"
        words = " | ".join(line.strip() for line in child.last_words if line.strip())
        return f"The worker {how} during: {what}." + (f" It last said: {words}" if words else "")

    def _about(
        self, kind: str, path: Path, config: MeasureConfig | None = None, reference: Path | None = None
    ) -> dict[str, Any]:
        request = {"kind": kind, "backend": self.backend, "threads": self.threads, "onnx": str(Path(path).absolute())}
        more: dict[str, Any] = {} if config is None else {"config": asdict(config)}
        if self.cache is not None:
            more["cache"] = str(Path(self.cache).absolute())
        return request | more | {"reference": None if reference is None else str(Path(reference).absolute())}


def _plain(settings: BuildSettings) -> dict[str, Any]:
    """What can be sent; the worker tells progress by itself."""
    return {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "progress"}


def _frozen(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {name: freeze_value(value) for name, value in reply.items()}
