"""ImageNet with DiffGuard as published, in latents, without a classifier's gradient.

    python -m klip_jax.main --config=imagenet_diffguard_ldm

Its run ldm-exp2.25: pictures of 256 pixels, of which an autoencoder makes latents [64,
64, 3]; 25 DDIM levels up with the null label and as many down, toward the class that
ResNet-50 sees, with classifier-free guidance of weight 10 where its class activation
map is above 0.3; decoded, and compared with the picture by DISTS. Published: AUROC 65.9
(Species), 75.6 (iNaturalist), 73.9 (OpenImage-O), 68.6 (ImageNet-O). Once:

1. The weights. None are shipped, and each conversion is one command:

       model.ckpt of cin256-v2, 1,827,378,153 bytes, from
       https://ommer-lab.com/files/latent-diffusion/nitro/cin/
       (not cin.zip, which the release's README names: another network)

       python -m klip_jax.main --mode=convert --source=model.ckpt \\
           --target=checkpoints/imagenet_ldm_256.safetensors

       writes the autoencoder beside it, imagenet_ldm_256_autoencoder.safetensors.

       https://download.pytorch.org/models/resnet50-0676ba61.pth

       python -m klip_jax.main --mode=convert --source=resnet50-0676ba61.pth \\
           --size=256 --target=checkpoints/imagenet_resnet50_256.safetensors

       https://download.pytorch.org/models/vgg16-397923af.pth, and weights.pt out of
       the PyPI package dists-pytorch

       python -m klip_jax.main --mode=convert --source=vgg16-397923af.pth,weights.pt \\
           --target=checkpoints/dists.safetensors

2. The data, as for imagenet_diffguard_gdm.

75 network calls an image; the release tells of 0.53 images a second on a V100. Not run
here at this size: neither weights nor images are ours. What is said there of law,
p-values and disk holds here. --mode=train trains the classifier, as latents would be
the data of the prior, and keeps all its images in memory, 150 kB each.

Reference: Gao et al. 2023 (DiffGuard), table 2.
"""

import math
import runpy
from pathlib import Path


def get_config():
    same = Path(__file__).with_name("imagenet_diffguard_gdm.py")
    gdm = runpy.run_path(str(same))
    config, pictures = gdm["get_config"](), gdm["pictures"]
    with config.unlocked():
        config.data.crop = 256
        config.prior.weights = "imagenet_ldm_256"
        config.classifier.weights = "imagenet_resnet50_256"
        config.detectors.diffguard = dict(
            name="diffguard.DiffGuard",
            guidance=dict(name="classifier_free.ClassifierFree", weight=10.0, cut=0.3),
            steps=25,
            skipped=0,
            ahead=0,
            stop_psnr=-math.inf,
            perceptual=dict(weights="dists"),
            distance="perceptual",
            against="input",
            autoencoder=dict(weights="imagenet_ldm_256_autoencoder"),
        )
        only = dict(id="imagenet")
        config.train.data = pictures(only, crop=224, split="train")
        config.train.test = dict(**pictures(only, crop=224), per_group=5000)
        # What resnet50-0676ba61.pth is.
        config.train.net = dict(
            name="resnet.ResNet",
            stages=(3, 4, 6, 3),
            width=64,
            classes=1000,
            block="bottleneck",
            stem="imagenet",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        config.train.prior = None
        config.train.augment = dict(mirror=0.5)
        config.train.recipe = dict(
            steps=450_000,
            batch=256,
            learning_rate=0.1,
            warmup=5000,
            ema=0.999,
            seed=0,
            dtype="bfloat16",
            checkpoint_every=1000,
            keep=2,
            optimiser="sgd",
            weight_decay=1e-4,
        )
    return config
