"""Norms and softmax: statistics within a channel leave the others alone, those across channels change when one goes.

What is computed across the channels that go is marked approximate. Where a layer varies along another dimension too
(heads, parts), whole slices go, and that is exact.
"""

from collections.abc import Collection

from profiler.labels import Layers, along, compact, varying
from profiler.rules.site import WHOLE, Site, meet


def across(site: Site, layers: Layers, dims: Collection[int], reason: str) -> None:
    """Mark as approximate what something is computed across, or tie it where whole slices can go."""
    for layer in layers:
        crossed = [d for d in varying(layer) if d in dims]
        if crossed and len(crossed) == len(varying(layer)):
            site.soften([layer], reason)
        elif crossed:
            site.labels.tie(layer, crossed)


def batch_norm(site: Site) -> list[Layers]:
    """BatchNorm: each channel by itself."""
    source = site.of(site.step.args[0])
    own = [item for item in source if 1 in varying(item)]
    if site.argument(5, "training") is True:
        others = [item for item in source if 1 not in varying(item)]
        across(site, others, range(len(site.shape())), "normalises across them")
    for argument in site.step.args[1:5]:
        for layer in site.of(argument):
            if not own:
                site.freeze([layer], "normalises a tensor whose size is fixed")
            for item in own:
                laid = along(compact(layer).reshape(-1), 1, item.shape)
                if 0 in varying(item):
                    site.labels.cross(item, laid, f"{site.where} {WHOLE}")
                else:
                    site.labels.unite(item, laid)
    return site.alone(source)


def weight_norm(site: Site) -> list[Layers]:
    """Weight normalisation: each slice along one dimension has its own length, taken over all other dimensions."""
    source, length = site.step.args[:2]
    dimension = int(site.argument(2, "dim", 0))
    softened = [layer for layer in site.of(source) if set(varying(layer)) - {dimension}]
    site.soften(softened, "normalises across them")
    return site.alone(meet(site, [source, length], site.shape()))


def layer_norm(site: Site) -> list[Layers]:
    """LayerNorm and RMSNorm over the last dimensions: channels that go change the statistics of the rest."""
    source, normalized = site.step.args[0], site.step.args[1]
    shape = site.value(source).shape
    lengths = len(normalized) if isinstance(normalized, list | tuple) else 1
    across(site, site.of(source), range(len(shape) - lengths, len(shape)), "normalises across them")
    return site.alone(meet(site, site.step.args[:1] + site.step.args[2:4], shape))


def group_norm(site: Site) -> list[Layers]:
    """GroupNorm: a whole part goes exactly; with one part the channels share their statistics."""
    source, weight, bias = site.step.args[:3]
    groups = int(site.step.args[6])
    own = [layer for layer in site.of(source) if 1 in varying(layer) and 0 not in varying(layer)]
    across(site, [layer for layer in site.of(source) if 0 in varying(layer)], range(1, 9), "normalises across them")
    for layer in own:
        vector = site.labels.only_along(layer, 1)
        if groups > 1:
            site.labels.tie(vector.reshape(groups, -1), [1])
        else:
            site.soften([vector], "normalises across them")
        for argument in (weight, bias):
            for item in site.of(argument):
                site.labels.unite(vector, item)
    if not own:
        site.freeze([*site.of(weight), *site.of(bias)], "normalises a tensor whose size is fixed")
    return site.alone(site.of(source))


def softmax(site: Site) -> list[Layers]:
    """Softmax and running sums: across channels, those that stay are computed anew."""
    rank = len(site.shape())
    dimension = int(site.argument(1, "dim", -1)) % max(rank, 1)
    across(site, site.of(site.step.args[0]), {dimension}, "is taken across them")
    return site.each(site.of(site.step.args[0]))
