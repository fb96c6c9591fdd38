"""How much the loss would grow without a channel: one file an importance, and the visible list of them."""

from collections.abc import Callable, Mapping

from torch import Tensor

from pruner.importance.fisher import fisher_scores

__all__ = ["IMPORTANCES", "Importance", "fisher_scores"]

Importance = Callable[..., dict[str, Tensor]]
"""Called as `fisher_scores` is: (model, groups, batches, loss, *, part, progress, max_batches)."""

IMPORTANCES: Mapping[str, Importance] = {"fisher": fisher_scores}
"""Every importance by the name that `--importance` takes."""
