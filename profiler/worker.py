"""The child process that builds and times: reads one JSON request a line, writes one JSON reply a line.

Run as `python -m profiler.worker`; `profiler/worker_client.py` is the other end and documents what is in a request. It
imports neither torch nor anything that prunes, so that it can later run on the device alone. A request that fails is a
reply with `failure`; the process ends when its input does. Before a reply there may be lines of progress.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from lut.errors import BackendError, LatpruneError
from lut.records import MeasureConfig
from profiler.backends import BuildSettings, Session, Settings, get_backend
from profiler.device import cpu_clock_mhz, read_cpu, usable_cores
from profiler.gpu_sessions import Launched, time_builds, time_layers, times_on_gpu
from profiler.pinning import pin
from profiler.progress import Progress, silent
from profiler.robust import median_ratio, relative_noise
from profiler.timing import measure
from profiler.turns import take_turns
from profiler.watching import cost_of_watching

Request = Mapping[str, Any]
Reply = dict[str, Any]
SMALLEST_EVICTION_BYTES = 32 * 2**20
LARGEST_EVICTION_BYTES = 512 * 2**20


class Worker:
    """Answers requests, and keeps the reference loaded from one to the next."""

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress
        self._reference_key: tuple[str, str, int, int] | None = None
        self._reference: Session | None = None
        self._pinned = False
        self._kinds: Mapping[str, Callable[[Request], Reply]] = {
            "time": self.time,
            "nodes": self.nodes,
            "kernels": self.kernels,
            "outputs": self.outputs,
            "build": self.build,
            "fingerprint": self.fingerprint,
        }

    def answer(self, line: str) -> Reply:
        """Answer one line; whatever goes wrong is in the reply."""
        try:
            request = json.loads(line)
            kind = self._kinds.get(request.get("kind"))
            if kind is None:
                raise BackendError(
                    f"The worker knows no request {request.get('kind')!r}, only {', '.join(self._kinds)}."
                )
            if not self._pinned and "threads" in request:
                usable_cores()  # counted before this process is confined to some
                pin(request["threads"])
                self._pinned = True
            return kind(request)
        except LatpruneError as error:
            return {"failure": str(error)}
        except Exception as error:  # noqa: BLE001 - the process must outlive a bad request; the parent gets the words
            return {"failure": f"{type(error).__name__}: {error}"}

    def time(self, request: Request) -> Reply:
        """Time whole runs, alternating with the reference."""
        config = MeasureConfig(**request["config"])
        if times_on_gpu(get_backend(request["backend"])):
            return self._time_on_gpu(request, config)
        session = self._open(request)
        try:
            reference = self._open_reference(request)
            timing = measure(
                session.run,
                config,
                reference=None if reference is None else reference.run,
                evict=_make_eviction() if config.cache == "cold" else None,
            )
        finally:
            session.close()
        return asdict(timing) | {"clocks_mhz": cpu_clock_mhz()}

    def nodes(self, request: Request) -> Reply:
        """Time whole runs and single nodes by turns, in a plain and in a profiled session."""
        config = MeasureConfig(**request["config"])
        backend = get_backend(request["backend"])
        if times_on_gpu(backend):
            return self._nodes_on_gpu(request, config)
        plain = self._open(request)
        try:
            reference = self._open_reference(request)
            profiled = backend.open_profiled(Path(request["onnx"]), self._settings(request))
            try:
                parts = [plain.run, profiled.run, *([] if reference is None else [reference.run])]
                whole, inside, *beside = take_turns(parts, config, runs=request["runs"])
                nodes = profiled.finish(inside.numbers)
            finally:
                profiled.close()
        finally:
            plain.close()
        compared = beside[0].samples_ms if beside else ()
        cost = cost_of_watching([node.ms for node in nodes], float(np.median(whole.samples_ms)))
        return {
            "samples_ms": whole.samples_ms,
            "median_ms": float(np.median(whole.samples_ms)),
            "noise": relative_noise(whole.samples_ms),
            "discarded": whole.discarded + inside.discarded + sum(runs.discarded for runs in beside),
            "profiled_ms": inside.samples_ms,
            "nodes": [asdict(node) for node in nodes],
            "node_overhead_ms": cost,
            "reference_ms": compared,
            "reference_median_ms": float(np.median(compared)) if compared else None,
            "ratio": median_ratio(whole.samples_ms, compared),
            "clocks_mhz": cpu_clock_mhz(),
        }

    def _time_on_gpu(self, request: Request, config: MeasureConfig) -> Reply:
        """The same on a GPU, by its own clock; several builds are compiled anew each, without a cache."""
        builds = int(request.get("builds", 1))
        asked = request if builds == 1 else dict(request) | {"cache": None}
        reference = cast(Launched | None, self._open_reference(request))
        return time_builds(lambda: cast(Launched, self._open(asked)), config, reference=reference, builds=builds)

    def _nodes_on_gpu(self, request: Request, config: MeasureConfig) -> Reply:
        """The same on a GPU; both sessions are compiled with one cache, so that they run the same kernels."""
        with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
            asked = dict(request) | {"cache": request.get("cache") or str(Path(folder) / "kernels")}
            backend, path = get_backend(request["backend"]), Path(request["onnx"])
            return time_layers(
                lambda: cast(Launched, self._open(asked)),
                lambda: backend.open_profiled(path, self._settings(asked)),
                config,
                runs=request["runs"],
                reference=cast(Launched | None, self._open_reference(asked)),
            )

    def kernels(self, request: Request) -> Reply:
        """Compile, and tell what would run."""
        found = get_backend(request["backend"]).kernels(Path(request["onnx"]), self._settings(request))
        return {"nodes": [asdict(node) for node in found]}

    def outputs(self, request: Request) -> Reply:
        """Run once on the inputs of one file, and write the outputs to another, in the order of the names replied."""
        with np.load(request["inputs"], allow_pickle=False) as file:
            arrays = [file[f"arr_{number}"] for number in range(len(file.files))]
        names = request["input_names"]
        session = self._open(request)
        try:
            found = session.outputs(arrays if names is None else dict(zip(names, arrays, strict=True)))
        finally:
            session.close()
        np.savez(request["outputs"], *found.values())
        return {"names": list(found)}

    def build(self, request: Request) -> Reply:
        """Compile an engine."""
        settings = request["settings"]
        settings["compute_capabilities"] = tuple(settings["compute_capabilities"])
        if settings.get("batches") is not None:
            settings["batches"] = tuple(settings["batches"])
        asked = BuildSettings(**settings, progress=self._progress)
        report = get_backend(request["backend"]).build(Path(request["onnx"]), Path(request["out"]), asked)
        return {"report": asdict(report)}

    def fingerprint(self, request: Request) -> Reply:
        """Tell device and runtime."""
        return {"fingerprint": get_backend(request["backend"]).fingerprint(request["threads"]).to_json()}

    def _open_reference(self, request: Request) -> Session | None:
        """Load the reference, unless it is the one that is loaded already."""
        if request.get("reference") is None:
            return None
        path = Path(request["reference"])
        if not path.is_file():
            raise BackendError(f"There is no file {path} to compare with.")
        key = (request["backend"], str(path.resolve()), path.stat().st_mtime_ns, request["threads"])
        if key != self._reference_key:
            if self._reference is not None:
                self._reference.close()
            self._reference_key, self._reference = None, None
            self._reference = self._open(dict(request) | {"onnx": str(path)})
            self._reference_key = key
        return self._reference

    def _open(self, request: Request) -> Session:
        return get_backend(request["backend"]).open(Path(request["onnx"]), self._settings(request))

    def _settings(self, request: Request) -> Settings:
        cache, config = request.get("cache"), request.get("config") or {}
        return Settings(
            threads=request["threads"],
            seed=request.get("seed", 0),
            cache=None if cache is None else Path(cache),
            cold=config.get("cache") == "cold",
            progress=self._progress,
        )


def _make_eviction() -> Callable[[], object]:
    """Make a callable that writes through twice the largest cache."""
    size = min(max(2 * (read_cpu().cache_bytes or 0), SMALLEST_EVICTION_BYTES), LARGEST_EVICTION_BYTES)
    memory = np.zeros(size, np.uint8)
    return lambda: np.add(memory, 1, out=memory)


def main() -> None:
    """Answer requests until the input ends.

    Replies go to a copy of the standard output; the output itself is turned to the standard error, so that no library
    can write between them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(reply: Reply) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    worker = Worker(lambda event: send({"progress": asdict(event)}))
    with replies:
        for line in sys.stdin:
            send(worker.answer(line))


if __name__ == "__main__":
    main()
