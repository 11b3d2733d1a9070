"""Packages of the wheel: those of `klip_jax`, and `configs/` as `klip_jax/configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["klip_jax*"]), "klip_jax.configs"],
    package_dir={"klip_jax.configs": "configs"},
)
