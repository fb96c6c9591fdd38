"""How much the loss would grow without a channel: one file an importance, and the visible list of them."""

from collections.abc import Callable, Mapping

from pruner.importance.fisher import fisher_scores, rank_by_fisher
from pruner.importance.fisher_set import rank_by_fisher_set
from pruner.importance.magnitude import rank_by_magnitude
from pruner.importance.ranking import Ranking
from pruner.importance.taylor import rank_by_taylor

__all__ = ["RANKINGS", "Ranker", "Ranking", "fisher_scores"]

Ranker = Callable[..., dict[str, Ranking]]
"""Called as `fisher_scores` is; gives each prunable group's name its ranking."""

RANKINGS: Mapping[str, Ranker] = {
    "fisher": rank_by_fisher,
    "fisher-set": rank_by_fisher_set,
    "taylor": rank_by_taylor,
    "magnitude": rank_by_magnitude,
}
"""Every importance by the name that `--importance` takes."""
