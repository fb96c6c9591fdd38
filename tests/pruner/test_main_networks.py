"""The commands on a real task: groups, profile, predict and measure, in this order of need."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

from lut import ChannelGroup, Member
from profiler.network import analyze
from pruner.commands.groups import count_parameters, describe, read_layers, show_groups
from pruner.main import app
from tests.profiler.patterns import PATTERNS
from tests.pruner.networks import ConcatNet, GatedNet, ResidualNet, SharedNet


@dataclass(frozen=True)
class Carrying(ChannelGroup):
    """A group with fields that no JSON can hold."""

    programs: tuple[Any, ...] = field(default=(SimpleNamespace(module="attention", forms=object()),))
    more: object = field(default_factory=object)


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
    weights = 3 * 16 * 9 + 16 + 32 + 16 * 8 + 8 + 8 * 5
    assert (report["prunable_parameters"], report["parameters"]) == (weights, weights + 5)
    assert report["prunable_macs"] == report["macs"] == 144 * (3 * 16 * 9 + 16 * 8) + 8 * 5
    text = call("groups", task).stdout
    assert "2 groups of 24 channels can be pruned" in text
    assert "frozen: they reach the network's output (7)" in text
    assert f"{weights + 5} parameters, {weights} (99 %) of them in groups that can be pruned" in text


def test_groups_draws_which_layers_share_which_channels(task: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = call("groups", task, "--draw", tmp_path / "small.svg", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["drawing"] == str(tmp_path / "small.svg")
    assert ">small: which layers share which channels</text>" in (tmp_path / "small.svg").read_text(encoding="utf-8")
    assert str(tmp_path / "small.png") in call("groups", task, "--draw", tmp_path / "small.png").stdout


def test_groups_refuses_a_picture_that_it_cannot_draw_before_it_loads_the_task(tmp_path: Path) -> None:
    done = call("groups", tmp_path / "absent.py", "--draw", tmp_path / "small.bmp")
    assert done.exit_code == 2
    assert ".svg, .png, .pdf" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("width", [80, 60])
def test_long_names_and_reasons_are_wrapped_to_the_terminal(width: int) -> None:
    report = describe(analyze(GatedNet(), (torch.zeros(1, 3, 5, 5),)))
    for group in report["groups"]:
        group["name"] = f"features.denseblock1.denselayer1.{group['name']}"
        group["frozen_because"] = group["frozen_because"] and "a shrunk copy does not run: " + 9 * "size 3, not 4; "
    shown = io.StringIO()
    show_groups(report | {"task": "gated", "seconds": 0.1}, Console(file=shown, width=width))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for group in report["groups"]:
        assert not group["frozen_because"] or f"{group['name']}" in shown.getvalue()


def test_groups_keeps_out_what_is_frozen_by_a_pattern(task: Path) -> None:
    report = json.loads(call("groups", task, "--freeze", "0", "--json").stdout)
    assert [group["size"] for group in report["groups"] if not group["frozen_because"]] == [8]


def test_an_element_in_two_dimensions_of_a_group_counts_once() -> None:
    members = (Member("w", 0, ((0,), (1,))), Member("w", 1, ((0,), (1,))), Member("b", 0, ((0,), (1,))))
    group = ChannelGroup("g", 2, members)
    assert count_parameters([group], {"w": (4, 4), "b": (4,)}) == 16 - 2 * 2 + 2
    assert count_parameters([group], {"w": (4, 4)}) == 12  # a buffer is no parameter


@pytest.mark.parametrize("network", [ResidualNet, GatedNet, ConcatNet, SharedNet])
def test_shares_and_totals_count_the_elements_that_groups_reach(network: Callable[[], nn.Module]) -> None:
    model = network()
    report = describe(analyze(model, (torch.zeros(1, 3, 5, 5),)))
    together = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in model.named_parameters()}
    total = sum(parameter.numel() for parameter in model.parameters())
    for group in report["groups"]:
        alone = {name: torch.zeros_like(mask) for name, mask in together.items()}
        for member in group["members"]:
            positions = torch.tensor(sorted(index for choice in member["indices"] for index in choice))
            for masks in (alone, together) if not group["frozen_because"] else (alone,):
                if member["parameter"] in masks:
                    masks[member["parameter"]].index_fill_(member["dimension"], positions, True)
        assert group["parameters"] == sum(int(mask.sum()) for mask in alone.values())
        assert group["parameter_share"] == group["parameters"] / total
        assert group["macs_share"] is None or 0 < group["macs_share"] <= 1
    assert report["parameters"] == total
    assert report["prunable_parameters"] == sum(int(mask.sum()) for mask in together.values())


def roles(model: nn.Module, *inputs: Tensor) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """By layer, in the order in which they run: the groups that it takes in, gives out and keeps."""
    network = analyze(model, inputs or (torch.zeros(1, 3, 8, 8),))
    return {layer["name"]: (layer["takes"], layer["gives"], layer["keeps"]) for layer in read_layers(network)}


def test_layers_stand_in_the_order_in_which_they_run_with_what_they_do_to_channels() -> None:
    assert roles(GatedNet()) == {
        "expand": (["expand#2"], ["expand"], []),
        "depthwise": ([], [], ["expand"]),
        "squeeze": (["expand"], ["squeeze"], []),
        "excite": (["squeeze"], ["expand"], []),
        "project": (["expand"], ["project"], []),
    }
    found = roles(ResidualNet())
    assert list(found) == ["stem", "norm", "inner", "inner_norm", "outer", "head"]
    assert found["norm"] == ([], [], ["stem"])
    assert found["outer"] == (["inner"], ["stem"], [])
    assert roles(ConcatNet(), torch.zeros(1, 3, 5, 5))["after"] == (["left", "right"], ["after"], [])


def test_a_layer_called_twice_takes_the_channels_that_it_gives() -> None:
    assert roles(SharedNet())["shared"] == (["stem"], ["stem"], [])


def test_a_head_that_runs_in_training_only_comes_last() -> None:
    network = analyze(PATTERNS["auxiliary head in training"], (torch.zeros(1, 3, 8, 8),))
    *others, last = read_layers(network)
    assert (last["name"], last["takes"], last["gives"], last["runs"]) == ("aux", ["a"], ["aux"], False)
    assert all(layer["runs"] for layer in others)


def test_weights_that_are_computed_or_stand_outside_modules_belong_to_layers_too() -> None:
    assert list(roles(PATTERNS["weight norm"])) == ["a", "b", "z"]
    assert list(roles(PATTERNS["scaled weights"])) == ["a", "w", "s", "z"]
    found = roles(PATTERNS["MultiheadAttention"])
    assert list(found) == ["a", "m.in_proj", "m.out_proj", "z"]
    assert found["m.in_proj"][0] == found["a"][1]
    assert roles(PATTERNS["position table"])["p"][2][:1] == ["a"]


def test_what_else_a_group_carries_does_not_spoil_the_report() -> None:
    network = analyze(ResidualNet(), (torch.zeros(1, 3, 5, 5),))
    known = [item.name for item in fields(ChannelGroup) if item.name != "programs"]
    groups = tuple(Carrying(**{name: getattr(group, name) for name in known}) for group in network.groups)
    changed = replace(network, structure=replace(network.structure, groups=groups))
    report = json.loads(json.dumps(describe(changed)))
    assert report["groups"][0]["programs"] == ["attention"]
    assert report["groups"][0]["name"] == "stem"


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
    # what is started in the background inherits that SIGINT is ignored; at a terminal it is not
    listen = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    source = TASK.replace("def model():", f"def model():\n    import signal\n    {listen}\n    {kill}")
    (tmp_path / "stopped.py").write_text(source)
    done = process("profile", tmp_path / "stopped.py", "--table", tmp_path / "t.db")
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
