"""What stands in place of a block's units has a name, a price of its own where there is one, and is never nothing."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from torch import nn

from lut import LatencyTable, Predictor, UnitSpec
from lut.records import Measurement, Unit, UnitFamily
from profiler.blocks import find_blocks, without_blocks
from profiler.inplace import MERGED
from profiler.leftovers import Leftover, Standing, standing
from profiler.network import Network
from tests.lut.examples import CONFIG, CPU
from tests.profiler.residual_networks import WIDTH, Basic, Scaled
from tests.profiler.test_blocks import Forked, network_of


def rows_of(network: Network, ms: float = 1.0) -> list[Measurement]:
    specs = [UnitSpec(unit.family, unit.channels(network.widths)) for unit in network.units]
    return [
        Measurement(spec, CONFIG, (ms, ms), ms, 0.01, place="in place", kernels=((f"kernel {number}", ms),))
        for number, spec in enumerate(specs)
    ]


def table_of(rows: list[Measurement]) -> LatencyTable:
    return LatencyTable(CPU, rows)


def test_without_blocks_everything_is_as_it_was() -> None:
    network = network_of(Basic())
    assert standing(network, []) == Standing()
    assert Standing().gone == frozenset()


def test_a_block_whose_relu_does_nothing_any_more_leaves_nothing() -> None:
    network = network_of(Basic(), Basic(stride=2), Basic())
    found = standing(network, [find_blocks(network)[1]])
    assert found.lost == {"inner.2.conv1", "inner.2.conv2"} == found.gone
    assert found.left == ()


def test_what_is_left_is_priced_or_missing_but_never_nothing() -> None:
    network = network_of(Forked())
    (block,) = find_blocks(network)
    rows = rows_of(network)
    new = {unit.family for unit in standing(network, [block]).left}
    blind_rows = [row for row in rows if row.spec.family not in new]
    predictor = Predictor(network.units, table_of(blind_rows), allow_missing=True)
    found, _ = standing(network, [block]).priced(predictor.prices)
    widths = network.widths
    left = {unit.name for unit in found.left if not predictor.prices(unit)}
    assert left
    blind = predictor.predict(widths, gone=found.gone, left=found.left)
    assert left <= set(blind.missing)
    known = table_of([*rows, *(row_of(unit.spec(widths), 0.5) for unit in standing(network, [block]).left)])
    other = Predictor(network.units, known)
    found, before = standing(network, [block]).priced(other.prices)
    seeing = other.predict(widths, gone=found.gone, left=found.left)
    assert (seeing.missing, before) == ((), ())
    present = without_blocks(network, [block])
    assert {unit.unit for unit in seeing.units} == {unit.name for unit in present.units}
    assert other.latency_ms(widths, gone=found.gone, left=found.left) == seeing.total.ms


def row_of(spec: UnitSpec, ms: float) -> Measurement:
    return Measurement(spec, CONFIG, (ms, ms), ms, 0.01, place="in place", kernels=(("kernel", ms),))


def test_a_unit_that_took_something_up_has_its_own_price_or_counts_as_before() -> None:
    network = network_of(nn.Conv2d(WIDTH, WIDTH, 1), Scaled())
    found = standing(network, find_blocks(network))
    (leftover,) = [each for each in found.leftovers if each.unit.name == "inner.0"]
    assert leftover.changed
    before = next(unit for unit in network.units if unit.name == "inner.0")
    assert leftover.unit.family != before.family
    known, as_before = found.priced(lambda _: True)
    assert (known, as_before) == (found, ())
    unknown, as_before = found.priced(lambda _: False)
    assert "inner.0" in as_before
    assert "inner.0" not in unknown.gone
    assert unknown.lost == found.lost


@pytest.mark.parametrize("inner", [(Forked,), (lambda: nn.Conv2d(WIDTH, WIDTH, 1), Scaled), (Basic, Forked, Basic)])
def test_what_a_trial_measured_is_written_down_for_what_really_ran(inner: Sequence[Callable[[], nn.Module]]) -> None:
    network = network_of(*(make() for make in inner))
    blocks = find_blocks(network)
    found = standing(network, blocks)
    rows, forms = found.rows(network.units, rows_of(network), network.widths)
    shared = Counter(name for leftover in found.leftovers for name in leftover.takes)
    mixed = {each.unit.name for each in found.leftovers if any(shared[name] > 1 for name in each.takes)}
    told = [unit for unit in without_blocks(network, blocks).units if unit.name not in mixed]
    assert Counter(row.spec for row in rows) == Counter(unit.spec(network.widths) for unit in told)
    assert set(forms) == {unit.name for unit in told}
    kernels = [kernel for row in rows for kernel in row.kernels]
    assert len(kernels) == len(set(kernels)), "no kernel's time is counted twice"


def test_kernels_of_one_kind_are_counted_in_what_takes_several_units() -> None:
    one, two = ("Conv", 1.0), ("Relu", 0.5)
    found = Standing(frozenset({"a"}), (Leftover(unit("b"), frozenset({"a", "c"}), changed=False),))
    spec = unit("b").spec({})
    rows = [
        replace(row_of(spec, 1.5), kernels=(one, two)),
        replace(row_of(spec, 2.0), kernels=(("Conv ×2", 2.0),)),
        replace(row_of(spec, 1e-6), kernels=((MERGED, 1e-6),)),
    ]
    (kept, joined), forms = found.rows([unit("a"), unit("c"), unit("d")], rows, {})
    assert kept is rows[2]
    assert dict(joined.kernels) == {"Conv ×3": 3.0, "Relu": 0.5}
    assert joined.median_ms == 3.5
    assert forms["b"] == ("Conv ×3", "Relu")
    assert found.forms({"a": ("Conv", "Relu"), "c": ("Conv ×2",), "d": (MERGED,)}) == {
        "b": ("Conv ×3", "Relu"),
        "d": (MERGED,),
    }


def unit(name: str) -> Unit:
    return Unit(name, UnitFamily("elementwise", "fp32", (), ()), ())
