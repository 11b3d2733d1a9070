"""ImageNet with DiffGuard as published, guided by a classifier: its run exp6.1.

    python -m klip_jax.main --config=imagenet_diffguard_gdm

Pictures of 224 pixels for ResNet-50, which the unconditional ADM of 256 pixels sees
resized; 100 DDIM levels of which 10 are never climbed, up to where the state has 6.39
dB (48.5 as the release counts) or a DISTS of 0.62; down from one level above with the
gradient at the blend, of 8 crops, against the same without guidance; compared by DISTS.
Published: AUROC 73.2 (Species), 85.8 (iNaturalist), 82.3 (OpenImage-O), 65.2
(ImageNet-O), mean of 4 runs on all images. Once:

1. The weights. None are shipped, and each conversion is one command:

       256x256_diffusion_uncond.pt, 2,211,383,297 bytes, SHA-256 a37c32fffd316cd494cf3f
       35b339936debdc1576dad13fe57c42399a5dbc78b1, from
       https://openaipublic.blob.core.windows.net/diffusion/jul-2021/

       python -m klip_jax.main --mode=convert --source=256x256_diffusion_uncond.pt \\
           --target=checkpoints/imagenet_adm_256.safetensors

       https://download.pytorch.org/models/resnet50-0676ba61.pth

       python -m klip_jax.main --mode=convert --source=resnet50-0676ba61.pth \\
           --target=checkpoints/imagenet_resnet50_224.safetensors

       https://download.pytorch.org/models/vgg16-397923af.pth, and weights.pt out of
       the PyPI package dists-pytorch

       python -m klip_jax.main --mode=convert --source=vgg16-397923af.pth,weights.pt \\
           --target=checkpoints/dists.safetensors

2. The data as OpenOOD 1.0 lays them out (benchmark_imglist/imagenet/test_*.txt and
   images_largescale/) below the folder that KLIP_DATA or --config.data.root names.

At most 274 network calls an image, 184 where it stops after 60 levels, for which the
release tells of 0.05 images a second on a V100, and at most 1473 of the classifier,
forward or backward. Not run here at this size: neither weights nor images are ours.
1000 images of each set, --config.data.per_group=0 takes all; reconstructions take 3 MB
an image. A draw of the model is no picture for the classifier, so there is no law:
calibration.healthy=dict(...) of other pictures gives p-values, and lets detectors be
fitted, --config.detectors=diffguard,msp,classifier_features. --mode=train trains such a
prior, and keeps all its images in memory, 200 kB each.

Reference: Gao et al. 2023 (DiffGuard), table 2.
"""

from klip_jax.assets.default_config import get_config as default
from klip_jax.convert.diffusers import betas

LIST = "benchmark_imglist/imagenet/test_{}.txt"
GROUPS = dict(
    id="imagenet",
    species="species",
    inaturalist="inaturalist",
    openimage_o="openimage_o",
    imagenet_o="imagenet_o",
)
SCORES = dict(msp="MSP", max_logit="MaxLogit", energy="Energy", gen="GEN")


def get_config():
    config = default()
    with config.unlocked():
        config.data = dict(**pictures(GROUPS, crop=224), per_group=1000)
        config.data.measurements = ""
        config.scan = None
        config.prior.weights = "imagenet_adm_256"
        config.classifier.weights = "imagenet_resnet50_224"
        config.detectors = dict(
            diffguard=dict(
                name="diffguard.DiffGuard",
                guidance=dict(
                    name="classifier.AtBlend",
                    scale=3.0,
                    crops=8,
                    crop_side=224,
                    reduction="sum",
                ),
                steps=100,
                skipped=10,
                ahead=2,
                released_stop_psnr=48.5,
                stop_distance=0.62,
                perceptual=dict(weights="dists"),
                distance="perceptual",
                against="unguided",
                side=256,
            ),
            **{k: dict(name=f"classifier_logits.{v}") for k, v in SCORES.items()},
        )
        config.main = "diffguard"
        config.calibration.draws = 0
        only = dict(id="imagenet")
        config.train.data = pictures(only, crop=256, split="train")
        config.train.test = dict(**pictures(only, crop=256), per_group=128)
        config.train.licence = "ImageNet: non-commercial research only"
        # What 256x256_diffusion_uncond.pt is.
        config.train.net = dict(
            name="adm.ADM",
            width=256,
            multipliers=(1, 1, 2, 2, 4, 4),
            blocks=2,
            attention=(3, 4, 5),
            head_channels=64,
            out_channels=6,
        )
        config.train.prior = dict(name="epsilon.Epsilon", betas=tuple(betas({})))
    return config


def pictures(groups, *, crop, split="test"):
    """Return the settings of pictures that lists of OpenOOD name."""
    lists = {group: LIST.format(name) for group, name in groups.items()}
    lists = {k: v.replace("/test_", f"/{split}_") for k, v in lists.items()}
    return dict(
        name="image_list.load",
        groups={k: (v, "images_largescale") for k, v in lists.items()},
        resize=256,
        crop=crop,
        root="",
    )
