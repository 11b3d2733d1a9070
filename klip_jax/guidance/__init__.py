"""Likelihood scores grad log p(y | x_sigma), one approximation a file.

Each is a frozen dataclass of hyper-parameters; what was measured comes as an argument.
"""
