"""Samplers, one file each: a frozen dataclass of hyper-parameters, `types.Sampler`."""
