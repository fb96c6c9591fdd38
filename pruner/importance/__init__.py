"""How much the loss would grow without a channel: one file an importance, and the visible list of them."""

from collections.abc import Callable, Mapping

from torch import Tensor

from pruner.importance.fisher import fisher_scores, rank_by_fisher
from pruner.importance.fisher_set import rank_by_fisher_set
from pruner.importance.magnitude import rank_by_magnitude
from pruner.importance.ranking import Ranking
from pruner.importance.taylor import rank_by_taylor

__all__ = ["IMPORTANCES", "RANKINGS", "Importance", "Ranker", "Ranking", "fisher_scores"]

Importance = Callable[..., dict[str, Tensor]]
"""Called as `fisher_scores` is: (model, groups, batches, loss, *, part, progress, max_batches)."""

IMPORTANCES: Mapping[str, Importance] = {"fisher": fisher_scores}
"""Importances that give single scores alone."""

Ranker = Callable[..., dict[str, Ranking]]
"""Called as `fisher_scores` is; gives each prunable group's name its ranking."""

RANKINGS: Mapping[str, Ranker] = {
    "fisher": rank_by_fisher,
    "fisher-set": rank_by_fisher_set,
    "taylor": rank_by_taylor,
    "magnitude": rank_by_magnitude,
}
"""Every importance by the name that `--importance` takes."""
