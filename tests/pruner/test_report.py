"""`latprune report`: one file that says what the run's files say, escapes it, and refuses what is no finished run."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pruner.budget import Budget
from pruner.commands.parsing import parse_budget, parse_memory
from pruner.commands.prune import prune
from pruner.main import app
from pruner.plan import PrunePlan
from pruner.report_command import FOR_MEMORY, command
from pruner.request import PruneConfig
from pruner.runstate import open_run
from pruner.show import solver_lines
from tests.lut.examples import CPU
from tests.pruner.test_main_show import SIDE

PLAN = PrunePlan(
    network_hash="abc",
    kept={"stem": (0, 1, 2, 3), "<b>wide</b>": (1, 5, 7)},
    sizes={"stem": 4, "<b>wide</b>": 12},
    removed={},
    importance="fisher",
    solver="milp",
    seed=7,
    frozen=("head.*",),
    removed_blocks=("layer1.1",),
    programs=({"module": "attention & more"},),
)
BEFORE = {**SIDE, "macs": 2e6, "metrics": {"top1": 0.97, "top5": 0.99}, "memory_of": "openvino"}
RESULT: dict[str, Any] = {
    "budget_ms": 0.92,
    "memory_budget_bytes": 1_500_000,
    "metric": "top1",
    "before": BEFORE,
    "after": {**BEFORE, "measured_ms": 0.9, "noise": 0.012, "parameters": 61728, "metrics": {"top1": 0.96, "top5": 1}},
    "seed": 7,
    "versions": {"python": "3.11", "latprune": "0.1"},
    "fingerprint": replace(CPU, settings=(("affinity", "pinned on 1"),)).to_json(),
    "solver": {"name": "milp", "rounds": [{"importance_kept": 0.99953, "gap": 0.0012, "measured_of_unpruned": [0.49]}]},
    "checks": [
        {"name": "latency", "passed": True, "detail": "0.9 ms of 0.92 ms"},
        {"name": "outputs", "passed": False, "detail": "differ <script>alert(1)</script>"},
    ],
    "plan": PLAN.to_json(),
}


def request(config: PruneConfig | None = None, **budget: float) -> dict[str, Any]:
    asked = Budget(**(budget or {"fraction": 0.5}))
    config = config or PruneConfig(seed=7)
    return {"task": "a <task>", "budget": asdict(asked), "config": asdict(config), "table": "my table.db"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    state = open_run(folder, request=request())
    PLAN.write(folder / "plan.json")
    (folder / "result.json").write_text(json.dumps(RESULT))
    state.finish()
    return folder


def call(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


class Page(HTMLParser):
    """The rows of a page's tables by the tables' ids, and every tag and address in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self.addresses: list[str | None] = []
        self._table = ""
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.addresses += [given[name] for name in ("href", "src") if name in given]
        if tag == "table":
            self._table = given["id"]
            self.rows[self._table] = []
        elif tag == "tr":
            self.rows[self._table].append([])
        elif tag in ("td", "th"):
            self.rows[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._table and self.rows[self._table] and self.rows[self._table][-1]:
            self.rows[self._table][-1][-1] += data.strip()


def page_of(run: Path) -> Page:
    done = call("report", run)
    assert done.exit_code == 0, done.output
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_report_shows_every_figure_before_and_after(run: Path) -> None:
    rows = {row[0]: row[1:] for row in page_of(run).rows["figures"]}
    assert rows["top1"] == ["0.97", "0.96", "0.990"]
    assert rows["top5"] == ["0.99", "1", "1.010"]
    assert rows["measured"] == ["1.84 ms ± 0.6 %", "0.900 ms ± 1.2 %", "0.488"]
    assert rows["predicted"] == ["1.84 ms", "1.84 ms", "1.000"]
    assert rows["parameters"] == ["123,456", "61,728", "0.500"]
    assert rows["workspace"] == ["0 MB", "0 MB", "–"]
    assert {"MACs", "total memory", "weights", "peak activations", "traffic"} <= set(rows)


def test_the_report_shows_checks_widths_solver_device_and_versions(run: Path) -> None:
    page = page_of(run)
    assert [row[:2] for row in page.rows["checks"]] == [["✓", "latency"], ["✗", "outputs"]]
    assert [row[:3] for row in page.rows["widths"][1:]] == [["stem", "4", "4"], ["<b>wide</b>", "12", "3"]]
    assert page.rows["rounds"][1] == ["1", "99.95 %", "0.1 %", "49.0 %"]
    made = dict(page.rows["made"])
    assert made["device"] == "Some CPU (2 cores)"
    assert (made["affinity"], made["latprune"], made["seed"]) == ("pinned on 1", "0.1", "7")
    for part in ("missed: outputs", "budget 0.920 ms", "memory budget 1.50 MB", "7 of 16 channels", "openvino lays it"):
        assert part in page.text
    for part in ("Blocks that went: layer1.1", "Kept whole as asked: head.*", "attention & more"):
        assert part in page.text


def test_a_bar_is_as_long_as_the_share_of_channels_kept(run: Path) -> None:
    page_of(run)
    assert re.findall(r'style="width: ([\d.]+)%"', (run / "report.html").read_text()) == ["100.00", "25.00"]


def test_the_report_fetches_nothing_runs_nothing_and_escapes_what_users_wrote(run: Path) -> None:
    page = page_of(run)
    assert page.addresses == []
    assert not page.tags & {"script", "link", "iframe", "img", "b", "task"}
    text = (run / "report.html").read_text()
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "a <task>, pruned" in page.text


def test_the_same_run_gives_the_same_report_and_overwriting_the_run_removes_it(run: Path, tmp_path: Path) -> None:
    page_of(run)
    first = (run / "report.html").read_bytes()
    done = call("report", run, "--out", tmp_path / "elsewhere.html", "--json")
    assert json.loads(done.stdout) == {"file": str(tmp_path / "elsewhere.html")}
    assert (tmp_path / "elsewhere.html").read_bytes() == first
    open_run(run, overwrite=True, request=request())
    assert not (run / "report.html").exists()


def test_the_console_says_what_each_round_kept_and_what_was_proved() -> None:
    first = RESULT["solver"]["rounds"][0]
    assert solver_lines(RESULT) == ["importance kept 99.95 %, by milp, proved gap 0.1 %"]
    assert solver_lines({"solver": {"name": "greedy", "rounds": [first, {**first, "gap": None}]}}) == [
        "round 1: importance kept 99.95 %, by greedy, proved gap 0.1 %",
        "round 2: importance kept 99.95 %, by greedy, no gap proved: another plan may keep more",
    ]
    assert solver_lines({}) == []


def test_figures_that_are_not_known_are_shown_as_such(run: Path) -> None:
    sides = {side: {**RESULT[side], "predicted_ms": None, "metrics": {}} for side in ("before", "after")}
    (run / "result.json").write_text(json.dumps({**RESULT, **sides, "solver": None, "memory_budget_bytes": None}))
    page = page_of(run)
    assert ["predicted", "–", "–", "–"] in page.rows["figures"]
    assert "rounds" not in page.rows
    assert "memory budget" not in page.text


def test_without_its_state_a_run_is_shown_without_the_command(run: Path) -> None:
    (run / "state.json").unlink()
    page = page_of(run)
    assert "the command is gone" in page.text
    assert "latprune prune TASK" not in page.text


def break_plan(run: Path) -> None:
    replace(PLAN, kept={**PLAN.kept, "stem": (0, 1)}).write(run / "plan.json")


def unfinish(run: Path) -> None:
    open_run(run, overwrite=True, request=request())


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(text)


def result_with(**changed: Any) -> Callable[[Path], object]:
    return write("result.json", json.dumps({**RESULT, **changed}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (unfinish, "unfinished run"),
        (lambda run: (run / "result.json").unlink(), "no result.json"),
        (lambda run: (run / "plan.json").unlink(), "There is no"),
        (break_plan, "different runs"),
        (write("result.json", '{"before": '), "damaged"),
        (write("result.json", "[]"), "no JSON object"),
        (write("state.json", "{"), "damaged"),
        (write("plan.json", "{}"), "not a plan"),
        (result_with(after=None), "'after' is missing"),
        (result_with(checks=["latency"]), "one of its checks"),
        (result_with(before={**BEFORE, "measured_ms": "fast"}), "'measured_ms' is 'fast', not a number"),
    ],
)
def test_what_is_no_finished_run_is_refused_with_2(run: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(run)
    done = call("report", run)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert not (run / "report.html").exists()


def test_a_directory_that_is_not_there_and_a_file_that_cannot_be_written_are_refused_with_2(run: Path) -> None:
    for args in ((run / "nowhere",), (run, "--out", run / "nowhere" / "report.html")):
        done = call("report", *args)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "nowhere" in done.stderr


def test_the_command_asks_for_what_the_run_was_asked_for() -> None:
    config = PruneConfig(
        seed=7, freeze=("head.*", "a b"), min_width=8, memory_of="tensorrt-rtx", allow_differences=("driver",)
    )
    words = command(request(config, ms=8.25, memory_fraction=0.5))
    assert words == (
        "latprune prune TASK --table 'my table.db' --budget 8.25ms --memory 50% --seed 7 --freeze 'head.*' "
        "--freeze 'a b' --min-width 8 --backend onnxruntime --threads 1 --memory-of tensorrt-rtx "
        "--allow-difference driver --out RUN/"
    )


@pytest.mark.parametrize(
    ("solver", "normalize", "budget", "told"),
    [
        ("milp", "latency", {"fraction": 0.5}, ""),
        ("milp", "memory", {"memory_bytes": 100}, ""),
        ("greedy", "latency", {"fraction": 0.5}, "--solver greedy"),
        ("greedy", "flops", {"fraction": 0.5}, "--normalize flops --solver greedy"),
        ("greedy", "memory", {"memory_bytes": 100}, "--solver greedy"),
    ],
)
def test_the_command_normalizes_only_where_prune_takes_that(
    solver: str, normalize: str, budget: Mapping[str, float], told: str
) -> None:
    words = command(request(PruneConfig(solver=solver, normalize=normalize), **budget))
    given = re.findall(r"--(?:normalize|solver) \w+", words)
    assert " ".join(given) == told


def test_what_memory_is_compiled_for_stands_behind_its_runtime() -> None:
    config = PruneConfig(memory_of="tensorrt-rtx", memory_capability="8.9", memory_precision="fp16")
    assert "--memory-of tensorrt-rtx:8.9:fp16 " in command(request(config, memory_fraction=0.5))


def test_the_commands_budgets_read_back_as_what_was_asked() -> None:
    words = command(request(fraction=0.55, memory_bytes=1_500_001)).split()
    assert parse_budget(words[words.index("--budget") + 1]).fraction == pytest.approx(0.55)
    assert parse_memory(words[words.index("--memory") + 1]).value == 1_500_001


def test_every_setting_of_a_run_has_its_option() -> None:
    options = set(inspect.signature(prune).parameters) | {"allow_differences", *FOR_MEMORY}
    assert {field.name for field in fields(PruneConfig)} <= options
