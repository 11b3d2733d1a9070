"""How settings are spelled: in messages, as names, as JSON."""

import re
from collections.abc import Mapping
from typing import Any


def short(value: Any) -> str:
    """Return the repr of a value, of at most 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def snake(name: str) -> str:
    """Return the name of a class as that of a setting: BlockMSMA is block_msma.

    A last capital is no word of its own: ViM is vim.
    """
    starts = r"(?<=[a-z])(?=[A-Z].)|(?<=[A-Z])(?=[A-Z][a-z])"
    return re.sub(starts, "_", name).lower()


def plain(settings: Any) -> Any:
    """Return settings as JSON will give them back: lists for tuples."""
    if isinstance(settings, Mapping):
        return {str(k): plain(v) for k, v in settings.items()}
    if isinstance(settings, tuple | list):
        return [plain(v) for v in settings]
    if settings is None or isinstance(settings, bool | int | float | str):
        return settings
    raise ValueError(
        f"config: {short(settings)} is neither number, text, tuple nor dict"
    )
