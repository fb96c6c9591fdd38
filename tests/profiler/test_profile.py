import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lut import LatpruneError, TableFile, open_table, predict
from profiler.network import Network, analyze
from profiler.profile import ProfileConfig, profile
from tests.pruner.example_task import SmallNet, example_inputs

pytest.importorskip("onnxruntime")

QUICK = ProfileConfig(networks_min=3, networks_max=4, target_error=0.0, runs=6)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return analyze(SmallNet().eval(), example_inputs())


def test_one_session_prices_every_unit(network: Network, tmp_path: Path) -> None:
    report = profile(network, tmp_path / "t.db", config=QUICK)
    assert report.measured == 4
    assert report.rows == 4 * len(network.units)
    table = open_table(tmp_path / "t.db")
    prediction = predict(network.units, network.widths, table, network=network.hash)
    assert not prediction.missing
    assert prediction.count("measured") == len(network.units)
    assert report.measured_ms is not None
    assert prediction.total.low_ms < prediction.total.ms < prediction.total.high_ms


def test_a_second_session_goes_on_where_the_first_was(network: Network, tmp_path: Path) -> None:
    profile(network, tmp_path / "t.db", config=QUICK)
    more = ProfileConfig(networks_min=3, networks_max=6, target_error=0.0, runs=6)
    report = profile(network, tmp_path / "t.db", config=more)
    assert (report.reused, report.measured) == (4, 2)
    report = profile(network, tmp_path / "t.db", config=more)
    assert (report.reused, report.measured) == (6, 0)


def test_a_backend_that_cannot_measure_here_is_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(LatpruneError, match="cannot measure"):
        profile(network, tmp_path / "t.db", backend="tensorrt-rtx", config=QUICK)
    assert not (tmp_path / "t.db").exists()


KILLED = """
import sys
import torch
from pathlib import Path
from profiler.network import analyze
from profiler.profile import ProfileConfig, profile
from tests.pruner.example_task import SmallNet, example_inputs
torch.manual_seed(0)
config = ProfileConfig(networks_min=50, networks_max=50, target_error=0.0, runs=6)
network = analyze(SmallNet().eval(), example_inputs())
profile(network, Path(sys.argv[1]), config=config, progress=lambda event: print(event.stage, event.done, flush=True))
"""


def test_a_killed_session_loses_nothing_that_was_finished(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            if line.startswith("measure networks at sampled widths 3"):
                break
        child.send_signal(signal.SIGKILL)
    child.wait()
    with TableFile(path) as store:
        finished = len(store.networks(store.fingerprints()[0], network.hash))
    assert finished >= 3
    report = profile(
        network, path, config=ProfileConfig(networks_min=5, networks_max=finished + 1, target_error=0, runs=6)
    )
    assert (report.reused, report.measured) == (finished, 1)
