"""Faces behind a box, with google/ddpm-celebahq-256 as the prior.

    python -m klip_jax.main --config=celeba_inpaint

256x256 colour photographs, a hole of 128x128 in the middle, noise of 0.01. Once:

1. The weights (huggingface.co/google/ddpm-celebahq-256, Apache-2.0, 455 MB); the hub
   needs `pip install huggingface_hub`:

       python -m klip_jax.main --config=celeba_inpaint --mode=convert \\
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

import numpy as np

from klip_jax.assets.default_config import get_config as default


def get_config():
    config = default()
    with config.unlocked():
        config.data = dict(
            name="folder.load",
            folder="celeba_hq_256",
            groups=(),
            per_group=0,
            root="",
            measurements="",
        )
        config.scan = dict(operator=dict(name="mask.Box"), noise_std=0.01)
        config.prior.weights = "ddpm_celebahq_256"
        config.posterior.samples, config.posterior.steps = 8, 26
        config.detectors.klip.update(
            map="coherent_guided",
            window=(0.02, 0.3),
            level_count=5,
            filter_width=8.0,
            filter_weight=0.1,
            pool_width=12.0,
        )
        config.calibration.draws = 0
        faces = dict(name="folder.load", folder="celeba_hq_256", root="")
        config.train.data = dict(**faces, groups=())
        config.train.test = dict(**faces, groups=(), per_group=16)
        config.train.licence = "CelebA-HQ: non-commercial research only"
        # What google/ddpm-celebahq-256 is.
        config.train.net = dict(
            name="unet2d.UNet2DModel",
            block_out_channels=(128, 128, 256, 256, 512, 512),
            down_block_types=(
                *(4 * ("DownBlock2D",)),
                *("AttnDownBlock2D", "DownBlock2D"),
            ),
            up_block_types=(
                *("UpBlock2D", "AttnUpBlock2D"),
                *(4 * ("UpBlock2D",)),
            ),
            layers_per_block=2,
            attention_head_dim=None,
            norm_num_groups=32,
            norm_eps=1e-6,
            downsample_padding=0,
            freq_shift=1,
            flip_sin_to_cos=False,
        )
        betas = tuple(np.linspace(1e-4, 0.02, 1000).tolist())
        config.train.prior = dict(name="epsilon.Epsilon", betas=betas)
    return config
