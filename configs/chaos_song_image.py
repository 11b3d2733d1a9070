"""Tumours in sparse-view CT of the liver: KLIP's chaos_song_image.

    python -m klip_jax.main --config=chaos_song_image

512x512 slices of healthy livers (CHAOS) and the same with a tumour, the spectrum on 23
of 512 radial lines as in the release of KLIP, and noise of 0.01, where the release has
none. Operator, prior and the window of noise levels, sigma 0.045 to 0.272 (its steps
65 to 85), are the release's; the estimator is ours. Once, from the links of
its README (github.com/voilalab/KLIP):

1. The weights of its CT experiments, NCSN++ in Flax:

       python -m klip_jax.main --config=chaos_song_image --mode=convert \\
           --source=<the checkpoint> --size=512

2. Its images, into the folder that KLIP_DATA or --config.data.root names:

       python -m klip_jax.main --mode=convert \\
           --source=chaos_id.npy,chaos_ood_tumor.npy --target=$KLIP_DATA/chaos.npz

The weights come without a table of expected errors: `variance` is that of a white
prior. 288 network calls an image; no reference law is computed, which would cost as
much for each of its draws.
"""

from klip_jax.assets.default_config import get_config as default


def get_config():
    config = default()
    with config.unlocked():
        config.data = dict(
            name="npz.load",
            file="chaos.npz",
            groups=("id", "tumor"),
            per_group=0,
            root="",
            measurements="",
        )
        config.scan = dict(
            operator=dict(
                name="radial.RadialLines", views=23, lines=512, contested="last"
            ),
            noise_std=0.01,
        )
        config.prior.weights = "chaos_ncsnpp_512"
        config.posterior.samples, config.posterior.steps = 8, 26
        config.detectors.klip.update(
            map="coherent_guided",
            window=(0.045, 0.272),
            level_count=5,
            filter_width=16.0,
            filter_weight=0.1,
            pool_width=24.0,
            block=32,
        )
        config.calibration.draws = 0
        slices = dict(name="npz.load", file="chaos.npz", root="", groups=("id",))
        config.train.data = dict(**slices)
        config.train.test = dict(**slices, per_group=16)
        config.train.licence = "CHAOS challenge: CC BY-SA 4.0"
        # What the release's network is.
        config.train.net = dict(
            name="ncsnpp.NCSNpp", width=32, multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2
        )
        config.train.prior = dict(name="score.Score")
    return config
