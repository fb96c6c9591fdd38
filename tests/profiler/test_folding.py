"""Folded batch norms change the graph, and nothing that it computes."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.export import export_named
from profiler.folding import drop, fold_norms

pytest.importorskip("onnxruntime")


class Branches(nn.Module):
    """Norms that fold, and three that do not: after a join, before a second reader, and on shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, bias=True), nn.BatchNorm2d(8)
        self.grouped, self.grouped_norm = nn.Conv2d(8, 8, 3, groups=8, padding=1, bias=False), nn.BatchNorm2d(8)
        self.joined = nn.BatchNorm2d(8)
        self.read_twice, self.own = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.shared, self.first, self.second = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = self.joined(x + self.grouped_norm(self.grouped(x)))
        y = self.read_twice(x)
        x = y + self.own(y)
        return self.second(self.shared(self.first(self.shared(x)).relu()))


def test_folding_changes_the_graph_and_not_its_outputs() -> None:
    torch.manual_seed(0)
    model = export_named(awaken(Branches()).eval(), (torch.randn(2, 3, 12, 12),))
    found = fold_norms(model)
    folded = drop(found.model, found.norms)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    before, after = (next(iter(evaluate(m.SerializeToString(), [x]).values())) for m in (model, folded))
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()
    counts = [Counter(node.op_type for node in m.graph.node)["BatchNormalization"] for m in (model, folded)]
    assert counts == [6, 4]
    assert {t.name for t in folded.graph.initializer} < {t.name for t in model.graph.initializer}
