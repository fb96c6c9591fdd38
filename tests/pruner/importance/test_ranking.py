"""A ranking's order and what is lost with it, from made-up gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pruner.importance.fisher_set import Products
from pruner.importance.ranking import Ranking, rank_by_set, rank_singly

FINITE = st.floats(-100, 100, width=32)
GRADIENTS = st.tuples(st.integers(1, 6), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=FINITE)
)
"""Of some samples and choices."""


def set_score(gradients: NDArray[np.float64], choices: list[int]) -> float:
    """Sample by sample, as it is defined."""
    return float(sum(sample[choices].sum() ** 2 for sample in gradients) / (2 * len(gradients)))


@settings(deadline=None)
@given(GRADIENTS)
def test_losing_more_never_costs_less_and_losing_one_costs_the_least_single_score(
    gradients: NDArray[np.float64],
) -> None:
    for ranking in (
        rank_by_set(gradients.T @ gradients, len(gradients)),
        rank_singly((gradients**2).sum(0) / (2 * len(gradients))),
    ):
        assert ranking.lost[0] == 0
        assert (np.diff(ranking.lost) >= 0).all()
        np.testing.assert_allclose(ranking.single, (gradients**2).sum(0) / (2 * len(gradients)), rtol=1e-12)
        assert ranking.lost[1] == ranking.single.min()
        assert sorted(ranking.order) == list(range(gradients.shape[1]))


@settings(deadline=None)
@given(GRADIENTS)
def test_what_a_set_loses_is_its_score_sample_by_sample_or_that_of_a_smaller_one(
    gradients: NDArray[np.float64],
) -> None:
    ranking = rank_by_set(gradients.T @ gradients, len(gradients))
    scores = [set_score(gradients, list(ranking.order[:k])) for k in range(gradients.shape[1] + 1)]
    scale = float((gradients**2).sum()) * gradients.shape[1]
    np.testing.assert_allclose(ranking.lost, np.maximum.accumulate(scores), atol=1e-12 * scale)


@settings(deadline=None)
@given(GRADIENTS.filter(lambda gradients: np.ptp(gradients) > 0))
def test_each_next_choice_is_the_one_with_which_the_set_scores_least(gradients: NDArray[np.float64]) -> None:
    order = list(rank_by_set(gradients.T @ gradients, len(gradients)).order)
    scale = float((gradients**2).sum()) * gradients.shape[1]
    for k in range(len(order)):
        taken = set_score(gradients, order[: k + 1])
        assert all(taken <= set_score(gradients, [*order[:k], other]) + 1e-12 * scale for other in order[k:])


@settings(deadline=None)
@given(GRADIENTS, st.integers(1, 4))
def test_products_are_exact_however_samples_are_batched(gradients: NDArray[np.float64], batch: int) -> None:
    products = Products()
    for rows in torch.from_numpy(gradients).split(batch):
        products.add(rows)
    scale = float((gradients**2).sum())
    np.testing.assert_allclose(products.total(), gradients.T @ gradients, atol=1e-14 * scale)


def test_float32_samples_are_multiplied_in_float64() -> None:
    products = Products()
    for _ in range(3):
        products.add(torch.tensor([[1.0, 1e-9]], dtype=torch.float32))
    small = float(np.float32(1e-9))
    np.testing.assert_allclose(products.total(), [[3, 3 * small], [3 * small, 3 * small**2]], rtol=1e-12)


def test_products_of_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="No samples"):
        Products().total()


def test_channels_that_cancel_go_together_and_doubles_do_not() -> None:
    same, opposite, other = [1.0, 2.0], [-1.0, -2.0], [2.5, -1.25]
    gradients = np.array([same, same, opposite, other]).T
    ranking = rank_by_set(gradients.T @ gradients, 2)
    assert list(ranking.order) == [0, 2, 1, 3]
    np.testing.assert_allclose(ranking.lost, [0, 1.25, 1.25, 1.25, 3.203125])
    np.testing.assert_allclose(ranking.single, [1.25, 1.25, 1.25, 1.953125])
    singly = rank_singly(ranking.single)
    assert list(singly.order) == [0, 1, 2, 3]
    np.testing.assert_allclose(singly.lost, [0, 1.25, 2.5, 3.75, 5.703125])


def test_equal_scores_go_in_the_order_of_their_positions() -> None:
    assert list(rank_singly(np.array([2.0, 1.0, 2.0, 1.0])).order) == [1, 3, 0, 2]
    assert list(rank_by_set(np.eye(4), 1).order) == [0, 1, 2, 3]


def test_what_is_kept_is_what_goes_last() -> None:
    ranking = rank_singly(np.array([3.0, 1.0, 2.0]))
    assert [ranking.kept(width) for width in range(4)] == [[], [0], [0, 2], [0, 1, 2]]
    with pytest.raises(ValueError, match="cannot keep 4"):
        ranking.kept(4)


def test_a_ranking_that_solvers_could_not_rely_on_is_refused() -> None:
    order, lost, single = np.array([1, 0]), np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0])
    with pytest.raises(ValueError, match="once"):
        Ranking(np.array([1, 1]), lost, single)
    with pytest.raises(ValueError, match="3 long"):
        Ranking(order, lost[:2], single)
    with pytest.raises(ValueError, match="never falls"):
        Ranking(order, np.array([0.0, 2.0, 1.0]), single)
    with pytest.raises(ValueError, match="NaN"):
        Ranking(order, np.array([0.0, np.nan, np.nan]), single)
