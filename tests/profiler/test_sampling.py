"""Which widths are measured next."""

import numpy as np

from lut import Coordinate, LatencyTable, Predictor, Unit
from profiler.profile import is_stepped
from profiler.sampling import Sampler
from tests.lut.examples import CPU, convolution, row, sampled, staircase

FULL = {"a": 64, "b": 24, "c": 3}


def test_the_unpruned_network_comes_first_and_a_seed_draws_the_same_again() -> None:
    once, again = Sampler(FULL, 7), Sampler(FULL, 7)
    drawn = [once.draw() for _ in range(40)]
    assert drawn[0] == FULL
    assert drawn == [again.draw() for _ in range(40)]
    assert all(1 <= widths[name] <= size for widths in drawn for name, size in FULL.items())
    assert any(is_stepped(widths, FULL) for widths in drawn[1:])
    assert any(not is_stepped(widths, FULL) for widths in drawn)


def test_widths_are_drawn_where_the_table_knows_little() -> None:
    """Rows of narrow units alone: the wide ones are the ones to ask about."""
    g, h = Coordinate((("g", 1),)), Coordinate((("h", 1),))
    units = [Unit("first", convolution(), (Coordinate((), 16), g)), Unit("second", convolution(), (g, h))]
    rows = [row((16, c), 0.1 + 0.001 * c) for c in range(16, 257, 16)]
    rows += [row((c, 16), 0.1 + 0.001 * c) for c in range(16, 257, 16)]
    predictor = Predictor(units, LatencyTable(CPU, rows))
    full = {"g": 256, "h": 256}

    def known(widths: dict[str, int]) -> float:
        return float(predictor.uncertainties([widths])[0])

    blind, seeing = Sampler(full, 3), Sampler(full, 3)
    first = [known(blind.draw()) for _ in range(30)][1:]
    chosen = [known(seeing.draw(predictor)) for _ in range(30)][1:]
    assert np.mean(chosen) > np.mean(first)


def test_once_a_step_is_found_widths_stand_on_its_edges_and_just_over_them() -> None:
    channels = sampled(0, 80)
    rows = [row(tuple(map(int, c)), float(ms)) for c, ms in zip(channels, staircase(channels, 32), strict=True)]
    units = [Unit("only", convolution(), (Coordinate((("g", 1),)), Coordinate((("h", 1),))))]
    predictor = Predictor(units, LatencyTable(CPU, rows))
    assert predictor.table.width_step("h", units) == 32
    sampler = Sampler({"g": 256, "h": 256})
    drawn = [sampler.draw(predictor) for _ in range(120)][4::4]
    places = [widths["h"] % 32 for widths in drawn if widths["h"] < 256]
    assert set(places) == {0, 1}


def test_a_network_of_which_nothing_can_be_pruned_is_drawn_as_it_is() -> None:
    assert Sampler({}).draw() == {}
