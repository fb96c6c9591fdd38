"""The picture of groups: every layer has its row, every group its bar, no label stands on another."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruner.draw import FROZEN, INPUT, OPTION, assign_lanes, draw_groups, fold_norms, plan_bars
from pruner.draw import save_drawing as save
from pruner.picture import DrawError, check_picture

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs latprune[plot]")


def layer(
    name: str, *, weight: Sequence[int] = (8, 8, 3, 3), kind: str = "Conv2d", **roles: list[str]
) -> dict[str, Any]:
    none: dict[str, list[str]] = {"gives": [], "takes": [], "keeps": []}
    return {"name": name, "kind": kind, "runs": True, "parameters": {f"{name}.weight": list(weight)}, **none, **roles}


def norm(name: str, *groups: str) -> dict[str, Any]:
    return layer(name, weight=[8], kind="BatchNorm2d", keeps=list(groups))


def group(name: str, size: int = 8, frozen: str | None = None, approximate: str | None = None) -> dict[str, Any]:
    members = [{"parameter": f"{name}.weight", "dimension": 0, "indices": [[n] for n in range(8)]}]
    return {
        "name": name, "size": 0 if frozen else size, "members": members, "frozen_because": frozen,
        "approximate_because": approximate,
    }  # fmt: skip


RESIDUAL = {
    "task": "small",
    "groups": [
        group("stem", 16),
        group("stem#2", frozen=INPUT),
        group("block.a", 24, approximate="norm in block.n normalises across them"),
        group("head", frozen="they reach the network's output"),
    ],
    "layers": [
        layer("stem", gives=["stem"], takes=["stem#2"]),
        norm("norm", "stem"),
        layer("block.a", gives=["block.a"], takes=["stem"]),
        layer("block.depthwise", weight=(24, 1, 3, 3), keeps=["block.a"]),
        norm("block.n", "block.a"),
        layer("block.b", gives=["stem"], takes=["block.a"]),
        layer("head", weight=(8, 16), kind="Linear", gives=["head"], takes=["stem"]),
    ],
}


def dense(blocks: int = 4, depth: int = 14) -> dict[str, Any]:
    """Each layer takes what all before it in its block gave, as in DenseNet: many groups at once."""
    layers, groups = [], []
    carried = "features.stem"
    layers.append(layer(carried, gives=[carried]))
    groups.append(group(carried))
    for block in range(blocks):
        live = [carried]
        for number in range(depth):
            inner, outer = (f"features.denseblock{block}.denselayer{number}.conv{n}" for n in (1, 2))
            layers.append(norm(f"features.denseblock{block}.denselayer{number}.norm1", *live))
            layers.append(layer(inner, gives=[inner], takes=list(live)))
            layers.append(layer(outer, gives=[outer], takes=[inner]))
            groups += [group(inner, 128), group(outer, 32)]
            live.append(outer)
        carried = f"features.transition{block}.conv"
        layers.append(layer(carried, gives=[carried], takes=live))
        groups.append(group(carried, 12345, frozen=f"reason number {block}"))
    return {"task": "dense", "groups": groups, "layers": layers}


def texts(report: dict[str, Any]) -> list[str]:
    return [text.get_text() for text in draw_groups(report).axes[0].texts]


def test_a_norm_stands_in_the_row_of_the_layer_whose_channels_it_keeps() -> None:
    rows = fold_norms(RESIDUAL["layers"])  # type: ignore[arg-type]
    assert [row.name for row in rows] == ["stem", "block.a", "block.depthwise", "block.b", "head"]
    assert [row.beside for row in rows] == ["with norm", "", "with n", "", ""]
    assert rows[2].keeps == ("block.a",)


def test_a_norm_of_what_two_layers_made_stands_with_the_layer_that_takes_both() -> None:
    layers = [layer("a", gives=["a"]), layer("b", gives=["b"]), norm("n", "a", "b"), layer("c", takes=["a", "b"])]
    assert [(row.name, row.beside) for row in fold_norms(layers)] == [("a", ""), ("b", ""), ("c", "with n")]


def test_of_two_neighbours_the_one_nearer_by_name_has_the_norm() -> None:
    layers = [layer("0.mlp", gives=["x"]), norm("1.norm", "x"), layer("1.qkv", takes=["x"])]
    assert [row.beside for row in fold_norms(layers)] == ["", "with norm"]
    layers = [layer("1.conv.0", gives=["x"]), norm("1.conv.1", "x"), layer("1.conv.3", takes=["x"])]
    assert [row.beside for row in fold_norms(layers)] == ["with conv.1", ""]


def test_a_norm_without_a_layer_beside_it_has_its_own_row() -> None:
    assert [row.name for row in fold_norms([norm("n", "x"), layer("z", gives=["z"], takes=["y"])])] == ["n", "z"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=30))
def test_bars_in_one_lane_never_meet(drawn: list[tuple[int, int]]) -> None:
    spans = {str(number): (first, first + length) for number, (first, length) in enumerate(drawn)}
    lanes = assign_lanes(spans)
    assert set(lanes) == set(spans)
    for name, (first, last) in spans.items():
        assert all(
            other == name or lanes[other] != lanes[name] or end < first or last < start
            for other, (start, end) in spans.items()
        )


def test_a_residual_stream_is_one_bar_at_the_left_from_its_first_layer_to_its_last() -> None:
    bars, _ = plan_bars(RESIDUAL, fold_norms(RESIDUAL["layers"]))  # type: ignore[arg-type]
    found = {bar.name: bar for bar in bars}
    assert (found["stem"].first, found["stem"].last, found["stem"].lane) == (0, 4, 0)
    assert found["stem"].size == 16
    assert found["block.a"].approximate
    assert not found["head"].approximate
    assert (found["head"].colour, found["head"].size) == (FROZEN, 8)


def test_what_is_not_drawn_and_why_groups_are_frozen_or_approximate_is_said() -> None:
    lost = {**RESIDUAL, "groups": [*RESIDUAL["groups"], group("lost")]}  # type: ignore[misc]
    bars, notes = plan_bars(lost, fold_norms(RESIDUAL["layers"]))  # type: ignore[arg-type]
    assert "stem#2" not in {bar.name for bar in bars}
    letters = {bar.name: bar.note for bar in bars if bar.note}
    assert f"{letters['head']}  frozen: they reach the network's output" in notes
    assert f"{letters['block.a']}  approximate: norm in block.n normalises across them" in notes
    assert "Not drawn: stem#2 (the network's input)." in notes
    assert "Not drawn: lost (in no layer's parameters)." in notes


def test_more_reasons_than_letters_stay_apart() -> None:
    names = [f"layer{number}" for number in range(60)]
    report = {"groups": [group(name, frozen=f"reason {name}") for name in names]}
    bars, _ = plan_bars(report, fold_norms([layer(name, gives=[name]) for name in names]))
    assert len({bar.note for bar in bars}) == 60


@needs_matplotlib
def test_every_layer_and_every_group_stands_in_the_picture() -> None:
    shown = texts(RESIDUAL)
    assert {"stem", "block.a", "block.depthwise", "block.b", "head", "with norm", "with n"} <= set(shown)
    assert shown.count("16") == 2  # the two layers that make the stream
    figure = draw_groups(RESIDUAL)
    bars = {patch.get_gid(): patch for patch in figure.axes[0].patches if patch.get_gid()}
    assert {"group stem", "group block.a", "group head"} <= set(bars)
    assert bars["group block.a"].get_hatch()
    assert not bars["group stem"].get_hatch()


@needs_matplotlib
def test_a_group_that_is_not_called_after_its_layer_is_named_at_the_right() -> None:
    report = {"groups": [group("c#2"), group("m.in_proj_weight")], "layers": [
        layer("c", gives=["c#2"]), layer("m.in_proj", gives=["m.in_proj_weight"]),
    ]}  # fmt: skip
    shown = texts(report)
    assert "c#2" in shown
    assert "m.in_proj_weight" not in shown


@needs_matplotlib
def test_channels_that_no_layer_makes_show_their_size_too() -> None:
    report = {"groups": [group("p", 197)], "layers": [layer("p", weight=(197, 8), keeps=["p"])]}
    shown = texts(report)
    assert "197" in shown
    assert "A white size: no layer makes these channels." in shown


@needs_matplotlib
@pytest.mark.parametrize("report", [RESIDUAL, dense()], ids=["residual", "dense"])
def test_no_label_stands_on_another_or_outside(report: dict[str, Any]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw_groups(report)
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.axes[0].texts]
    for number, (text, box) in enumerate(boxes):
        assert 0 <= box.x0 <= box.x1 <= width, text
        assert 0 <= box.y0 <= box.y1 <= height, text
        for other, its in boxes[:number]:
            apart = box.x1 <= its.x0 or its.x1 <= box.x0 or box.y1 <= its.y0 + 1 or its.y1 <= box.y0 + 1
            assert apart, (text, other)


@needs_matplotlib
def test_more_layers_make_the_picture_higher_and_more_groups_at_once_wider() -> None:
    small, large = draw_groups(dense(1, 4)).get_size_inches(), draw_groups(dense(2, 30)).get_size_inches()
    assert large[0] > small[0]
    assert large[1] > 4 * small[1]


@needs_matplotlib
def test_a_network_without_layers_gives_a_picture_that_says_so() -> None:
    assert any("can be pruned: 0" in text for text in texts({"groups": [], "layers": []}))


@needs_matplotlib
def test_the_text_of_an_svg_is_text_and_the_same_report_gives_the_same_file(tmp_path: Path) -> None:
    odd = {**RESIDUAL, "task": "costs $5 & <more>"}
    save(odd, tmp_path / "one.svg")
    save(odd, tmp_path / "two.svg")
    found = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert ">block.depthwise</text>" in found
    assert "costs $5 &amp; &lt;more&gt;" in found
    assert found == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "two.svg"]


@needs_matplotlib
@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG"), ("x.PDF", b"%PDF")])
def test_the_suffix_says_the_format(name: str, start: bytes, tmp_path: Path) -> None:
    save(RESIDUAL, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["picture.bmp", "picture", "picture.svg.gz"])
def test_an_unknown_suffix_is_refused_with_those_that_are_possible(name: str, tmp_path: Path) -> None:
    with pytest.raises(DrawError, match=r"\.svg, \.png, \.pdf"):
        check_picture(tmp_path / name, OPTION)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DrawError, match=r"no folder .*absent"):
        check_picture(tmp_path / "absent" / "x.svg", OPTION)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with pytest.raises(DrawError, match=r'pip install "latprune\[plot\]"'):
        check_picture(tmp_path / "x.svg", OPTION)


@needs_matplotlib
def test_a_file_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(DrawError, match="cannot be written"):
        save(RESIDUAL, tmp_path / "x.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
