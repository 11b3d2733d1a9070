"""Tumours in sparse-view CT of the liver, with PaDIS: KLIP's chaos_padis_image.

    python -m klip_jax.main --config=chaos_padis_image

256x256 slices of healthy livers (CHAOS) and the same with a tumour, 24 parallel views
in the geometry of the release of KLIP (512 bins of one pixel; half of them see
nothing), noise of 0.1 pixel lengths, where the release has none, and a prior of 56x56
patches. Operator, prior and the window of noise levels, sigma 0.0222 to 0.151 (its
steps 65 to 85), are the release's; the estimator is ours. Once, from the links of its
README (github.com/voilalab/KLIP):

1. The weights of PaDIS:

       python -m klip_jax.main --config=chaos_padis_image --mode=convert \\
           --source=<its .pkl> --size=256

2. Its images, into the folder that KLIP_DATA or --config.data.root names:

       python -m klip_jax.main --mode=convert \\
           --source=chaos_id.npy,chaos_ood_tumor.npy --target=$KLIP_DATA/chaos.npz

They are 512x512; squares of two pixels become their mean. The weights come without a
table of expected errors: `variance` is that of a white prior. 288 network calls an
image, of 25 patches each; no reference law is computed.
"""

import numpy as np

from klip_jax.assets.default_config import get_config as default


def get_config():
    config = default()
    with config.unlocked():
        config.data = dict(
            name="npz.load",
            file="chaos.npz",
            groups=("id", "tumor"),
            per_group=0,
            shrink=2,
            root="",
            measurements="",
        )
        angles = tuple((3.75 + 7.5 * np.arange(24)).tolist())
        config.scan = dict(
            operator=dict(name="ct.ParallelBeam", angles=angles, detectors=512),
            noise_std=0.1,
        )
        config.prior.weights = "chaos_padis_256"
        config.posterior.samples, config.posterior.steps = 8, 26
        config.detectors.klip.update(
            map="coherent_guided",
            window=(0.0222, 0.151),
            level_count=5,
            filter_width=8.0,
            filter_weight=0.1,
            pool_width=12.0,
            block=2,
        )
        config.calibration.draws = 0
        slices = dict(name="npz.load", file="chaos.npz", root="", shrink=2)
        config.train.data = dict(**slices, groups=("id",))
        config.train.test = dict(**slices, groups=("id",), per_group=16)
        config.train.licence = "CHAOS challenge: CC BY-SA 4.0"
        # PaDIS in the EDM release: DDPM++ for patches with two coordinates.
        config.train.net = dict(
            name="song_unet.SongUNet",
            multipliers=(1, 2, 2, 2),
            out_channels=1,
        )
        config.train.prior = dict(name="patches.Patches", patch=56, pad=24)
    return config
