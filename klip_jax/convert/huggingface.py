"""Models of the Hugging Face hub: a repository and commit as a folder on this disk."""

import pathlib

PINNED = {"google/ddpm-celebahq-256": "cd5c944777ea2668051904ead6cc120739b86c4d"}
"""Commits of the models that configs here ask for."""


def download(hub_id: str, revision: str = "") -> pathlib.Path:
    """Download a model from the hub and return its folder; needs huggingface_hub.

    Args:
      hub_id: "<owner>/<name>".
      revision: a commit; "" takes the one in `PINNED`, for other models the newest. The
        last part of the folder returned is the commit that it was.

    Raises:
      ValueError: if huggingface_hub is not installed.
      OSError: if the hub does not have it or cannot be reached.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"{hub_id}: no such folder, and to download it the package "
            "huggingface_hub must be installed: pip install huggingface_hub"
        ) from None
    place = {"repo_id": hub_id, "revision": revision or PINNED.get(hub_id)}
    try:
        files = huggingface_hub.list_repo_files(**place)
        safe = any(name.endswith(".safetensors") for name in files)
        patterns = ["*.json", "*.safetensors" if safe else "*.bin"]
        return pathlib.Path(
            huggingface_hub.snapshot_download(**place, allow_patterns=patterns)
        )
    except Exception as error:  # of the network, in great variety
        raise OSError(f"{hub_id}: cannot be downloaded ({error})") from None
