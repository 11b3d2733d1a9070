"""Samplers, one file each: a factory of floats that returns a `types.Sampler`."""
