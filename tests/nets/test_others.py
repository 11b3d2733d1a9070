"""Networks of others: shapes, options, and the outputs that the reference saved.

The golden comparisons compile for 5 to 20 s each, so they are slow.
"""

import json

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from klip_jax.convert import diffusers, score_sde
from klip_jax.hub import empty_params
from klip_jax.nets.ncsnpp import NCSNpp
from klip_jax.nets.song_unet import SongUNet
from klip_jax.nets.unet2d import UNet2DModel

DOWN, UP = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
SMALL = dict(block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1)
SMALL |= dict(down_block_types=DOWN, up_block_types=UP)
NETS = {
    "ncsnpp": NCSNpp(8, (1, 2), 1),
    "ncsnpp_cat": NCSNpp(8, (1, 2, 2), 1, attention=(1,), combine="cat"),
    "ddpmpp": SongUNet(8, (1, 2), 1),
    "edm_ncsnpp": SongUNet(
        *(8, (1, 2), 1),
        embedding="fourier",
        noise_width=2,
        encoder="residual",
        taps=(1, 3, 3, 1),
    ),
    "unet2d": UNet2DModel(**SMALL),
    "unet2d_resnet": UNet2DModel(
        **SMALL | dict(down_block_types=("ResnetDownsampleBlock2D", DOWN[1])),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=None,
        downsample_padding=0,
        center_input_sample=True,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_output_is_as_the_input(name):
    net, shape = NETS[name], (16, 24, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    level = jax.ShapeDtypeStruct((), jnp.float32)
    found, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), x, level)
    assert found.shape == shape and found.dtype == jnp.float32
    with pytest.raises(ValueError, match="does not divide into this network's grids"):
        empty_params(net, (16, 23, 3))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (NCSNpp(8, (1, 2), 1, combine="product"), "combine='product'"),
        (SongUNet(8, (1, 2), 1, embedding="none"), "embedding='none'"),
        (UNet2DModel(**SMALL | dict(up_block_types=DOWN)), "block type 'DownBlock2D'"),
        (UNet2DModel(**SMALL, downsample_type="fir"), "downsample_type='fir'"),
        (UNet2DModel(**SMALL, downsample_padding=2), "downsample_padding=2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_settings_are_refused(net, message):
    with pytest.raises(ValueError, match=message):
        empty_params(net, (8, 8, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_it_sees_its_noise_level_and_vmap_is_a_loop(name):
    net, shape = NETS[name], (8, 8, 2)
    params = golden.random_params(net, shape)
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    levels = jnp.array([0.3, 0.9])
    batch = jax.jit(jax.vmap(net.apply, (None, 0, 0)))(params, x, levels)
    one = jax.jit(net.apply)
    for a, level, found in zip(x, levels, batch, strict=True):
        np.testing.assert_allclose(found, one(params, a, level), 1e-4, 1e-5)
    assert float(jnp.abs(batch[0] - one(params, x[0], levels[1])).max()) > 1e-3


@pytest.mark.slow
def test_unet2d_gives_the_eps_of_the_reference(shared_data):
    folder = shared_data / "golden"
    config = json.loads((folder / "ddpm_unet_32.json").read_text())
    arrays = load_file(folder / "ddpm_unet_32.safetensors")
    net, params = golden.network(
        diffusers.convert(config["unet"], config["scheduler"], arrays)
    )
    with np.load(folder / "ddpm_32.npz") as saved:
        steps = saved["xt_in_steps"]
        x, eps = golden.hwc(saved["xt_in"]), golden.hwc(saved["eps"][steps])
        timesteps = np.float32(saved["timesteps"][steps])
    apply = jax.vmap(jax.vmap(net.apply, (None, 0, None)), (None, 0, 0))
    found = jax.jit(apply)(params, x, timesteps)
    for one, expected in zip(found, eps, strict=True):
        assert golden.gap(one, expected) <= 1e-5  # observed 2e-6


@pytest.mark.slow
def test_ncsnpp_gives_the_score_of_the_reference(shared_data):
    folder = shared_data / "golden"
    net, params = golden.network(
        score_sde.load(folder / "song22_64a_params.npz", size=64)
    )
    with np.load(folder / "song22_64a_net_io.npz") as saved:
        x, sigma, out = saved["x"], saved["sigma"], saved["out"]
    found = jax.jit(jax.vmap(net.apply, (None, 0, 0)))(params, x, sigma)
    for one, expected in zip(found, out, strict=True):
        assert golden.gap(one, expected) <= 1e-4  # observed 2e-5
