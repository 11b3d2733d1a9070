"""Guided and latent diffusion, DiffNB, ResNets: sizes and outputs of the published.

The golden comparisons compile for 5 to 20 s each, so they are slow.
"""

import functools
import json

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import arrays_of, latent_diffusion
from safetensors.numpy import load_file

from klip_jax.checkpoint import check_fit
from klip_jax.config import build
from klip_jax.convert import adm, ddim, torchvision
from klip_jax.convert import latent_diffusion as ldm
from klip_jax.convert.diffusers import betas
from klip_jax.hub import empty_params
from klip_jax.nets.adm import ADM, Attention
from klip_jax.nets.ddim_unet import DDIMUNet
from klip_jax.nets.latent_unet import CrossAttention, LatentUNet
from klip_jax.nets.vq_autoencoder import VQAutoencoder
from klip_jax.priors.base import timestep_sigmas

SMALL = dict(width=32, multipliers=(1, 2), blocks=1)
NETS = {
    "adm": ADM(**SMALL, attention=(1,), head_channels=16, out_channels=6),
    "latent": LatentUNet(**SMALL, attention=(0, 1), classes=3, context=5, depth=2),
    "ddim": DDIMUNet(**SMALL, attention=(1,), classes=3),
}
CODES = VQAutoencoder(**SMALL, attention=(1,), latent_channels=4, codes=7, channels=3)
FULL = {
    "256x256_diffusion_uncond": ("adm256", adm.convert, 552_814_086),
    "cin256-v2": ("cin256-v2", ldm.convert, 400_920_579 + 1001 * 512),
    "its autoencoder": ("cin256-v2", ldm.autoencoder, 55_322_782),
    "cin256": ("cin256(vq8)", ldm.convert, None),
    "its autoencoder too": ("cin256(vq8)", ldm.autoencoder, None),
    "DiffNB": ("diffnb_ddim_cifar10_cond", ddim.convert, 35_751_939),
    "ResNet-50": ("resnet50", torchvision.convert, 25_610_205 - 53),
    "ResNet-18": ("resnet18_32x32", torchvision.convert, 11_183_582 - 20),
}
"""{name: (in the file of keys, converter, how many numbers)}."""


def of_an_image(net, shape):
    x = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x)


def random_params_of(layer, *inputs):
    rng = np.random.default_rng(1)
    empty = jax.eval_shape(layer.init, jax.random.key(0), *inputs)
    return jax.tree.map(
        lambda a: jnp.float32(0.3 * rng.standard_normal(a.shape)), empty
    )


def check_converted(converted, room="nets"):
    params, record = converted
    net = build(room, record["net"])
    if "prior" in record:
        return golden.network(converted)
    check_fit("converted", params, of_an_image(net, record["image_shape"]))
    return net, params


DEFAULTS = {
    "256x256_diffusion_uncond": ADM(),
    "cin256-v2": LatentUNet(),
    "its autoencoder": VQAutoencoder(),
    "DiffNB": DDIMUNet(),
}
LARGE = ("256x256_diffusion_uncond", "cin256-v2", "cin256", "its autoencoder too")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in FULL]
)
def test_the_full_size_matches_leaf_by_leaf(name, shared_data):
    keys, convert, numbers = FULL[name]
    saved = json.loads((shared_data / "golden/dg_full_size_keys.json").read_text())
    shapes = saved[keys]["shapes"]
    zero = np.zeros((), np.float32)
    arrays = {k: np.broadcast_to(zero, shape) for k, shape in shapes.items()}
    converted = convert(arrays, "keys")
    room = "classifiers" if convert is torchvision.convert else "nets"
    check_converted(converted, room)
    leaves = jax.tree.leaves(converted.params)
    theirs = [k for k in shapes if not k.endswith("num_batches_tracked")]
    parts = {ldm.autoencoder: ("first_stage",), ldm.convert: ("model.", "cond_stage")}
    theirs = [k for k in theirs if k.startswith(parts.get(convert, ""))]
    assert len(leaves) == len(theirs)
    total = sum(leaf.size for leaf in leaves)
    assert total == sum(int(np.prod(shapes[k])) for k in theirs)
    assert numbers in (None, total)
    if name in DEFAULTS:
        assert build("nets", converted.record["net"]) == DEFAULTS[name]


def read(shared_data, name):
    return load_file(shared_data / f"golden/dg_{name}.safetensors")


def latent_files(shared_data):
    return read(shared_data, "ldm_unet") | read(shared_data, "ldm_first_stage")


def close(found, expected, absolute):
    """Within about three times the reference's own float32 against float64."""
    np.testing.assert_allclose(found, golden.hwc(expected), atol=absolute, rtol=0)


def test_noise_levels_are_those_of_the_reference(shared_data):
    saved = np.load(shared_data / "golden/dg_schedules.npz")
    np.testing.assert_allclose(betas({}), saved["adm_linear_betas_1000"], rtol=1e-12)
    np.testing.assert_allclose(betas({}), saved["nb_betas_f32"], rtol=1e-6)
    expected = saved["ldm_cin256v2_betas_1000"]
    np.testing.assert_allclose(betas(ldm.SCHEDULE), expected, rtol=1e-12)


@pytest.mark.slow
def test_a_prior_of_adm_gives_the_estimate_of_the_reference(shared_data):
    arrays = read(shared_data, "gdm_unet")
    converted = adm.convert(arrays, size=32, head_channels=16)
    net, params = golden.network(converted)
    prior = build("priors", converted.record["prior"], params, net)
    denoise = jax.jit(lambda x, sigma: prior.denoise(x, sigma))
    sigmas = timestep_sigmas(prior.betas)
    with np.load(shared_data / "golden/dg_gdm_io.npz") as saved:
        for index in (50, 25, 10, 2, 0):
            sigma = np.float32(sigmas[10 * index])
            # A variance-preserving state, and the image that it is estimated to be.
            x = golden.hwc(saved[f"step{index}_x"][0]) * np.sqrt(1 + sigma**2)
            found = denoise(jnp.asarray(x), sigma)
            close(found, saved[f"step{index}_x0h"][0], 1.2e-5)  # observed 8e-6


@pytest.mark.slow
def test_adm_gives_the_output_of_the_reference(shared_data):
    arrays = read(shared_data, "gdm_unet")
    net, params = golden.network(adm.convert(arrays, size=32, head_channels=16))
    with np.load(shared_data / "golden/dg_gdm_io.npz") as saved:
        x, t, out = golden.hwc(saved["unet_x"]), saved["unet_t"], saved["unet_out"]
    both = functools.partial(net.apply, method="both")
    found = jax.jit(jax.vmap(both, (None, 0, 0)))(params, x, np.float32(t))
    close(found, out, 5e-6)  # observed 1.5e-6


@pytest.mark.slow
def test_latent_unet_gives_the_noise_of_the_reference(shared_data):
    net, params = golden.network(ldm.convert(latent_files(shared_data), size=96))
    with np.load(shared_data / "golden/dg_ldm_io.npz") as saved:
        x, t, y = golden.hwc(saved["unet_x"]), saved["unet_t"], saved["unet_y"]
        one, four = saved["unet_context"], saved["unet_context4"]
        eps, eps4 = saved["unet_eps"], saved["unet_eps4"]
    t = np.float32(t)
    found = jax.jit(jax.vmap(net.apply, (None, 0, 0, 0)))(params, x, t, y)
    close(found, eps, 9e-6)  # observed 3e-6
    table = params["params"]["label"]["embedding"]
    np.testing.assert_array_equal(table[y][:, None], one)

    def told(x, t, tokens):
        return net.apply(params, x, t, tokens=tokens)

    close(jax.jit(jax.vmap(told))(x, t, four), eps4, 9e-6)  # observed 3.5e-6


@pytest.mark.slow
def test_autoencoder_gives_the_latents_of_the_reference(shared_data):
    arrays = latent_files(shared_data)
    net, params = check_converted(ldm.autoencoder(arrays, size=96))
    with np.load(shared_data / "golden/dg_ldm_io.npz") as saved:
        images = 2 * golden.hwc(saved["cls_in01"][:2]) - 1
        z, quant, out = saved["enc_out"], saved["quant"], saved["dec_out"]
        rows = saved["quant_indices"]
    encode, quantise, decode = (
        jax.jit(jax.vmap(functools.partial(net.apply, method=m), (None, 0)))
        for m in ("encode", "quantise", "decode")
    )
    close(encode(params, images), z, 2e-5)  # observed 5e-6
    codes, found = quantise(params, golden.hwc(z))
    np.testing.assert_array_equal(found.reshape(2, -1), rows)
    close(codes, quant, 1e-6)
    close(decode(params, golden.hwc(z)), out, 6e-6)  # observed 2.5e-6


@pytest.mark.slow
def test_ddim_unet_gives_the_noise_of_the_reference(shared_data):
    net, params = golden.network(ddim.convert(read(shared_data, "nb_unet")))
    with np.load(shared_data / "golden/dg_nb.npz") as saved:
        x, t, y = golden.hwc(saved["net_x"]), saved["net_t"], saved["net_y"]
        out = saved["net_out"]
    apply = jax.jit(jax.vmap(net.apply, (None, 0, 0, 0)))
    close(apply(params, x, t, y), out, 7e-6)  # observed 3e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gdm", "ldm", "nb"])
def test_classifiers_give_the_logits_of_the_reference(name, shared_data):
    found = torchvision.convert(read(shared_data, f"{name}_classifier"))
    shape = {"gdm": (28, 28, 3), "ldm": (96, 96, 3), "nb": (32, 32, 3)}[name]
    net = build("classifiers", found.record["net"])
    check_fit("converted", found.params, of_an_image(net, shape))
    file = "dg_nb" if name == "nb" else f"dg_{name}_io"
    with np.load(shared_data / f"golden/{file}.npz") as saved:
        images = saved["img_uint8"] / 255 if name == "nb" else saved["cls_in01"]
        logits, features = saved["cls_logits"], saved["cls_feature"]
    images = np.float32(images if name == "nb" else golden.hwc(images))
    if images.shape[1:] != shape:
        images = golden.hwc(images)

    def both(x):
        features = net.apply(found.params, x, method="features")
        return features, net.apply(found.params, features, method="head")

    own = jax.jit(jax.vmap(both))(images)
    np.testing.assert_allclose(own[0], features, atol=1e-5, rtol=0)
    np.testing.assert_allclose(own[1], logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_shapes_and_the_way_back_from_names(name):
    net, shape = NETS[name], (16, 8, 3)
    params = golden.random_params(net, shape)
    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jnp.float32(3)
    assert jax.eval_shape(net.apply, params, x, t).shape == shape
    with pytest.raises(ValueError, match="does not divide into this network's grids"):
        empty_params(net, (15, 8, 3))
    if name == "latent":
        return
    own = {"adm": functools.partial(adm.convert, head_channels=16)}
    convert = own.get(name, ddim.convert)
    found = convert(arrays_of(params), size=16)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert build("nets", found.record["net"]) == net


def test_the_way_back_from_the_file_of_a_latent_diffusion():
    first = of_an_image(CODES, (16, 16, 3))
    leaves, structure = jax.tree.flatten(first)
    rng = np.random.default_rng(0)
    leaves = [np.float32(rng.standard_normal(leaf.shape)) for leaf in leaves]
    autoencoder = jax.tree.unflatten(structure, leaves)
    net = NETS["latent"].clone(null_class=False)
    unet = golden.random_params(net, (8, 8, 4))
    arrays = latent_diffusion(unet, autoencoder)
    found = ldm.convert(arrays, size=16, head_channels=0)
    jax.tree.map(np.testing.assert_array_equal, found.params, unet)
    assert build("nets", found.record["net"]) == net
    assert found.record["image_shape"] == [8, 8, 4]
    found = ldm.autoencoder(arrays, size=16)
    jax.tree.map(np.testing.assert_array_equal, found.params, autoencoder)
    assert build("nets", found.record["net"]) == CODES
    assert "prior" not in found.record
    with pytest.raises(ValueError, match="something other than classes"):
        ldm.convert({k: v for k, v in arrays.items() if "cond_stage" not in k}, "a.pt")
    with pytest.raises(ValueError, match="no autoencoder with a table of codes"):
        ldm.convert({k: v for k, v in arrays.items() if "quantize" not in k}, "a.pt")


def test_the_q_k_and_v_of_one_head_are_side_by_side():
    """In another order of the channels the published weights give something else."""
    heads, c, shape = 2, 16, (2, 3, 32)
    layer, x = Attention(c), jax.random.normal(jax.random.key(0), shape)
    params = random_params_of(layer, x)
    n = nn.GroupNorm(32, epsilon=1e-5, reduction_axes=(0, 1, 2))
    h = n.apply({"params": params["params"]["norm"]}, x)
    qkv = nn.Dense(96).apply({"params": params["params"]["qkv"]}, h).reshape(6, 96)
    parts = []
    for head in range(heads):
        q, k, v = (qkv[:, (3 * head + i) * c :][:, :c] for i in range(3))
        parts.append(jax.nn.softmax(q @ k.T / 4) @ v)
    out = nn.Dense(32).apply(
        {"params": params["params"]["proj_out"]}, jnp.concatenate(parts, 1)
    )
    expected = x + out.reshape(shape)
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-5)


def test_one_token_says_the_same_to_every_pixel():
    """And of two tokens the queries decide."""
    layer, key = CrossAttention(2), jax.random.key(0)
    h, tokens = jax.random.normal(key, (5, 8)), jax.random.normal(key, (2, 4))
    params = random_params_of(layer, h, tokens)
    one = layer.apply(params, h, tokens[:1])
    weights = params["params"]
    out = tokens[0] @ weights["to_v"]["kernel"] @ weights["to_out_0"]["kernel"]
    expected = out + weights["to_out_0"]["bias"]
    np.testing.assert_allclose(one, np.tile(expected, (5, 1)), atol=1e-5)
    two = layer.apply(params, h, tokens)
    assert np.ptp(two, axis=0).max() > 1e-2


def test_the_code_is_the_nearest():
    net = CODES.clone(multipliers=(1,), attention=())
    params = of_an_image(net, (4, 4, 3))
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), params)
    rng = np.random.default_rng(0)
    table, z = rng.standard_normal((7, 4)), rng.standard_normal((3, 2, 4))
    params["params"]["codes"] = jnp.float32(table)
    codes, rows = net.apply(params, jnp.float32(z), method="quantise")
    expected = np.argmin(((z[..., None, :] - table) ** 2).sum(-1), -1)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(codes, np.float32(table)[expected])


def test_the_null_label():
    net = NETS["ddim"].clone(multipliers=(2,), attention=())
    x, t = jnp.ones((4, 4, 3)), jnp.float32(5)
    params = golden.random_params(net, x.shape)

    @jax.jit
    def both(label):
        return net.apply(params, x, t), net.apply(params, x, t, label)

    null, last = both(3)
    np.testing.assert_allclose(null, last, atol=1e-6)
    assert float(jnp.abs(null - both(0)[1]).max()) > 1e-3
    always = NETS["latent"].clone(null_class=False)
    params = empty_params(always, (4, 4, 3))
    with pytest.raises(ValueError, match="label=None: this network was trained with"):
        jax.eval_shape(always.apply, params, x, t)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="head_channels=24: must divide the 64"):
        empty_params(NETS["adm"].clone(head_channels=24), (4, 4, 3))
