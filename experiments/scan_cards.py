"""Write the cards of the scans that shipped weights were calibrated for.

    python experiments/scan_cards.py

`<weights>_scan.json` beside each law, from the config that the law was made by; see
`klip_jax.run.scan_card`. A test compares them with the configs.
"""

import importlib.util
import pathlib
from typing import Any

from klip_jax import assets, hub
from klip_jax.run import scan_card, settings

CARDS = {
    "phantom_ct": ("phantom_ct", ()),
    "abdomen_ct_64": ("abdomen_ct", ()),
    "brain_mri_64": ("brain_mri", ()),
    "faces_gray_64_blur": ("faces", ("blur",)),
    "faces_gray_64_inpaint": ("faces", ("inpaint",)),
    "fashion_mnist_28": ("fashion_inpaint", ()),
}
"""{weights and scan: the config, and its variant}."""


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings that the card of this name is of."""
    config, variant = CARDS[name]
    spec = importlib.util.spec_from_file_location(config, assets.config_path(config))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return settings.check(module.get_config(*variant).to_dict())


def path_of(name: str) -> pathlib.Path:
    """Return the file of the card of this name, beside its law."""
    law = hub.law_paths(name)[0]
    return law.with_name(f"{name}_scan.json")


if __name__ == "__main__":
    for name in CARDS:
        scan_card.write(path_of(name), settings_of(name))
        print(path_of(name))
