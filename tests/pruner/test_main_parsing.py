"""What users write for budgets, sizes, shapes and capabilities is read, or refused with what is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruner.commands.options import capabilities
from pruner.commands.parsing import (
    Bound,
    OptionError,
    parse_budget,
    parse_capabilities,
    parse_inputs,
    parse_memory,
)


@pytest.mark.parametrize(
    ("text", "ms"), [("8ms", 8), ("0.5s", 500), ("800us", 0.8), ("800 µs", 0.8), (" 1.25 MS ", 1.25), (".5ms", 0.5)]
)
def test_a_budget_is_a_time_with_its_unit(text: str, ms: float) -> None:
    assert parse_budget(text) == Bound(value=pytest.approx(ms))


@pytest.mark.parametrize(("text", "fraction"), [("60%", 0.6), ("12.5 %", 0.125), ("99.9%", 0.999)])
def test_a_percentage_is_a_share(text: str, fraction: float) -> None:
    assert parse_budget(text) == parse_memory(text) == Bound(fraction=pytest.approx(fraction))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("40MB", 40_000_000),
        ("38MiB", 38 * 2**20),
        ("1000B", 1000),
        ("1.5 kb", 1500),
        ("2KiB", 2048),
        ("1gb", 10**9),
        ("0.5GiB", 2**29),
    ],
)
def test_a_size_is_decimal_or_binary_as_its_unit_says(text: str, size: int) -> None:
    found = parse_memory(text)
    assert found == Bound(value=size)
    assert isinstance(found.value, int)


@pytest.mark.parametrize(
    "text", ["8", "ms", "", "8m", "-8ms", "8 ms 3", "0ms", "0%", "100%", "120%", "8,5ms", "8MB", "nanms"]
)
def test_a_wrong_budget_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(OptionError, match=r"--budget[\s\S]*8ms[\s\S]*60%"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["40", "MB", "", "40M", "-1MB", "0MB", "0.1B", "8ms", "100%", "1e9B"])
def test_a_wrong_size_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(OptionError, match=r"--memory[\s\S]*40MB"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [("1x3x224x224", ((1, 3, 224, 224),)), ("1X3×8x8, 2x5", ((1, 3, 8, 8), (2, 5))), ("7", ((7,),))],
)
def test_inputs_are_shapes_separated_by_commas(text: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    assert parse_inputs(text) == shapes


@given(st.lists(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), min_size=1, max_size=3))
def test_every_list_of_shapes_can_be_written(shapes: list[list[int]]) -> None:
    text = ",".join("x".join(map(str, shape)) for shape in shapes)
    assert parse_inputs(text) == tuple(map(tuple, shapes))


@pytest.mark.parametrize("text", ["", "x", "1x", "1x0x3", "1x-3", "1 3 8 8", "1x3,", "axb", "1.5x3"])
def test_a_wrong_shape_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(OptionError, match=r"--input[\s\S]*1x3x224x224"):
        parse_inputs(text)


def test_capabilities_are_numbers_or_follow_from_a_device() -> None:
    assert parse_capabilities("8.6, 8.9,8.6") == ("8.6", "8.9")
    assert capabilities(None, "12.0") == ("12.0",)
    assert capabilities("GeForce RTX 4090", None) == ("8.9",)
    assert capabilities(None, None) == ()
    with pytest.raises(OptionError, match="one of them"):
        capabilities("RTX 4090", "8.9")


@pytest.mark.parametrize("text", ["", "8", "sm_86", "86", "8.6;8.9", "8.6,"])
def test_a_wrong_capability_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(OptionError, match=r"--compute-capability[\s\S]*8\.6,8\.9"):
        parse_capabilities(text)
