"""KLIP in JAX: how far did measurements pull the posterior from the prior, and where?

>>> import jax
>>> import klip_jax
>>> from klip_jax.operators.mask import Half
>>> def denoise(x, sigma):  # E[x0 | x] for white pixels, N(1/2, 1/4)
...     return (x + 2 * sigma**2) / (1 + 4 * sigma**2)
>>> prior = klip_jax.prior(denoise)  # or klip_jax.load_prior("phantom_ct")
>>> key, scanner, x = jax.random.key(0), Half((8, 8, 1)), jax.numpy.ones((8, 8, 1))
>>> scan = klip_jax.simulate(key, scanner, x, 0.1)  # a klip_jax.Scan
>>> klip_jax.detect(scan.y, scanner, 0.1, prior, key=key).heatmap.shape
(8, 8)

or, with weights, their scan and p-values, `detect(y, klip_jax.load("phantom_ct"),
key=0)`; or, in steps that other detectors share,

>>> sampler = klip_jax.PosteriorSampler(samples=3)
>>> posterior = sampler(key, scan, prior)  # a klip_jax.Posterior
>>> klip = klip_jax.KLIP(window=(0.02, 0.1))
>>> looked = klip.look(key, klip_jax.Given(prior, scan, posterior))
>>> klip.judge(looked).heatmap.shape  # of a klip_jax.Detection
(8, 8)

The map of the package, in the order data takes:

    types        the vocabulary: Denoiser, Operator, Scan, Guidance, Detector, ...
    data         readers of image sets; phantoms, procedural ones
    hub          weights by name: a prior and what is known of it
    operators    y = A x: ct, radial, mri, blur, superres, mask, dct, identity
    scan         what was measured, and how it is simulated
    nets, priors a network, or anything, wrapped as a denoiser D(x, sigma)
    classifiers  networks that name classes
    distances    how different two images are: pixels, logits, features, LPIPS, DISTS
    guidance     approximations of the likelihood score grad log p(y | x_sigma)
    samplers     Ancestral, DDIM, Heun, Resampling, ...; `sample` drives them
    posterior    draws of p(x|y), made once an image for all detectors
    kl           the KL along a trajectory and over many noise levels at once
    detectors    KLIP, the others, and the controls that they must beat
    calibration  what to expect when nothing is wrong
    release      the KLIP release as compositions of our parts
    run, report  many images, with nothing lost; metrics, figures, a page
    cli, main    `klip`, and `python -m klip_jax.main` with its config files
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klip_jax.detect import Setup as Setup
    from klip_jax.detect import detect as detect
    from klip_jax.detectors.klip import KLIP as KLIP
    from klip_jax.hub import load as load_prior  # noqa: F401
    from klip_jax.posterior import PosteriorSampler as PosteriorSampler
    from klip_jax.priors.function import prior as prior
    from klip_jax.result import Result as Result
    from klip_jax.run.load import load as load
    from klip_jax.sample import sample as sample
    from klip_jax.scan import simulate as simulate
    from klip_jax.types import Detection as Detection
    from klip_jax.types import Given as Given
    from klip_jax.types import Posterior as Posterior
    from klip_jax.types import Scan as Scan

__version__ = "0.2.0"

_PUBLIC = {
    "Detection": "klip_jax.types.Detection",
    "Given": "klip_jax.types.Given",
    "KLIP": "klip_jax.detectors.klip.KLIP",
    "Posterior": "klip_jax.types.Posterior",
    "PosteriorSampler": "klip_jax.posterior.PosteriorSampler",
    "Result": "klip_jax.result.Result",
    "Scan": "klip_jax.types.Scan",
    "Setup": "klip_jax.detect.Setup",
    "detect": "klip_jax.detect.detect",
    "load": "klip_jax.run.load.load",
    "load_prior": "klip_jax.hub.load",
    "prior": "klip_jax.priors.function.prior",
    "sample": "klip_jax.sample.sample",
    "simulate": "klip_jax.scan.simulate",
}
__all__ = sorted(_PUBLIC)


class _Package(ModuleType):
    """A package whose public names are imported when first used.

    So `import klip_jax` is cheap. A public function named like the module it lives in
    (`detect`, `sample`) stays the function when that module is imported.
    """

    def __getattr__(self, name: str):
        if name not in _PUBLIC:
            raise AttributeError(f"module 'klip_jax' has no attribute {name!r}")
        module, _, attribute = _PUBLIC[name].rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value):
        if name in _PUBLIC and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)

    def __dir__(self):
        return [*super().__dir__(), *__all__]


sys.modules[__name__].__class__ = _Package
