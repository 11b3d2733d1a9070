"""Likelihood scores grad log p(y | x_sigma), one approximation a file."""
