"""Fourier transforms and complex numbers: channels pass where the transform runs along pixels."""

from profiler.labels import Layers, compact, varying
from profiler.rules.site import Site

TRANSFORMS = frozenset("_fft_r2c _fft_c2r _fft_c2c".split())


def transform(site: Site) -> list[Layers]:
    """A Fourier transform mixes what stands along its dimensions."""
    source, dims, shape = site.step.args[0], site.argument(1, "dim"), site.shape()
    gone = {int(d) % len(shape) for d in dims}
    kept: Layers = []
    for layer in site.of(source):
        if gone & set(varying(layer)):
            site.freeze([layer], "mixes them")
            site.labels.set_aside([layer])
        elif varying(layer):
            kept.append(compact(layer).expand(shape))
    return [kept]


def complex_pairs(site: Site) -> list[Layers]:
    """`view_as_complex` and `view_as_real`: the last dimension, of real and imaginary parts, comes or goes."""
    shape = site.shape()
    if site.step.name == "view_as_real":
        return [[compact(layer).unsqueeze(-1).expand(shape) for layer in site.of(site.step.args[0])]]
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        last = layer.dim() - 1
        if varying(layer) == (last,):
            site.labels.hide([layer])
        else:
            kept.append(compact(site.labels.tie(layer, [last])).squeeze(-1).expand(shape))
    return [kept]
