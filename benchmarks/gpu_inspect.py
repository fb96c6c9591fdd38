"""Keeps what TensorRT really says of an engine on a GPU: the layers that it lists, and their times, with provenance.

`python -m benchmarks.gpu_inspect TASK OUT.json`. The file is a recorded artefact: tests may read it, nobody edits it.
"""

import datetime
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from profiler.backends import Settings, get_backend
from profiler.export import to_onnx, write_onnx
from pruner.atomic import write_text
from pruner.task import load_task

RUNS, SKIPPED = 60, 10


def main(spec: str, out: str) -> None:
    """Build the task's network with classic TensorRT, run it layer by layer, and write down what was told."""
    backend, task = get_backend("tensorrt"), load_task(spec)
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        network = Path(folder) / "network.onnx"
        write_onnx(to_onnx(task.deployed(task.build()), task.inputs()), network)
        plain = backend.open(network, Settings())
        told = json.loads(plain.inspect())  # type: ignore[attr-defined]  # what sessions of both TensorRTs can do
        plain.close()
        profiled = backend.open_profiled(network, Settings())
        for _ in range(RUNS):
            profiled.run()
        nodes = profiled.finish(range(SKIPPED, RUNS))
        profiled.close()
    record = {
        "recorded": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.gpu_inspect {spec}",
        "fingerprint": backend.fingerprint(1).to_json(),
        "inspector": told,
        "nodes": [asdict(node) for node in nodes],
    }
    write_text(Path(out), json.dumps(record, indent=1) + "\n")
    sys.stdout.write(json.dumps({"layers": len(told.get("Layers", [])), "nodes": len(nodes)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
