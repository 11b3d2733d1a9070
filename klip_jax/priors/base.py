"""What every network prior shares: its parameters, its range, its error, its loss.

A network trained on images in [low, 1], of width w = 1 - low, is a denoiser of images
in [0, 1] by

    D(x, sigma) = (D_low(w x + low, w sigma) - low) / w;   low = -1, w = 2 mostly.

`variance(sigma)` is the prior's own mean squared denoising error per pixel, E||x0 -
D(x_sigma, sigma)||^2 / d, tabulated on held-out images when it was trained. It is what
an isotropic Gaussian for p(x0 | x_sigma) needs (Finzi et al. 2023; Song et al. 2023).

`loss` is denoising score matching, in the network's range

    lambda(sigma) || D_low(x0 + sigma z, sigma) - x0 ||^2 / d,
    lambda(sigma) = (sigma^2 + s^2) / (sigma s)^2,   s = sigma_data,

with ln sigma ~ N(log_mean, log_std^2), stratified over the batch.

Reference: docs/theory.md, sections 1 and 13; Karras et al. 2022, eq. 8 and table 1;
Kingma et al. 2021, appendix I.1 (the strata).
"""

from collections.abc import Sequence
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.types import Image, PRNGKey, Scalar

_WHITE_VARIANCE = 0.25
"""Of images that fill [0, 1]."""


@dataclass_transform(frozen_default=True, field_specifiers=(struct.field,))
class _Dataclass:
    """Its subclasses are frozen dataclasses and pytrees, as by `struct.dataclass`."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        struct.dataclass(cls)
        cls._flax_dataclass = True  # or flax's own decorator would register it again


class NetworkPrior(_Dataclass):
    """A denoiser from a network; a new one is a subclass that writes `denoise`.

    Subclasses are frozen dataclasses by inheritance: a further array or number is one
    more annotated field (`bias: Array`), and what decides the program is
    `struct.field(pytree_node=False)`.

    Attributes:
      params: the network's parameters.
      net: a flax.linen module; `net.apply(params, x, noise_level)`.
      levels: noise levels [L] of the error table, image units, increasing; () for none.
      errors: mean squared error per pixel at those levels [L], squared image units.
      low: images of its training fill [low, 1]; -1 or 0.
      sigma_data: s, standard deviation of those images, > 0.

    Raises:
      ValueError: if `low` is not below 1, `sigma_data` is not positive, or the table
        has other levels than errors.
    """

    params: Any
    net: Any = struct.field(pytree_node=False)
    levels: Any = ()
    errors: Any = ()
    low: float = struct.field(pytree_node=False, default=-1.0)
    sigma_data: Scalar = 0.5

    def __post_init__(self):
        for name in ("levels", "errors"):
            value = getattr(self, name)
            if isinstance(value, list | tuple | np.ndarray):
                object.__setattr__(self, name, jnp.asarray(value, jnp.float32))
        shapes = jnp.shape(self.levels), jnp.shape(self.errors)
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the error table has levels of shape {shapes[0]} but errors of shape "
                f"{shapes[1]}: give one error a level"
            )
        if not self.low < 1:
            raise ValueError(f"low={self.low}: must be below 1; images fill [low, 1]")
        s = self.sigma_data
        if isinstance(s, int | float) and not s > 0:
            raise ValueError(
                f"sigma_data={s}: must be positive; it is the standard deviation of "
                "the training images"
            )

    def denoise(self, x: Image, sigma: Scalar) -> Image:
        """Denoise `x` [H, W, C] in the network's own range at its own `sigma`."""
        raise NotImplementedError(f"{type(self).__name__} does not define denoise")

    def denoise_in_training(self, key: PRNGKey, x: Image, sigma: Scalar) -> Image:
        """Denoise as `loss` does; priors that draw something there have their own."""
        return self.denoise(x, sigma)

    def __call__(self, x: Image, sigma: Scalar) -> Image:
        """Return E[x0 | x_sigma = x] for images in [0, 1]; see `types.Denoiser`."""
        width = 1 - self.low
        return (self.denoise(width * x + self.low, width * sigma) - self.low) / width

    def variance(self, sigma: Scalar) -> Scalar:
        """Return the expected squared error per pixel at `sigma`, squared image units.

        Interpolated in log sigma and log error; sigma^2 v / (v + sigma^2) with v = 1/4
        (images fill [0, 1]) where no table came with the weights.
        """
        if self.levels.shape[0] == 0:
            return white_variance(sigma)
        # Below the table the error of an exact denoiser tends to sigma^2.
        shrink = jnp.minimum(sigma / self.levels[0], 1.0) ** 2
        table = jnp.interp(jnp.log(sigma), jnp.log(self.levels), jnp.log(self.errors))
        return shrink * jnp.exp(table)

    def loss(
        self,
        images: Float[Array, "b h w c"],
        key: PRNGKey,
        *,
        log_mean: Scalar,
        log_std: Scalar,
    ) -> Float[Array, ""]:
        """Return the mean weighted denoising loss of a batch; see the module.

        Args:
          images: in [0, 1].
          key: of the levels, the noise, and what the prior draws in training.
          log_mean, log_std: law of ln sigma in the network's range.
        """
        key_sigma, key_noise = jax.random.split(key)
        n = images.shape[0]
        sigma = stratified_levels(key_sigma, n, log_mean=log_mean, log_std=log_std)
        x0 = (1 - self.low) * images + self.low
        x = x0 + sigma[:, None, None, None] * jax.random.normal(key_noise, x0.shape)
        keys = jax.random.split(jax.random.fold_in(key, 2), n)
        denoised = jax.vmap(self.denoise_in_training)(keys, x, sigma)
        error = jnp.mean((denoised - x0) ** 2, axis=(1, 2, 3))
        s = self.sigma_data
        return jnp.mean(error * (sigma**2 + s**2) / (sigma * s) ** 2)


class VPNetworkPrior(NetworkPrior):
    """A network of variance-preserving states x_t = alpha (x0 + sigma z).

    It is called at the timestep where its own schedule has the noise level,
    sigma_t^2 = (1 - abar_t) / abar_t, interpolated in log sigma between timesteps.

    Attributes:
      betas: the T variances of its training, each in (0, 1).

    The others are those of `NetworkPrior`; `net.apply(params, x, timestep)`.

    Raises:
      ValueError: if a beta is outside (0, 1), or there is none.
    """

    betas: tuple[float, ...] = struct.field(pytree_node=False, default=())

    def __post_init__(self):
        super().__post_init__()
        betas = tuple(float(b) for b in self.betas)
        if not betas or not (min(betas) > 0 and max(betas) < 1):
            raise ValueError("betas must all lie in (0, 1), and there must be some")
        object.__setattr__(self, "betas", betas)

    def output(self, x: Image, sigma: Scalar) -> Image:
        """Return what the network gives for the VE state `x`: net(alpha x, t)."""
        sigmas = timestep_sigmas(self.betas)
        timestep = jnp.interp(jnp.log(sigma), np.log(sigmas), np.arange(len(sigmas)))
        return self.net.apply(self.params, x / jnp.sqrt(1 + sigma**2), timestep)


def timestep_sigmas(betas: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return sigma_t = sqrt((1 - abar_t) / abar_t) for each timestep [T]."""
    log_abar = np.cumsum(np.log1p(-np.asarray(betas, np.float64)))
    return np.sqrt(np.expm1(-log_abar))


def white_variance(sigma: Scalar) -> Scalar:
    """Return sigma^2 v / (v + sigma^2), v = 1/4: of a white prior that fills [0, 1]."""
    return sigma**2 * _WHITE_VARIANCE / (_WHITE_VARIANCE + sigma**2)


def stratified_levels(
    key: PRNGKey, n: int, *, log_mean: Scalar, log_std: Scalar
) -> Float[Array, " n"]:
    """Draw n noise levels, ln sigma ~ N(log_mean, log_std^2), one in each n-th of it.

    Reference: Kingma et al. 2021, appendix I.1.
    """
    strata = (jnp.arange(n) + jax.random.uniform(key, (n,))) / n
    strata = jnp.clip(strata, 1e-5, 1 - 1e-5)
    return jnp.exp(log_mean + log_std * jax.scipy.special.ndtri(strata))
