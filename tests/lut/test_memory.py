"""Memory at any widths: all tensors at once as one by one, and less of it with fewer channels."""

from hypothesis import given
from hypothesis import strategies as st

from lut.memory import Liveness, Memory, MemoryRules, TensorBytes
from lut.records import Coordinate

GROUPS = ("a", "b", "c")
coordinates = st.builds(
    lambda terms, constant: Coordinate(tuple(terms.items()), constant),
    st.dictionaries(st.sampled_from(GROUPS), st.integers(1, 3), max_size=2),
    st.integers(0, 4),
)
tensors = st.builds(
    lambda each, dims, first, more: TensorBytes("t", each, tuple(dims), first, first + more),
    st.integers(1, 9),
    st.lists(coordinates, max_size=3),
    st.integers(0, 8),
    st.integers(0, 4),
)
livenesses = st.builds(
    lambda weights, activations, borders: Liveness(tuple(weights), tuple(activations), 13, tuple(borders)),
    st.lists(tensors, max_size=4),
    st.lists(tensors, max_size=8),
    st.lists(tensors, max_size=2),
)
widths = st.fixed_dictionaries({name: st.integers(1, 20) for name in GROUPS})


def simulated(liveness: Liveness, at: dict[str, int]) -> Memory:
    """The same by looking at every tensor at every step."""
    sizes = [tensor.at(at) for tensor in liveness.activations]
    alive = [
        sum(s for s, t in zip(sizes, liveness.activations, strict=True) if t.first <= step <= t.last)
        for step in range(liveness.steps)
    ]
    weights = sum(tensor.at(at) for tensor in liveness.weights)
    borders = sum(tensor.at(at) for tensor in liveness.borders)
    return Memory(weights, max(alive), 0, weights + borders + 2 * sum(sizes))


@given(liveness=livenesses, several=st.lists(widths, min_size=1, max_size=4))
def test_memory_is_that_of_a_simulation(liveness: Liveness, several: list[dict[str, int]]) -> None:
    assert liveness.at_many(several) == [simulated(liveness, at) for at in several]


@given(liveness=livenesses, at=widths, group=st.sampled_from(GROUPS))
def test_fewer_channels_never_need_more(liveness: Liveness, at: dict[str, int], group: str) -> None:
    full, less = liveness.at(at), liveness.at(at | {group: max(1, at[group] // 2)})
    assert all(fewer <= more for fewer, more in zip(less.to_json().values(), full.to_json().values(), strict=True))


def test_a_runtimes_rules_align_pack_and_add_their_workspace() -> None:
    sizes = [(3, 0, 1), (10, 1, 2), (20, 2, 3)]
    activations = tuple(TensorBytes("t", size, (), first, last) for size, first, last in sizes)
    plain = Liveness((), activations, 4)
    packed = Liveness((), activations, 4, (), MemoryRules(packed=True, align_bytes=16, workspace_bytes=1000))
    assert plain.at({}) == Memory(0, 30, 0, 66)
    assert packed.at({}, workspace_bytes=5) == Memory(0, 48, 1005, 66)


def test_tensors_share_the_workspaces_place_while_it_is_not_used() -> None:
    sizes = [(3, 0, 1), (10, 1, 2), (20, 2, 3)]
    activations = tuple(TensorBytes("t", size, (), first, last) for size, first, last in sizes)
    rules = MemoryRules(packed=True, granule_bytes=8, workspace_bytes=16)
    throughout = Liveness((), activations, 4, (), rules)
    assert throughout.at({}).total_bytes == 32 + 16
    once = Liveness((), activations, 4, (), rules, scratch=(1,))
    assert once.at({}).total_bytes == 40  # slots of 20, 10 and 3, rounded up to eights: the workspace takes the first
    assert [once.workspace_at(step) for step in range(4)] == [0, 16, 0, 0]
    assert throughout.workspace_at(3) == 16
