"""Priors as denoisers D(x, sigma): wrapped networks and analytic test beds."""
