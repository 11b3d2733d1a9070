import beds
import jax
import numpy as np
import pytest

from klip_jax import kl, sde
from klip_jax.guidance.pigdm import PiGDM

pytestmark = pytest.mark.usefixtures("x64")


def total(bed, guidance, sigma):
    return sum(beds.integrand(bed, guidance, sigma)).sum()


@pytest.mark.parametrize("prior_var", [0.0, 0.5])
def test_exact_for_a_white_prior(prior_var):
    bed = beds.white(variance=0.5)
    u = bed.prior.sample(jax.random.key(0))
    for sigma in (0.01, 0.3, 8.0):
        found = PiGDM(prior_var).score(bed.prior, bed.scan, u, sigma)
        expected = bed.exact().score(bed.prior, bed.scan, u, sigma)
        np.testing.assert_allclose(found[0], expected[0], 1e-12)
        np.testing.assert_allclose(found[1], expected[1], 1e-8)


# Section 2.3 of the theory, at these nodes: I with v = sigma^2 / (1 + sigma^2), and
# with v = tr C / d.
NODES = np.geomspace(0.01, 50, 12)
TABLE = [(0, 0.0699, 0.0699), (2, 1.030, 1.067), (6, 1.634, 7.594), (9, 0.244, 0.255)]


@pytest.mark.parametrize(("node", "unit", "trace"), TABLE)
def test_bias_on_a_smooth_prior_at_one_level(node, unit, trace):
    bed = beds.g16()
    for settings, expected in ((dict(prior_var=1.0), unit), ({}, trace)):
        found = total(bed, PiGDM(**settings), NODES[node])
        np.testing.assert_allclose(found, expected, rtol=0.003)


def test_bias_on_a_smooth_prior_in_total():
    # T8: 23 % low with a unit prior variance, twice too high with the mean variance.
    bed, levels = beds.g16(), sde.log_levels(64, 0.002, 80.0)
    weights = kl.trapezoid(levels)
    for settings, expected in ((dict(prior_var=1.0), 8.698), ({}, 2.005 * beds.G16)):
        guidance = PiGDM(**settings)
        curve = jax.jit(jax.vmap(lambda s, g=guidance: total(bed, g, s)))(levels)
        found = weights @ curve
        np.testing.assert_allclose(found, expected, rtol=5e-4)


@pytest.mark.parametrize("prior_var", [-1.0, np.nan])
def test_wrong_settings_are_refused(prior_var):
    with pytest.raises(ValueError, match="prior_var="):
        PiGDM(prior_var)
