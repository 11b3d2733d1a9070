"""Slices with a tumour among healthy ones: KLIP's chaos_song_dataset.

    python -m klip_jax.main --config=chaos_song_dataset

512x512 slices of healthy livers (CHAOS) and the same with a tumour, the spectrum on 23
of 512 radial lines as in the release of KLIP, and noise of 0.01, where the release has
none. Operator, prior and the window of noise levels, sigma 3.19 to 4.66 (its steps
35 to 40), are the release's; the estimator is ours. Once, from the links of
its README (github.com/voilalab/KLIP):

1. The weights of its CT experiments, NCSN++ in Flax:

       python -m klip_jax.main --config=chaos_song_dataset --mode=convert \\
           --source=<the checkpoint> --size=512

2. Its images, into the folder that KLIP_DATA or --config.data.root names:

       python -m klip_jax.main --mode=convert \\
           --source=chaos_id.npy,chaos_ood_tumor.npy --target=$KLIP_DATA/chaos.npz

The weights come without a table of expected errors: `variance` is that of a white
prior. 288 network calls an image; no reference law is computed, which would cost as
much for each of its draws.
"""

import runpy
from pathlib import Path


def get_config():
    same = Path(__file__).with_name("chaos_song_image.py")
    config = runpy.run_path(str(same))["get_config"]()
    with config.unlocked():
        config.detectors.klip.window = (3.19, 4.66)
    return config
