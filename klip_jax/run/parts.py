"""Parts of a detector that are weights: in a config a file or a name, here the thing.

    autoencoder=dict(weights="imagenet_ldm_256_autoencoder")
    perceptual=dict(weights="dists")

are spelled as prior and classifier of a run are, and looked for in the same places; see
`hub.find`. What they are of, the files say themselves.
"""

from collections.abc import Mapping
from typing import Any

from klip_jax import hub
from klip_jax.signatures import check_fields
from klip_jax.spelling import short

LOADED = {"autoencoder": hub.load_autoencoder, "perceptual": hub.load_perceptual}
"""By the name of the setting."""


def with_weights(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings of a detector in which such parts are loaded.

    Args:
      settings: of a config.
      where: they stand, for messages.

    Raises:
      FileNotFoundError: if there are no weights of a name.
      ValueError: if a file is of something else or broken, or such a part has another
        setting.
    """
    return {key: _part(key, value, f"{where}.{key}") for key, value in settings.items()}


def _part(key, value, where):
    if isinstance(value, list | tuple):
        return [_part(key, each, where) for each in value]
    if not isinstance(value, Mapping):
        return value
    if key not in LOADED:
        return with_weights(value, where)
    check_fields(value, ("weights",), where)
    name = value["weights"]
    if not isinstance(name, str):
        raise ValueError(f"{where}.weights={short(name)}: give a name or a file")
    return LOADED[key](name, f"{where}.weights")[0]
