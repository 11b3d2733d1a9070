"""Faces behind a blur, with google/ddpm-celebahq-256 as the prior: KLIP's own problem.

    python -m klip_jax.main --config=celeba_deblur

256x256 colour photographs, a circular Gaussian blur of 9 pixels cut to 21x21 as in the
release of KLIP, and noise of 0.01, where the release has none. Once:

1. The weights (huggingface.co/google/ddpm-celebahq-256, Apache-2.0, 455 MB); the hub
   needs `pip install huggingface_hub`:

       python -m klip_jax.main --config=celeba_deblur --mode=convert \\
           --source=google/ddpm-celebahq-256

   or `--config.prior.weights=<a folder in Hugging Face layout>`, as it is. The hub's
   commit is pinned; --revision takes another.
2. Aligned 256x256 PNG files (CelebA-HQ or your own) in celeba_hq_256 below the folder
   that KLIP_DATA or --config.data.root names. With the sub-folders id and, say, scar
   and scar_masks, --config.data.groups="('id', 'scar')" also measures the detection.

The weights come without a table of expected errors: `variance` is that of a white
prior. 288 network calls an image; no reference law is computed, which would cost as
much for each of its draws.
"""

import runpy
from pathlib import Path


def get_config():
    same = Path(__file__).with_name("celeba_inpaint.py")
    config = runpy.run_path(str(same))["get_config"]()
    with config.unlocked():
        config.scan.operator = dict(name="blur.GaussianBlur", std=9.0, truncate=1.1)
    return config
