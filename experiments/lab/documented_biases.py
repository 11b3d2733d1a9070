"""Biases of samplers and scores that theory and docstrings state, on Gaussian beds."""

import beds

# Relative errors of the covariance, first order in the step but for Heun's.
COVARIANCE_ERRORS = {
    "ancestral + exact": 0.0999,
    "Euler-Maruyama + exact": 0.115,
    "DDIM (Euler) + exact": 0.0522,
    "DDIM(.5) + exact": 0.0636,
    "Heun + exact": 0.0123,
    "Langevin + exact": 0.325,
    "predictor-corrector + exact": 0.0379,
}
# (combination, key) -> (value on G16, relative tolerance): the theory's, then what the
# docstrings say.
DOCUMENTED = {
    ("ancestral + exact", "path_kl"): (12.214 / beds.G16, 1e-3),
    ("Euler-Maruyama + exact", "path_kl"): (12.001 / beds.G16, 1e-3),
    ("ancestral + PiGDM(prior_var=1)", "levels_kl"): (0.771, 1e-3),
    ("ancestral + PiGDM", "levels_kl"): (2.005, 1e-3),
    ("ancestral + TMPD", "levels_kl"): (0.882, 1e-3),
    ("ancestral + MMPS(8)", "levels_kl"): (1.0, 1e-3),
    ("ancestral + MMPS(8)", "covariance"): (0.0999, 1e-2),
    ("ancestral + DPS", "levels_kl"): (2331, 1e-2),
    ("ancestral + DPS, J = I", "levels_kl"): (8e6, 5e-2),
    ("resampling (DAPS)", "levels_kl"): (0.654, 1e-3),
    ("resampling (DAPS)", "mean"): (0.114, 1e-2),
    ("resampling (DAPS)", "covariance"): (0.171, 1e-2),
    ("proximal (DiffPIR)", "mean"): (0.31, 2e-2),
    ("proximal (DiffPIR)", "covariance"): (1.17, 1e-2),
    ("null space (DDNM+)", "mean"): (0.37, 2e-2),
    ("null space (DDNM+)", "covariance"): (1.58, 1e-2),
    ("projection (Song 2022)", "mean"): (0.37, 2e-2),
    ("projection (Song 2022)", "covariance"): (1.10, 1e-2),
}
