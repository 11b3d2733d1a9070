"""ResNet-18, -34 and -50, for images in [0, 1]; one image [H, W, C] a call.

A block is x -> relu(shortcut(x) + F(x)), with F of two 3x3 convolutions ("basic") or of
1x1, 3x3, 1x1 ("bottleneck"), and every convolution is followed by

    BN(h) = gamma (h - mean) / sqrt(var + epsilon) + beta,

with frozen running statistics; in training, with those of the batch. The logits are
W mean_{h, w}(maps) + b, so that maps, features and logits can each be had alone.

Reference: He et al. 2016, table 1, table 6 and section 4.2 (the stem for CIFAR);
Ioffe and Szegedy 2015, algorithm 2. The stride of a bottleneck is on its 3x3
convolution, as torchvision has it, not on the first 1x1 as in the paper.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

EPSILON = 1e-5
WIDENING = 4
"""Channels that leave a bottleneck over those of its 3x3 convolution."""


class ResNet(nn.Module):
    """Map an image [H, W, C] in [0, 1] to logits [classes].

    `apply(variables, x)` gives the logits, `method="maps"` the activations of the last
    stage [h, w, F], `method="features"` their mean [F], and `method="head"` the logits
    of such features. `variables` are {"params", "batch_stats"}. It computes in the
    dtype of `x` and the parameters; batch statistics are float32.

    Attributes:
      stages: blocks at each grid: (2, 2, 2, 2) for ResNet-18, (3, 4, 6, 3) for 34, 50.
      width: channels of the first stage; each next one has twice as many.
      classes: how many logits.
      block: "basic" (18, 34) or "bottleneck" (50).
      stem: "cifar", one 3x3 convolution, or "imagenet", 7x7 with stride 2 and pooling.
      mean, std: of the pixels, by channel, in [0, 1]: images are normalised by them.
      training: take the batch's statistics, and update the running ones.
      batch_axis: name of the vmapped axis that is the batch, in training.

    Raises:
      ValueError: if `block` or `stem` is another word, or `mean` or `std` has not one
        number a channel.

    Reference: He et al. 2016, table 1.
    """

    stages: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    classes: int = 10
    block: str = "basic"
    stem: str = "cifar"
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.25, 0.25, 0.25)
    training: bool = False
    batch_axis: str | None = None

    def setup(self):
        for name, known in (
            ("block", ("basic", "bottleneck")),
            ("stem", ("cifar", "imagenet")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be of {known}")
        settings = self.training, self.batch_axis
        own = BasicBlock if self.block == "basic" else Bottleneck
        size, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        self.stem_conv = _conv(self.width, size, stride)
        self.stem_norm = _norm(*settings)
        self.layers = [
            [
                own(self.width * 2**stage, 2 if stage and not i else 1, *settings)
                for i in range(blocks)
            ]
            for stage, blocks in enumerate(self.stages)
        ]
        self.dense = nn.Dense(self.classes)

    def __call__(self, x: Array) -> Array:
        return self.head(self.features(x))

    def maps(self, x: Array) -> Array:
        """Return the last stage's activations [h, w, F], what Grad-CAM weighs."""
        mean, std = (jnp.asarray(a, x.dtype) for a in (self.mean, self.std))
        if not x.shape[-1] == len(mean) == len(std):
            raise ValueError(
                f"images of {x.shape[-1]} channels, but mean has {len(mean)} numbers "
                f"and std {len(std)}: give one a channel"
            )
        h = nn.relu(self.stem_norm(self.stem_conv((x - mean) / std)))
        if self.stem == "imagenet":
            h = nn.max_pool(h, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage in self.layers:
            for block in stage:
                h = block(h)
        return h

    def features(self, x: Array) -> Array:
        """Return the mean over pixels of `maps` [F]."""
        return jnp.mean(self.maps(x), (0, 1))

    def head(self, features: Array) -> Array:
        """Return the logits [classes] of `features` [F]."""
        return self.dense(features)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride."""

    width: int
    stride: int
    training: bool
    batch_axis: str | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = functools.partial(_norm, self.training, self.batch_axis)
        h = nn.relu(norm("norm_0")(_conv(self.width, 3, self.stride, "conv_0")(x)))
        h = norm("norm_1")(_conv(self.width, 3, 1, "conv_1")(h))
        return nn.relu(_shortcut(x, h, self.stride, norm) + h)


class Bottleneck(nn.Module):
    """1x1 to `width` channels, 3x3 with the stride, 1x1 to `WIDENING` times as many."""

    width: int
    stride: int
    training: bool
    batch_axis: str | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = functools.partial(_norm, self.training, self.batch_axis)
        h = nn.relu(norm("norm_0")(_conv(self.width, 1, 1, "conv_0")(x)))
        h = nn.relu(norm("norm_1")(_conv(self.width, 3, self.stride, "conv_1")(h)))
        h = norm("norm_2")(_conv(WIDENING * self.width, 1, 1, "conv_2")(h))
        return nn.relu(_shortcut(x, h, self.stride, norm) + h)


def _shortcut(x, h, stride, norm):
    """The identity, or where shapes differ a 1x1 convolution; in a compact module."""
    if stride == 1 and x.shape[-1] == h.shape[-1]:
        return x
    conv = _conv(h.shape[-1], 1, stride, "shortcut_conv")
    return norm("shortcut_norm")(conv(x))


def _conv(features, size, stride, name=None):
    # "SAME" would pad a strided convolution on one side only.
    return nn.Conv(
        features,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def _norm(training, batch_axis, name=None):
    return nn.BatchNorm(
        use_running_average=not training,
        momentum=0.9,
        epsilon=EPSILON,
        axis_name=batch_axis if training else None,
        name=name,
    )
