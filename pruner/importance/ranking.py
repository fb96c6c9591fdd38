"""In which order a group's choices go, and what importance is lost with them: all that a solver is told of a group."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """One group's choices, the least important first.

    Attributes:
        order: `[size]`, the choices in the order in which they go.
        lost: `[size + 1]`, the importance lost when the first k are gone; begins with 0 and never falls.
        single: `[size]`, each choice's own importance, by its position in the group, as if it went alone: what a rule
            that removes one channel at a time divides by its cost.
    """

    order: NDArray[np.int64]
    lost: NDArray[np.float64]
    single: NDArray[np.float64]

    def __post_init__(self) -> None:
        size = len(self.order)
        if not np.array_equal(np.sort(self.order), np.arange(size)):
            raise ValueError(f"order holds each of {size} choices once; it is {self.order}.")
        if len(self.lost) != size + 1 or len(self.single) != size:
            raise ValueError(
                f"For {size} choices lost is {size + 1} long and single {size}; they are {len(self.lost)} and "
                f"{len(self.single)}."
            )
        if self.lost[0] != 0 or not bool((np.diff(self.lost) >= 0).all()):
            raise ValueError("lost begins with 0 and never falls, and is never NaN.")

    def kept(self, width: int) -> list[int]:
        """The choices that stay when `width` are kept, ascending."""
        if not 0 <= width <= len(self.order):
            raise ValueError(f"A group of {len(self.order)} choices cannot keep {width}.")
        return [int(choice) for choice in np.sort(self.order[len(self.order) - width :])]


def rank_singly(scores: NDArray[np.floating]) -> Ranking:
    """Rank by single scores: a set's importance is the sum of its choices'. Of equals the first goes first.

    Args:
        scores: `[size]`, never negative.
    """
    single = np.asarray(scores, dtype=np.float64)
    order = np.argsort(single, kind="stable").astype(np.int64)
    return Ranking(order, np.concatenate([[0.0], np.cumsum(single[order])]), single)


def rank_by_set(products: NDArray[np.float64], samples: int) -> Ranking:
    """Rank by the importance of what is gone as one set, cross terms included.

        s(S) = 1 / (2 N) * sum_n (sum_{c in S} g[n, c]) ** 2 = 1 / (2 N) * sum_{c, d in S} (g^T g)[c, d]

    Greedy: the next choice is the one with which the set's score is least, of equals the first. So channels that say
    the same do not go together, and those whose effects cancel do.

    Because effects can cancel, the score itself can fall as a set grows. `lost` is its running maximum: solvers may
    then count on more channels never losing less, which they need to pass over widths and to prove bounds, and a set
    is not called cheap because the last channel taken happens to cancel, to first order, what those before it cost.

    Args:
        products: `g^T g`, `[size, size]`.
        samples: N.

    Returns:
        The ranking; takes size² additions.
    """
    size = len(products)
    single = np.diagonal(products) / (2 * samples)
    rise = np.diagonal(products).astype(np.float64)
    order, rises = np.empty(size, dtype=np.int64), np.empty(size)
    for place in range(size):
        choice = int(np.argmin(rise))
        order[place], rises[place] = choice, rise[choice]
        rise += 2 * products[choice]
        rise[choice] = np.inf
    lost = np.maximum.accumulate(np.concatenate([[0.0], np.cumsum(rises) / (2 * samples)]))
    return Ranking(order, lost, single)
