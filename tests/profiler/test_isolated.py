"""Units' times from packed copies and whole engines, simulated with a known truth; naive readings fail."""

import numpy as np
import pytest

from lut.errors import BackendError
from profiler.isolated import Packed, TimeAlone, Whole, arbitrate, slope, time_alone

LAUNCH_MS, BORDER_MS, UNIT_MS = 0.02, 0.006, 0.03
NOISE = 0.003


def packed(generator: np.random.Generator, each_ms: float) -> list[Packed]:
    found = []
    for copies in (1, 4, 16, 32):
        truth = LAUNCH_MS + copies * each_ms
        found.append(Packed(copies, truth * (1 + NOISE * generator.standard_normal()), NOISE))
    return found


def test_launch_and_borders_are_taken_off_and_the_error_is_honest() -> None:
    generator = np.random.default_rng(0)
    found, naive = [], []
    for _ in range(200):
        unit = packed(generator, UNIT_MS + BORDER_MS)
        found.append(time_alone(unit, packed(generator, BORDER_MS)))
        naive.append(unit[0].median_ms)
    times = np.array([each.ms for each in found])
    assert np.mean(times) == pytest.approx(UNIT_MS, rel=0.002)
    assert np.std(times) == pytest.approx(np.mean([each.error_ms for each in found]), rel=0.2)
    assert np.max(np.abs(times / UNIT_MS - 1)) < 0.02
    assert np.mean(naive) > UNIT_MS * 1.5


def test_without_borders_the_slope_is_the_time() -> None:
    exact = [Packed(copies, LAUNCH_MS + copies * UNIT_MS, 0.0) for copies in (1, 8)]
    assert time_alone(exact).ms == pytest.approx(UNIT_MS)


def test_one_number_of_copies_tells_no_slope() -> None:
    with pytest.raises(ValueError, match="two numbers"):
        slope([Packed(4, 1.0, 0.01), Packed(4, 1.1, 0.01)])


def simulate(seed: int, engines: int) -> tuple[dict[str, float], dict[str, TimeAlone], list[Whole]]:
    """Units whose times alone are 20 % short (hot caches) and 8 % off one by one; engines with noise of 0.3 %."""
    generator = np.random.default_rng(seed)
    truth = {f"unit {number}": float(generator.uniform(0.01, 0.1)) for number in range(12)}
    alone = {
        key: TimeAlone(0.8 * ms * float(np.exp(0.08 * generator.standard_normal())), 0.01 * ms)
        for key, ms in truth.items()
    }
    wholes = []
    for _ in range(engines):
        counts = {key: int(generator.integers(0, 4)) for key in truth}
        ms = 0.05 + sum(count * truth[key] for key, count in counts.items())
        wholes.append(Whole(counts, ms * (1 + NOISE * float(generator.standard_normal())), NOISE))
    return truth, alone, wholes


@pytest.mark.parametrize("seed", range(5))
def test_whole_engines_correct_what_units_alone_cannot_know(seed: int) -> None:
    truth, alone, wholes = simulate(seed, 40)
    found = arbitrate(alone, wholes[:30])
    held_out = [found.predict_ms(whole.counts) / whole.median_ms - 1 for whole in wholes[30:]]
    naive = [sum(n * alone[key].ms for key, n in whole.counts.items()) / whole.median_ms - 1 for whole in wholes[30:]]
    assert np.max(np.abs(held_out)) < 0.02
    assert np.min(np.abs(naive)) > 0.1
    assert found.overhead_ms == pytest.approx(0.05, abs=0.02)
    off = np.array([found.units[key].ms / ms - 1 for key, ms in truth.items()])
    before = np.array([alone[key].ms / ms - 1 for key, ms in truth.items()])
    assert np.sqrt(np.mean(off**2)) < 0.03
    assert np.sqrt(np.mean(before**2)) > 0.15
    misses = [abs(found.units[key].ms - ms) / found.units[key].error_ms for key, ms in truth.items()]
    assert np.mean(np.array(misses) < 3) > 0.9


def test_few_engines_still_set_the_common_scale() -> None:
    truth, alone, wholes = simulate(1, 24)
    found = arbitrate(alone, wholes[:4])
    held_out = [abs(found.predict_ms(whole.counts) / whole.median_ms - 1) for whole in wholes[4:]]
    assert np.median(held_out) < 0.05
    errors = [found.units[key].error_ms / ms for key, ms in truth.items()]
    assert np.median(errors) > 0.03


def test_units_that_were_not_timed_alone_are_named_and_one_engine_is_not_enough() -> None:
    _, alone, wholes = simulate(0, 3)
    with pytest.raises(BackendError, match="first unit 3"):
        arbitrate({key: time for key, time in alone.items() if key != "unit 3"}, wholes)
    with pytest.raises(BackendError, match="two whole engines"):
        arbitrate(alone, wholes[:1])


def test_units_of_one_kind_share_what_they_are_off_by_so_that_few_engines_tell_it() -> None:
    generator = np.random.default_rng(3)
    off = {"kind 0": 1.0, "kind 1": 1.2, "kind 2": 0.85}
    kinds = {f"unit {number}": f"kind {number % 3}" for number in range(60)}
    truth = {key: float(generator.uniform(0.01, 0.1)) for key in kinds}
    alone = {key: TimeAlone(ms / off[kinds[key]], 0.01 * ms) for key, ms in truth.items()}
    wholes = []
    for _ in range(10):
        counts = {str(key): 1 for key in generator.choice(sorted(truth), 12, replace=False)}
        ms = 0.05 + sum(truth[key] for key in counts)
        wholes.append(Whole(counts, ms * (1 + NOISE * float(generator.standard_normal())), NOISE))
    shared, single = arbitrate(alone, wholes, kinds=kinds), arbitrate(alone, wholes)
    apart = [np.mean([abs(found.units[key].ms / ms - 1) for key, ms in truth.items()]) for found in (shared, single)]
    assert apart[0] < 0.03
    assert apart[1] > 2 * apart[0]
