"""The commands on a real task: groups, profile, predict and measure, in this order of need."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lut import ChannelGroup, Member
from pruner.commands.groups import count_parameters
from pruner.main import app

ROOT = Path(__file__).parents[2]

TASK = """
import os
import torch
from torch import nn

print("loading")
os.write(1, b"from a library\\n")

def model():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )

def example_inputs():
    return (torch.zeros(1, 3, 12, 12),)
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "small.py"
    path.write_text(TASK)
    return path


@pytest.fixture(scope="module")
def table(task: Path) -> Path:
    """A table of three networks, really measured."""
    path = task.parent / "t.db"
    done = call("profile", task, "--table", path, "--networks", 3, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["measured"] == 3
    assert report["table"] == str(path)
    return path


def call(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def process(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pruner.main", *map(str, args)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_groups_tells_sizes_parameters_and_what_is_frozen(task: Path) -> None:
    done = process("groups", task, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # whatever the task and its libraries print
    assert "from a library" in done.stderr
    sizes = {group["name"]: group["size"] for group in report["groups"] if not group["frozen_because"]}
    assert sorted(sizes.values()) == [8, 16]
    (first,) = (group for group in report["groups"] if group["size"] == 16)
    assert first["parameters"] == 3 * 16 * 9 + 16 + 32 + 16 * 8
    assert {member["parameter"] for member in first["members"]} >= {"0.weight", "1.running_mean", "3.weight"}
    assert report["seconds"] > 0
    assert any(group["frozen_because"] for group in report["groups"])
    text = call("groups", task).stdout
    assert "2 groups of 24 channels can be pruned" in text
    assert "frozen: " in text


def test_groups_keeps_out_what_is_frozen_by_a_pattern(task: Path) -> None:
    report = json.loads(call("groups", task, "--freeze", "0", "--json").stdout)
    assert [group["size"] for group in report["groups"] if not group["frozen_because"]] == [8]


def test_an_element_in_two_dimensions_of_a_group_counts_once() -> None:
    members = (Member("w", 0, ((0,), (1,))), Member("w", 1, ((0,), (1,))), Member("b", 0, ((0,), (1,))))
    group = ChannelGroup("g", 2, members)
    assert count_parameters(group, {"w": (4, 4), "b": (4,)}) == 16 - 2 * 2 + 2
    assert count_parameters(group, {"w": (4, 4)}) == 12  # a buffer is no parameter


def test_predict_prices_every_unit_of_a_profiled_network(task: Path, table: Path) -> None:
    done = call("predict", task, "--table", table, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["low_ms"] < report["predicted_ms"] < report["high_ms"]
    assert report["missing"] == []
    assert all(unit["ms"] > 0 for unit in report["units"])
    memory = ("weights_bytes", "peak_activation_bytes", "workspace_bytes", "total_bytes", "traffic_bytes")
    assert all(report[key] >= 0 for key in memory)
    text = call("predict", task, "--table", table).stdout
    assert "0 missing" in text
    assert "90 %:" in text


def test_predict_check_measures_the_whole_network(task: Path, table: Path) -> None:
    report = json.loads(call("predict", task, "--table", table, "--check", "--json").stdout)
    assert report["measured_ms"] > 0
    assert report["noise"] >= 0


def test_units_that_the_table_lacks_are_listed_and_end_with_1(task: Path, table: Path) -> None:
    done = call("predict", task, "--table", table, "--batch", 2, "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["missing"]
    assert "NOT in the total" in done.stderr
    assert report["missing"][0]["family"] in call("predict", task, "--table", table, "--batch", 2).stdout


def test_profile_refuses_another_device_than_this(task: Path, tmp_path: Path) -> None:
    done = call("profile", task, "--table", tmp_path / "t.db", "--device", "abacus")
    assert done.exit_code == 2
    assert "measures on this machine" in done.stderr
    assert not (tmp_path / "t.db").exists()


def test_measure_times_a_task_and_tells_its_memory(task: Path) -> None:
    done = call("measure", task, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["measured_ms"] > 0
    assert report["samples"] > 0
    assert report["backend"] == "onnxruntime"
    assert "onnxruntime" in call("measure", task).stdout


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "model"),
        ("def model(): raise RuntimeError('no weights here')\ndef example_inputs(): return ()", "no weights here"),
        ("def model(:", "broken.py"),
    ],
)
@pytest.mark.parametrize("command", ["groups", "measure"])
def test_a_task_that_cannot_be_used_is_the_users_error(source: str, said: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    done = call(command, tmp_path / "broken.py")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stdout == ""


def test_ctrl_c_stops_with_one_line(tmp_path: Path) -> None:
    # exec() makes CPython end by the signal itself, were that not taken back
    kill = f"exec('os.kill(os.getpid(), {int(signal.SIGINT)})')"
    source = TASK.replace("def model():", f"def model():\n    {kill}")
    (tmp_path / "stopped.py").write_text(source)
    done = process("profile", tmp_path / "stopped.py", "--table", tmp_path / "t.db")
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
