"""Where the weights that configs ask for are published, and how they become ours.

They are not shipped: large, or of a licence of their own. A run that lacks them says
what to download and which command converts it.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """Where weights come from.

    Attributes:
      files: each as "where to get it, and how it is told from others".
      source: of --mode=convert, the files as they are called there.
      more: further flags of that command.
      target: what it writes, if not the weights of that name themselves.
    """

    files: tuple[str, ...]
    source: str
    more: str = ""
    target: str = ""


_RESNET = (
    "https://download.pytorch.org/models/resnet50-0676ba61.pth (its SHA-256 begins "
    "with what its name ends with)"
)
_VGG = (
    "https://download.pytorch.org/models/vgg16-397923af.pth (its SHA-256 begins with "
    "what its name ends with)"
)
_LATENT = (
    "https://ommer-lab.com/files/latent-diffusion/nitro/cin/model.ckpt "
    "(1,827,378,153 bytes; cin256-v2)"
)
FILES = {
    "imagenet_adm_256": Published(
        (
            "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
            "256x256_diffusion_uncond.pt (2,211,383,297 bytes, SHA-256 a37c32fffd316cd4"
            "94cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1)",
        ),
        "256x256_diffusion_uncond.pt",
    ),
    "imagenet_ldm_256": Published((_LATENT,), "model.ckpt"),
    "imagenet_ldm_256_autoencoder": Published(
        (_LATENT,), "model.ckpt", target="imagenet_ldm_256"
    ),
    "imagenet_resnet50_224": Published((_RESNET,), "resnet50-0676ba61.pth"),
    "imagenet_resnet50_256": Published(
        (_RESNET,), "resnet50-0676ba61.pth", more="--size=256"
    ),
    "dists": Published(
        (_VGG, "weights.pt of the PyPI package dists-pytorch (pip download, unzip)"),
        "vgg16-397923af.pth,weights.pt",
    ),
    "lpips": Published(
        (_VGG, "weights/v0.1/vgg.pth of the PyPI package lpips (pip download, unzip)"),
        "vgg16-397923af.pth,vgg.pth",
    ),
}
"""By the name of the weights in a config."""


def remedy(name: str) -> str:
    """Return where to get weights and the command that converts them, "" if unknown."""
    if name not in FILES:
        return ""
    files, source, more, target = FILES[name]
    words = ["python -m klip_jax.main --mode=convert", f"--source={source}", more]
    words += [f"--target=checkpoints/{target or name}.safetensors"]
    return f"download {' and '.join(files)}, then {' '.join(filter(None, words))}"
