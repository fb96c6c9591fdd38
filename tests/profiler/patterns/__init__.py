"""One small network for each structural pattern, with what a person finds in it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.profiler.patterns.attention import ATTENTION
from tests.profiler.patterns.blocks import BLOCKS
from tests.profiler.patterns.branches import BRANCHES
from tests.profiler.patterns.building import Expected, Net, SelfAttention, between, conv
from tests.profiler.patterns.conditioned import CONDITIONED, SECOND
from tests.profiler.patterns.contracting import CONTRACTING
from tests.profiler.patterns.heads import WITH_HEADS
from tests.profiler.patterns.moving import MOVING
from tests.profiler.patterns.norms import NORMS
from tests.profiler.patterns.recurrent import RECURRENT
from tests.profiler.patterns.restoration import INPUTS, RESTORATION
from tests.profiler.patterns.splitting import SPLITTING

THEMES = (
    MOVING,
    SPLITTING,
    CONTRACTING,
    NORMS,
    WITH_HEADS,
    ATTENTION,
    RECURRENT,
    RESTORATION,
    BLOCKS,
    BRANCHES,
    CONDITIONED,
)

PATTERNS: Mapping[str, nn.Module] = {name: network for theme in THEMES for name, (network, _) in theme.items()}
EXPECTED: Mapping[str, Expected] = {name: expected for theme in THEMES for name, (_, expected) in theme.items()}


def inputs_of(name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """A picture of 1×3×8×8, and the second input where the pattern takes two."""
    generator = torch.Generator().manual_seed(0)
    second = (INPUTS | SECOND).get(name)
    shapes = [(1, 3, 8, 8), *([second] if second else [])]
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


__all__ = ["EXPECTED", "PATTERNS", "THEMES", "Net", "SelfAttention", "between", "conv", "inputs_of"]
