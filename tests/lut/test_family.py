"""Units priced kernel by kernel: where forms jump, sums of kernels do not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lut import LatencyTable, Measurement, UnitFamily, UnitSpec
from lut.family import Family, Pool
from lut.work import WORK, work
from tests.lut.examples import CONFIG, CPU, convolution

FAST, SLOW, REORDER = "blocked", "plain", "reorder"


def _truth(channels: NDArray[np.int64], kernel: str) -> NDArray[np.float64]:
    """A known device: blocks of 16 in the fast kernel, a slow one that goes by the channel, a reorder by the inputs."""
    inputs, outputs = channels[:, 0], channels[:, 1]
    found = {
        FAST: 0.02 + 5e-5 * (-(-inputs // 16) * 16) * (-(-outputs // 16) * 16),
        SLOW: 0.05 + 1.2e-4 * inputs * outputs,
        REORDER: 0.01 + 1e-3 * inputs,
    }[kernel]
    return np.asarray(found, dtype=np.float64)


def _form(channels: tuple[int, int], neighbour_plain: bool) -> tuple[str, ...]:
    """Inputs that are no multiple of 4 need the slow kernel; a plain neighbour's output has to be laid out anew."""
    if channels[0] % 4:
        return (SLOW,)
    return (FAST, REORDER) if neighbour_plain else (FAST,)


def _row(channels: tuple[int, int], neighbour_plain: bool, family: UnitFamily | None = None) -> Measurement:
    form = _form(channels, neighbour_plain)
    at = np.array([channels])
    kernels = tuple(sorted((kernel, float(_truth(at, kernel)[0])) for kernel in form))
    ms = sum(value for _, value in kernels)
    return Measurement(UnitSpec(family or convolution(), channels), CONFIG, (ms,), ms, 0.005, kernels=kernels)


def _sample(seed: int, count: int) -> list[tuple[tuple[int, int], bool]]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        step = (16, 1)[number % 2]
        inputs, outputs = (int(c) for c in np.maximum(generator.integers(8, 257, 2) // step * step, step))
        found.append(((inputs, outputs), bool(generator.random() < 0.3)))
    return found


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return LatencyTable(CPU, [_row(channels, plain) for channels, plain in _sample(0, 60)])


def test_with_its_form_known_a_unit_is_priced_within_2_percent_although_forms_jump(table: LatencyTable) -> None:
    others = _sample(1, 300)
    forms = [tuple(sorted(_form(channels, plain))) for channels, plain in others]
    truth = np.array([_row(channels, plain).median_ms for channels, plain in others])
    channels = [channels for channels, _ in others]
    known = table.estimate_many(convolution(), channels, forms).ms
    guessed = table.estimate_many(convolution(), channels).ms
    assert np.abs(known / truth - 1).mean() <= 0.02
    assert np.abs(known / truth - 1).mean() < np.abs(guessed / truth - 1).mean()


def test_a_guess_goes_by_the_alignment_at_which_forms_were_seen(table: LatencyTable) -> None:
    odd = table.estimate_many(convolution(), [(97, 96)]).ms[0]
    even = table.estimate_many(convolution(), [(96, 96)]).ms[0]
    assert odd == pytest.approx(float(_truth(np.array([[97, 96]]), SLOW)[0]), rel=0.1)
    assert even == pytest.approx(float(_truth(np.array([[96, 96]]), FAST)[0]), rel=0.15)


def test_an_interval_is_wider_where_the_form_is_guessed(table: LatencyTable) -> None:
    known = table.estimate_many(convolution(), [(100, 60)], [(FAST,)])[0]
    guessed = table.estimate_many(convolution(), [(100, 60)])[0]
    assert guessed.high_ms / guessed.low_ms > known.high_ms / known.low_ms
    assert known.basis == guessed.basis == "interpolated"


def test_at_measured_channels_the_form_that_was_seen_there_is_taken(table: LatencyTable) -> None:
    channels, plain = _sample(0, 60)[1]
    found = table.estimate_many(convolution(), [channels])[0]
    assert found.basis == "measured"
    assert found.ms == pytest.approx(_row(channels, plain).median_ms, rel=0.02)


def test_a_kernel_that_the_family_never_ran_is_priced_by_what_it_costs_elsewhere() -> None:
    """A 5×5 convolution was only seen with the fast kernel; the slow one is known from the 3×3."""
    wide = convolution(5)
    rows = [_row(channels, plain) for channels, plain in _sample(0, 60)]
    rows += [_row((16 * n, 16 * n), False, wide) for n in range(1, 9)]
    found = LatencyTable(CPU, rows).estimate_many(wide, [(50, 60)], [(SLOW,)])[0]
    assert found.basis == "extrapolated"
    plain = float(_truth(np.array([[50, 60]]), SLOW)[0])
    assert plain < found.ms < 25 / 9 * plain * 1.3


def test_a_kernel_that_nobody_knows_is_never_free(table: LatencyTable) -> None:
    found = table.estimate_many(convolution(), [(97, 96)], [("unheard of",)])[0]
    assert found.ms == pytest.approx(table.estimate_many(convolution(), [(97, 96)])[0].ms)


def test_a_left_out_point_is_predicted_from_its_neighbours_alone() -> None:
    rows = [_row((16 * n, 64), False) for n in range(1, 13)]
    odd = _row((96, 64), False)
    truth = float(odd.median_ms or 0.0)
    disturbed = Measurement(odd.spec, CONFIG, (), 1.3 * truth, 0.005, kernels=((FAST, 1.3 * truth),))
    table = LatencyTable(CPU, [row for row in rows if row.spec.channels != (96, 64)] + [disturbed])
    said = table.estimate_many(convolution(), [(96, 64)], [(FAST,)]).ms[0]
    left_out = table.estimate_many(convolution(), [(96, 64)], [(FAST,)], left_out=True).ms[0]
    assert 0.95 * truth < left_out < said


def test_the_blocks_of_a_kernel_are_found_in_all_families_together() -> None:
    """Twelve points, multiples of 16 but two, tell no staircase; another family's do."""
    wide = convolution(5)
    few = [((16 * n, 32), False) for n in range(1, 11)] + [((40, 24), False), ((8, 40), False)]
    rows = [_row(channels, plain) for channels, plain in _sample(0, 80)] + [_row(c, p, wide) for c, p in few]
    family = Family(wide, rows[-12:], Pool(rows))
    surface = family.surface(FAST)
    assert surface is not None
    assert surface.steps == (16, 16)


def test_work_is_counted_from_the_familys_shapes() -> None:
    counted = dict(zip(WORK, work(convolution(), np.array([[8, 16]]))[0], strict=True))
    assert counted == {
        "call": 1,
        "multiply-adds": 8 * 16 * 9 * 28 * 28,
        "elements read": 8 * 28 * 28,
        "elements written": 16 * 28 * 28,
        "weights": 8 * 16 * 9,
    }
    depthwise = UnitFamily(
        "convolution", "fp32", ((1, "c0", 8, 8),), ((1, "c0", 8, 8),), (("kernel", (3, 3)), ("part", 1))
    )
    assert work(depthwise, np.array([[10]]))[0, 1] == 10 * 9 * 64
    linear = UnitFamily("linear", "fp32", ((4, "c0", 7, 7),), ((4, "c1"),))
    assert work(linear, np.array([[2, 5]]))[0].tolist() == [1, 4 * 5 * 98, 4 * 98, 20, 5 * 98]
    assert work(UnitFamily("cat", "fp32", (("c0",), (3,)), (("c1",),)), np.array([[2, 5]]))[0].tolist() == [
        1,
        0,
        5,
        5,
        0,
    ]


def test_a_step_keeps_to_the_kernels_blocks_and_to_where_the_forms_stay(table: LatencyTable) -> None:
    """Blocks of 16; plain outputs of a neighbour, now and then, change nothing about the unit's own steps."""
    assert table.family(convolution()).steps == (16, 16)


def test_a_step_is_the_alignment_of_the_forms_where_the_kernel_goes_by_the_channel() -> None:
    rows = []
    for channels, _ in _sample(3, 120):
        kernel = SLOW if channels[0] % 8 else REORDER
        ms = float(_truth(np.array([channels]), kernel)[0]) + 1e-4 * channels[1]
        rows.append(Measurement(UnitSpec(convolution(), channels), CONFIG, (), ms, 0.005, kernels=((kernel, ms),)))
    assert LatencyTable(CPU, rows).family(convolution()).steps == (8, 1)
