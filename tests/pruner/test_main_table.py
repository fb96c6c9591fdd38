"""`latprune table`: what is shown, merged, exported and drawn, and how each command refuses a file that is no table."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lut import DeviceFingerprint, Measurement, TableFile, UnitFamily
from lut.recheck import adopt, compare, judge, pair_networks, pair_up
from profiler.recheck import RecheckReport
from pruner.commands.table_show import tell_apart
from pruner.main import app
from tests.lut.examples import CONFIG, CPU, GPU, convolution, network_row, row, sampled, staircase

NEWER = replace(CPU, runtime_version="1.33", settings=(("affinity", "free on 2"),))
SINGLE = UnitFamily("mean", "fp32", ((1, "c0", 7, 7),), ((1, "c0"),))
FIXED = UnitFamily("softmax", "fp32", ((1, 10),), ((1, 10),))


def call(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def answer(*args: object) -> Any:
    done = call(*args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.db"
    channels = sampled(0, 60)
    rows = [row((int(a), int(b)), float(ms)) for (a, b), ms in zip(channels, staircase(channels), strict=True)]
    rows += [row((count,), 0.01 * -(-count // 8), SINGLE) for count in range(8, 80, 3)]
    rows += [row((), 0.02, FIXED)]
    isolated = replace(row((16, 16), 0.2, convolution(1)), place="isolated")
    failed = Measurement(rows[0].spec, CONFIG, (), None, None, failure="out of memory\nat node 3")
    with TableFile(path, create=True) as file:
        file.add_network(CPU, network_row({"g": 4}, 3.0), [*rows, isolated, failed])
    return path


def test_show_tells_coverage_and_which_rows_are_in_place_or_adopted(table: Path) -> None:
    with TableFile(table) as file:
        file.add_measurements(CPU, [adopt(row((8,), 0.01, SINGLE), 0.02)])
    (content,) = answer("table", "show", table)["fingerprints"]
    assert (content["rows"], content["in_place"], content["adopted"]) == (88, 86, 1)
    assert content["key"] == CPU.key
    text = call("table", "show", table).stdout
    for part in ("99 % in place", "1 rows were adopted", f"fingerprint {CPU.key}: device Some CPU (2 cores)"):
        assert part in text


def test_show_tells_a_fingerprints_settings(table: Path) -> None:
    with TableFile(table) as file:
        file.add_measurements(NEWER, [row((8, 8), 0.1)])
        file.add_measurements(GPU, [row((8, 8), 0.1)])
    text = call("table", "show", table).stdout
    for part in ("runtime version 1.33, threads 1, affinity free on 2", "compute capability 8.9, driver 570.86"):
        assert part in text


def test_families_that_read_alike_are_told_apart() -> None:
    one = convolution()
    other_output = replace(one, outputs=((1, "c1", 14, 14),))
    many = [replace(SINGLE, attributes=(("a", value),)) for value in ("1", 1)]  # the same text, another value
    names = tell_apart([one, other_output, *many, FIXED])
    assert len(set(names.values())) == 5
    assert names[one].endswith("→ 1×c1×28×28")
    assert all(family.key in names[family] for family in many)
    assert names[FIXED] == str(FIXED)


def test_merge_joins_tables_and_says_what_came_from_where(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with TableFile(other, create=True) as file:
        file.add_measurements(CPU, [row((8, 9), 0.1, convolution(7))])
        file.add_measurements(GPU, [row((8, 9), 0.1, convolution(7))])
    found = answer("table", "merge", table, other, "--out", tmp_path / "both.db")
    assert [(one["rows"], one["networks"]) for one in found["files"]] == [(87, 1), (2, 0)]
    assert [one["key"] for one in found["fingerprints"]] == [CPU.key, GPU.key]
    again = answer("table", "merge", table, other, "--out", table)
    assert (again["extended"], again["files"][0]["rows"]) == (True, 2)
    alone = answer("table", "merge", table, "--only", GPU.key[:8], "--out", tmp_path / "gpu.db")
    assert [one["key"] for one in alone["fingerprints"]] == [GPU.key]
    assert "one fingerprint" in call("table", "merge", tmp_path / "gpu.db", "--out", tmp_path / "gpu2.db").stdout


def test_merge_refuses_conflicts_with_2_unless_they_are_allowed(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with TableFile(table) as source, TableFile(other, create=True) as file:
        rows = [found for found in source.measurements(CPU) if found.median_ms]
        file.add_measurements(CPU, [replace(found, median_ms=1.4 * (found.median_ms or 0)) for found in rows])
    done = call("table", "merge", table, other, "--out", tmp_path / "both.db", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "40 % slower" in done.stderr
    assert "--allow-conflicts" in done.stderr
    assert not (tmp_path / "both.db").exists()
    done = call("table", "merge", table, other, "--out", tmp_path / "both.db", "--allow-conflicts", "--json")
    assert done.exit_code == 0
    assert "conflict allowed" in done.stderr
    assert json.loads(done.stdout)["conflicts"][0]["ratio"] == pytest.approx(1.4, rel=0.01)


def test_export_writes_a_row_a_measurement_with_plain_columns(table: Path, tmp_path: Path) -> None:
    with TableFile(table) as file:
        file.add_measurements(GPU, [row((8, 8), 0.1)])
        rows = file.measurements(CPU)
    found = answer("table", "export", table, "--out", tmp_path / "u.csv", "--networks", tmp_path / "n.csv", "--samples")
    assert (found["units"]["rows"], found["networks"]["rows"]) == (len(rows) + 1, 1)
    with (tmp_path / "u.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line, kept in zip(lines, rows, strict=False):
        assert (line["fingerprint"], line["family_key"]) == (CPU.key, kept.spec.family.key)
        assert [int(line[f"c{n}"]) for n in range(2) if line[f"c{n}"]] == list(kept.spec.channels)
        assert (float(line["median_ms"]) if line["median_ms"] else None) == kept.median_ms
        assert (line["failure"] or None, line["place"]) == (kept.failure, kept.place)
        assert json.loads(line["samples_ms"]) == list(kept.samples_ms)
        assert float(line["config_min_time_s"]) == CONFIG.min_time_s
    assert (lines[-1]["runtime"], lines[-1]["compute_capability"]) == ("tensorrt", "8.9")
    with (tmp_path / "n.csv").open(encoding="utf-8", newline="") as file:
        (network,) = csv.DictReader(file)
    assert (network["network"], json.loads(network["widths"])) == ("net", [["g", 4]])


def test_parquet_holds_what_csv_holds(table: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    answer("table", "export", table, "--out", tmp_path / "u.csv")
    answer("table", "export", table, "--out", tmp_path / "u.parquet", "--networks", tmp_path / "n.parquet")
    with (tmp_path / "u.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    found = parquet.read_table(tmp_path / "u.parquet")
    assert found.column_names == list(lines[0])
    assert [["" if value is None else str(value) for value in line.values()] for line in found.to_pylist()] == [
        list(line.values()) for line in lines
    ]
    types = {name: str(found.schema.field(name).type) for name in ("c0", "median_ms", "driver", "weights_bytes")}
    assert types == {"c0": "int64", "median_ms": "double", "driver": "string", "weights_bytes": "int64"}


def test_an_empty_table_is_shown_exported_and_merged(tmp_path: Path) -> None:
    TableFile(tmp_path / "t.db", create=True).close()
    assert answer("table", "show", tmp_path / "t.db")["fingerprints"] == []
    assert answer("table", "export", tmp_path / "t.db", "--out", tmp_path / "t.csv")["units"]["rows"] == 0
    assert answer("table", "merge", tmp_path / "t.db", "--out", tmp_path / "u.db")["fingerprints"] == []
    assert call("table", "plot", tmp_path / "t.db", "--out", tmp_path / "t.svg").exit_code == 2


def test_a_missing_pyarrow_is_said(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call("table", "export", table, "--out", tmp_path / "u.parquet")
    assert done.exit_code == 2
    assert 'pip install "latprune[parquet]"' in done.stderr


@pytest.mark.parametrize("name", ["t.svg", "t.png"])
def test_plot_draws_families_with_their_steps(table: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    found = answer("table", "plot", table, "--out", tmp_path / name)
    assert [len(family["steps"]) for family in found["families"]] == [2, 1, 2, 0]
    assert [family["points"] for family in found["families"]][1:] == [24, 1, 1]
    first = (tmp_path / name).read_bytes()
    assert first[:4] in (b"\x89PNG", b"<?xm")
    answer("table", "plot", table, "--out", tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    if name == "t.svg":
        text = first.decode()
        for part in ("measured", "interpolated", "extrapolated", "90 % interval", "steps of"):
            assert part in text


def test_plot_chooses_families_by_text_or_key(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for pattern in ("mean", "mean*7×7", SINGLE.key[:7]):
        found = answer("table", "plot", table, "--out", tmp_path / "t.svg", "--family", pattern)
        assert [family["key"] for family in found["families"]] == [SINGLE.key]
    done = call("table", "plot", table, "--out", tmp_path / "t.svg", "--family", "abacus")
    assert done.exit_code == 2
    assert "no family of" in done.stderr


def report_of(factor: float, new: DeviceFingerprint) -> RecheckReport:
    """What a recheck of 20 rows finds where all are slower by a factor."""
    old = [row((8 * number, 8), 0.1 * number) for number in range(1, 21)]
    pairs = pair_up(old, [replace(found, median_ms=factor * (found.median_ms or 0)) for found in old])
    whole = pair_networks([network_row({"g": 4}, 3.0)], [network_row({"g": 4}, 3.0 * factor)])
    networks = compare(whole)
    assert networks is not None
    return RecheckReport(CPU, new, judge(pairs, whole), pairs, networks, 87, 1, (), 1.0)


@pytest.mark.parametrize(
    ("factor", "new", "verdict", "code", "adopted"),
    [
        (1.0, NEWER, "holds", 0, 87),
        (1.0, CPU, "holds", 0, 0),
        (1.2, NEWER, "holds up to a factor", 1, 0),
    ],
)
def test_recheck_says_whether_rows_hold_and_adopts_only_those(
    factor: float,
    new: DeviceFingerprint,
    verdict: str,
    code: int,
    adopted: int,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pruner.commands.table_recheck.find_task", lambda *_: None)
    monkeypatch.setattr("pruner.commands.table_recheck.analyze_task", lambda _: None)
    monkeypatch.setattr(sys.modules["profiler.recheck"], "recheck", lambda *_, **__: report_of(factor, new))
    done = call("table", "recheck", table, "net.py", "--adopt", "--json")
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert (found["verdict"], found["adopted"]) == (verdict, adopted)
    assert (found["compared"], len(found["rows"])) == (20, 20)
    assert found["ratio"] == pytest.approx(factor)
    with TableFile(table) as file:
        assert file.fingerprints() == ([CPU, NEWER] if adopted else [CPU])
    assert ("were adopted under" if adopted else "nothing was adopted") in done.stderr
    text = call("table", "recheck", table, "net.py").stdout
    for part in (f"verdict: {verdict}", "20 of 20 within noise" if factor == 1 else "0 of 20 within noise"):
        assert part in text


DAMAGED = {"a text": b"hello", "nothing": b"", "a truncated table": None}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("command", ["show", "merge", "export", "plot", "recheck"])
def test_every_command_refuses_what_is_no_table_and_writes_nothing(
    command: str, content: bytes | None, table: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "bad.db"
    path.write_bytes(table.read_bytes()[: table.stat().st_size // 2] if content is None else content)
    before = path.read_bytes()
    task = tmp_path / "net.py"
    task.write_text(
        "import torch\ndef model(): return torch.nn.Linear(4, 4)\ndef example_inputs(): return (torch.zeros(1, 4),)\n"
    )
    more = {"recheck": [task], "merge": [table, "--out", tmp_path / "out.db"], "show": []}
    done = call(
        "table",
        command,
        path,
        *more.get(command, ["--out", tmp_path / f"out.{'csv' if command == 'export' else 'svg'}"]),
        "--json",
    )
    assert (done.exit_code, done.stdout) == (2, "")
    assert "bad.db is" in done.stderr
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("show nowhere.db", "there is no table"),
        ("merge t.db", "--out"),
        ("merge --out u.db", "A.db"),
        ("merge t.db nowhere.db --out u.db", "there is no table nowhere.db"),
        ("merge t.db --out t2.db --only zz", "no fingerprint's key begins with 'zz'"),
        ("export t.db --out t.xlsx", ".csv, .parquet"),
        ("export t.db --out nowhere/t.csv", "no folder nowhere"),
        ("export t.db --out t.csv --device abacus", "no fingerprint in t.db fits"),
        ("plot t.db --out t.gif", ".svg, .png, .pdf"),
        ("plot t.db --out nowhere/t.svg", "no folder nowhere"),
        ("recheck t.db nowhere.py", "nowhere.py"),
    ],
)
def test_wrong_arguments_end_with_2_and_say_what_is_right(
    arguments: str, said: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    done = call("table", *arguments.split())
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert [path.name for path in table.parent.iterdir()] == ["t.db"]
