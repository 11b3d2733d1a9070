"""DiffPath: how the path from an image to noise runs and bends.

DDIM backwards, from x_0 = x at the lowest level, with eps_i = (x_i - D(x_i, s_i))/s_i:

    x_{i+1} = x_i + (s_{i+1} - s_i) eps_i,   d eps_i = K (eps_{i+1} - eps_i),
    six sums over steps and pixels: of eps, eps^2, eps^3, d eps, (d eps)^2, (d eps)^3.

1D: sqrt of the sum of (d eps)^2, and a kernel density of it. 6D: all six, and a mixture
of Gaussians. Either is fitted to features of in-distribution images; the score is the
negative log-likelihood. It says which image, not where in it.

Departures: D is not clipped to the range of images, so that eps is the network's own.
The kernel's width is relative to the spread of the features: the paper's 5 is absolute
and belongs to its image size, because the features are sums over pixels. The mixtures
tried are smaller: 50 and 100 components want tens of thousands of images.

Reference: Heng, Thiery and Soh 2024 (DiffPath).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from klip_jax.types import Denoiser

FEATURES = ("eps", "eps^2", "eps^3", "d eps", "(d eps)^2", "(d eps)^3")
COVARIANCES = ("full", "tied", "diag", "spherical")


def features(x: Array, prior: Denoiser, levels: Array) -> Array:
    """Return the six sums along the path from the image to noise.

    Args:
      x: image [H, W, C], image units, taken to be at levels[0].
      prior: a denoiser.
      levels: noise levels [K], increasing, image units; the paper has K = 10, from
        almost no noise to almost no image.

    Returns:
      [6] in the order of `FEATURES`, without unit.

    Reference: Heng, Thiery and Soh 2024; differences as in their code, the path one
    unit of time long, however the levels are spaced.
    """

    def powers(v):
        return jnp.stack([jnp.sum(v**p) for p in (1, 2, 3)])

    def noise_of(x, sigma):
        return (x - prior(x, sigma)) / sigma

    def step(carry, inputs):
        x, eps, sums, rates = carry
        sigma, sigma_next = inputs
        x = x + (sigma_next - sigma) * eps
        new = noise_of(x, sigma_next)
        rate = len(levels) * (new - eps)
        return (x, new, sums + powers(new), rates + powers(rate)), None

    eps = noise_of(x, levels[0])
    carry = (x, eps, powers(eps), jnp.zeros(3, x.dtype))
    (_, _, sums, rates), _ = jax.lax.scan(step, carry, (levels[:-1], levels[1:]))
    return jnp.concatenate([sums, rates])


def network_calls(levels: int) -> int:
    """Return the network calls an image costs: one a level."""
    return levels


def fit_1d(found: np.ndarray, *, bandwidth: float | str = "silverman") -> Pipeline:
    """Fit a kernel density to sqrt(sum (d eps)^2) of in-distribution images.

    Args:
      found: features [N, 6].
      bandwidth: of the Gaussian kernel in standard deviations of the fitted values, or
        a rule that scikit-learn knows: "scott" or "silverman".

    Returns:
      A fitted scikit-learn pipeline, for `score_1d`.
    """
    steps = [("scale", StandardScaler()), ("law", KernelDensity(bandwidth=bandwidth))]
    return Pipeline(steps).fit(_speed(found))


def fit_6d(
    found: np.ndarray,
    *,
    components: Sequence[int] = (1, 2, 5),
    covariances: Sequence[str] = COVARIANCES,
    folds: int = 10,
    seed: int = 0,
) -> Pipeline:
    """Fit a mixture of Gaussians to the six features of in-distribution images.

    Args:
      found: features [N, 6].
      components: numbers of components to try.
      covariances: their shapes to try, of `COVARIANCES`.
      folds: of the cross-validated likelihood that chooses.
      seed: of the mixture's first guess.

    Returns:
      A fitted scikit-learn pipeline, for `score_6d`.

    Raises:
      ValueError: if a fold is left with fewer images than components.
    """
    left = len(found) - -(-len(found) // folds)
    if left < max(components):
        raise ValueError(
            f"components={tuple(components)}: {len(found)} images in {folds} folds "
            f"leave {left} to fit; take fewer components or more images"
        )
    law = GaussianMixture(max_iter=200, random_state=seed)
    pipeline = Pipeline([("scale", StandardScaler()), ("law", law)])
    grid = dict(law__n_components=components, law__covariance_type=covariances)
    search = GridSearchCV(pipeline, grid, cv=folds)
    return search.fit(np.asarray(found, np.float64)).best_estimator_


def score_1d(law: Pipeline, found: np.ndarray) -> np.ndarray:
    """Return -log density [N] of features [N, 6] under the law of `fit_1d`, nats."""
    return -law.score_samples(_speed(found))


def score_6d(law: Pipeline, found: np.ndarray) -> np.ndarray:
    """Return -log density [N] of features [N, 6] under the law of `fit_6d`, nats."""
    return -law.score_samples(np.asarray(found, np.float64))


def _speed(found):
    squares = np.asarray(found, np.float64)[:, FEATURES.index("(d eps)^2")]
    return np.sqrt(squares)[:, None]
