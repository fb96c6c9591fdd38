"""The worker process: it answers, it survives, and it stays small."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.worker_client import WorkerClient
from tests.profiler.networks import INPUT_SHAPE, write_conv_net

pytest.importorskip("onnxruntime")

QUICK = MeasureConfig(warmup_s=0.0, min_time_s=0.0, max_time_s=0.2, min_samples=4, max_samples=8, noise_target=1.0)


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    with WorkerClient() as worker:
        yield worker


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conv_net(tmp_path_factory.mktemp("networks") / "network.onnx")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conv_net(tmp_path_factory.mktemp("networks") / "reference.onnx", (8, 8))


def test_whole_runs_are_timed_beside_a_reference(client: WorkerClient, network: Path, reference: Path) -> None:
    for _ in range(2):
        reply = client.time(network, QUICK, reference=reference)
        assert reply.failure is None
        assert reply.median_ms is not None
        assert reply.median_ms > 0
        assert len(reply.samples_ms) >= 4
        assert reply.reference_ms
        assert reply.ratio is not None
        assert reply.ratio > 0


def test_nodes_and_whole_runs_come_from_one_request(client: WorkerClient, network: Path, reference: Path) -> None:
    reply = client.nodes(network, QUICK, runs=8, reference=reference)
    assert reply.failure is None
    assert reply.median_ms is not None
    assert len(reply.nodes) >= 5
    assert all(len(node.samples_ms) == len(reply.profiled_ms) for node in reply.nodes)
    assert reply.ratio is not None
    assert reply.node_overhead_ms is not None
    assert 0 <= reply.node_overhead_ms <= min(node.ms for node in reply.nodes)


def test_outputs_by_name_and_in_order_are_the_same(client: WorkerClient, network: Path) -> None:
    values = np.random.default_rng(1).standard_normal(INPUT_SHAPE).astype(np.float32)
    ordered, named = client.outputs(network, [values]), client.outputs(network, {"x": values})
    assert ordered.failure is None
    assert list(ordered.outputs) == ["y"]
    assert np.array_equal(ordered.outputs["y"], named.outputs["y"])
    assert ordered.outputs["y"].shape == (1, 10)


def test_wrong_inputs_are_a_failure_that_names_the_right_ones(client: WorkerClient, network: Path) -> None:
    assert "inputs are x" in (client.outputs(network, {"z": np.zeros(1)}).failure or "")
    assert "cannot run" in (client.outputs(network, [np.zeros((1, 3, 5, 5), np.float32)]).failure or "")


def test_the_fingerprint_tells_threads_and_instruction_set(client: WorkerClient) -> None:
    found = client.fingerprint()
    assert found.runtime == "onnxruntime"
    assert found.threads == 1
    assert "core" in found.device
    assert found == client.fingerprint()


def test_a_bad_file_is_a_failure_and_the_worker_lives_on(client: WorkerClient, network: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    client.time(network, QUICK)
    before = client.pid
    assert str(broken) in (client.time(broken, QUICK).failure or "")
    assert "no file" in (client.nodes(tmp_path / "missing.onnx", QUICK).failure or "")
    assert client.time(network, QUICK).failure is None
    assert client.pid == before


@pytest.mark.parametrize("request_", [{"kind": "dance"}, {}, {"kind": "time"}])
def test_a_request_that_makes_no_sense_is_a_failure(client: WorkerClient, request_: dict[str, str]) -> None:
    assert client.request(request_, 60.0)["failure"]


def test_a_killed_worker_is_named_and_replaced(network: Path) -> None:
    with WorkerClient() as worker:
        assert worker.time(network, QUICK).failure is None
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        failure = worker.time(network, QUICK).failure
        assert failure is not None
        assert "SIGKILL" in failure
        assert worker.time(network, QUICK).failure is None
        assert worker.pid != pid


def test_a_crash_is_named_with_its_last_words(network: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crash = "import os, sys\nsys.stderr.write('the end is near\\n')\nsys.stderr.flush()\nos.abort()\n"
    (tmp_path / "onnxruntime.py").write_text(crash)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerClient() as worker:
        failure = worker.time(network, QUICK).failure
    assert failure is not None
    assert "SIGABRT" in failure
    assert "the end is near" in failure


def test_a_request_that_takes_too_long_stops_the_worker(network: Path) -> None:
    with WorkerClient() as worker:
        failure = worker.time(network, MeasureConfig(timeout_s=0.0)).failure
        assert failure is not None
        assert "longer than 0 s" in failure
        assert worker.pid is None
        assert worker.time(network, QUICK).failure is None


def test_an_interrupted_parent_stops_its_worker(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = WorkerClient()
    assert worker.time(network, QUICK).failure is None
    child = worker._child
    assert child is not None

    class Interrupted:
        def get(self, timeout: float) -> str:
            raise KeyboardInterrupt

        def put(self, line: str | None) -> None:
            """Lose what the child still says."""

    monkeypatch.setattr(child, "replies", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        worker.time(network, QUICK)
    assert worker.pid is None
    assert child.process.returncode is not None


def test_a_runtime_that_cannot_time_here_says_so() -> None:
    with WorkerClient("nonsense") as worker:
        with pytest.raises(BackendError, match="onnxruntime"):
            worker.fingerprint()
        assert worker.time(Path("x.onnx"), QUICK).failure


def test_the_worker_imports_no_torch_and_writes_nothing_but_replies(network: Path) -> None:
    script = (
        "import io, json, sys\n"
        "from profiler import worker\n"
        f"request = {{'kind': 'nodes', 'backend': 'onnxruntime', 'threads': 1, 'onnx': {str(network)!r}, 'runs': 4,\n"
        "           'config': {'warmup_s': 0.0}}\n"
        "sys.stdin = io.StringIO(json.dumps(request) + '\\n')\n"
        "worker.main()\n"
        "assert not {'torch', 'pruner', 'scipy'} & set(sys.modules), sorted(sys.modules)\n"
        "print('libraries that print do not reach the replies', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith('{"samples_ms"')
    assert "libraries that print" in done.stderr
