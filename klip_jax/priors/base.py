"""What every network prior shares: its parameters, its range, its expected error.

A network trained on [-1, 1] becomes a denoiser of images in [0, 1] by

    D(x, sigma) = (D11(2 x - 1, 2 sigma) + 1) / 2.

`variance(sigma)` is the prior's own mean squared denoising error per pixel, E||x0 -
D(x_sigma, sigma)||^2 / d, tabulated on held-out images when it was trained. It is what
an isotropic Gaussian for p(x0 | x_sigma) needs (Finzi et al. 2023; Song et al. 2023).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_LEAVES = ("params", "levels", "errors")


class NetworkPrior:
    """A pytree of params and an error table; `net` and floats are static.

    Args:
      params: the network's parameters.
      net: a flax.linen module; `net.apply(params, x, noise_level)`.
      levels: noise levels [L] of the error table, image units, increasing.
      errors: mean squared error per pixel at those levels [L], squared image units.
    """

    def __init__(self, params, net, *, levels=(), errors=()):
        if len(levels) != len(errors):
            raise ValueError(
                f"the error table has {len(levels)} levels but {len(errors)} errors"
            )
        self.params, self.net = params, net
        self.levels = jnp.asarray(levels, jnp.float32)
        self.errors = jnp.asarray(errors, jnp.float32)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_node(cls, cls._flatten, cls._unflatten)

    def denoise(self, x: Array, sigma: Array) -> Array:
        """Denoise `x` [H, W, C] in the network's own range at its own `sigma`."""
        raise NotImplementedError(f"{type(self).__name__} does not define denoise")

    def __call__(self, x: Array, sigma: Array, *, key: Array | None = None) -> Array:
        """Return E[x0 | x_sigma = x] for images in [0, 1]; see `types.Denoiser`."""
        return (self.denoise(2 * x - 1, 2 * sigma) + 1) / 2

    def variance(self, sigma: Array) -> Array:
        """Return the expected squared error per pixel at `sigma`, squared image units.

        Interpolated in log sigma and log error; sigma^2 v / (v + sigma^2) with v = 1/4
        (images fill [0, 1]) where no table came with the weights.
        """
        if self.levels.shape[0] == 0:
            return sigma**2 * 0.25 / (0.25 + sigma**2)
        # Below the table the error of an exact denoiser tends to sigma^2.
        shrink = jnp.minimum(sigma / self.levels[0], 1.0) ** 2
        table = jnp.interp(jnp.log(sigma), jnp.log(self.levels), jnp.log(self.errors))
        return shrink * jnp.exp(table)

    def _flatten(self):
        fields = vars(self)
        static = tuple(sorted((k, v) for k, v in fields.items() if k not in _LEAVES))
        return tuple(fields[k] for k in _LEAVES), static

    @classmethod
    def _unflatten(cls, static, leaves):
        prior = object.__new__(cls)
        vars(prior).update(dict(static), **dict(zip(_LEAVES, leaves, strict=True)))
        return prior


class VPNetworkPrior(NetworkPrior):
    """A network of variance-preserving states x_t = alpha (x0 + sigma z).

    It is called at the timestep where its own schedule has the noise level,
    sigma_t^2 = (1 - abar_t) / abar_t, interpolated in log sigma between timesteps.

    Args:
      params: the network's parameters.
      net: a flax.linen module; `net.apply(params, x, timestep)`.
      betas: the T variances of its training, each in (0, 1).
      levels, errors: the table of expected errors; see `NetworkPrior`.

    Raises:
      ValueError: if a beta is outside (0, 1).
    """

    def __init__(self, params, net, *, betas, levels=(), errors=()):
        super().__init__(params, net, levels=levels, errors=errors)
        self.betas = tuple(float(b) for b in betas)
        if not self.betas or min(self.betas) <= 0 or max(self.betas) >= 1:
            raise ValueError("betas must all lie in (0, 1), and there must be some")

    def output(self, x: Array, sigma: Array) -> Array:
        """Return what the network gives for the VE state `x`: net(alpha x, t)."""
        sigmas = timestep_sigmas(self.betas)
        timestep = jnp.interp(jnp.log(sigma), np.log(sigmas), np.arange(len(sigmas)))
        return self.net.apply(self.params, x / jnp.sqrt(1 + sigma**2), timestep)


def timestep_sigmas(betas) -> np.ndarray:
    """Return sigma_t = sqrt((1 - abar_t) / abar_t) for each timestep [T]."""
    log_abar = np.cumsum(np.log1p(-np.asarray(betas, np.float64)))
    return np.sqrt(np.expm1(-log_abar))
