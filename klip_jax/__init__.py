"""KLIP in JAX: how far did measurements pull the posterior from the prior, and where?

    from klip_jax import detect, load_prior

The map of the package, in the order data takes:

    types        the vocabulary: Denoiser, LinearOperator, Likelihood, Sampler, ...
    data         phantoms and readers of image sets
    operators    y = A x: ct, radial, mri, blur, superres, mask, dct, identity
    nets, priors a network wrapped as a denoiser D(x, sigma); analytic priors
    guidance     approximations of the likelihood score grad log p(y | x_sigma)
    samplers     ancestral, ddim, heun, resampling, ...; `sample` drives them
    kl           the KL along a trajectory and over many noise levels at once
    calibration  what to expect when nothing is wrong
    release      the KLIP release: its scoring, its backends
    detectors    klip, and the controls it must beat
    run, report  many images, with nothing lost; metrics, figures, a page
"""

__version__ = "0.1.0"

_PUBLIC = {
    "Detection": "klip_jax.types",
    "Settings": "klip_jax.detectors.klip",
    "detect": "klip_jax.detectors.klip",
    "load_prior": "klip_jax.build",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    """Import public names when first used, so that `import klip_jax` is cheap."""
    import importlib

    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'klip_jax' has no attribute {name!r}")
