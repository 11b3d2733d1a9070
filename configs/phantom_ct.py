"""Lesions in procedural abdominal CT phantoms: the experiment that runs by default.

    python -m klip_jax.main --config=phantom_ct

The settings live in the package, so that an installed wheel has them too.
"""

from klip_jax.assets.default_config import get_config

__all__ = ["get_config"]
