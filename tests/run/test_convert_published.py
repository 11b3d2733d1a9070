"""Published layouts from the command line: told apart, written, loaded again."""

import pickle
import sys
import types

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import arrays_of, latent_diffusion
from safetensors.numpy import save_file

from klip_jax import hub
from klip_jax.convert import vgg
from klip_jax.nets.adm import ADM
from klip_jax.nets.ddim_unet import DDIMUNet
from klip_jax.nets.latent_unet import LatentUNet
from klip_jax.nets.vq_autoencoder import VQAutoencoder
from klip_jax.run.convert import Request, convert

ONE = dict(width=64, multipliers=(1,), blocks=1, attention=())
ADM_NET = ADM(**ONE, out_channels=6)
LATENT = LatentUNet(**ONE | dict(attention=(0,)), classes=1000, context=4)
CODES = VQAutoencoder(width=32, multipliers=(1, 1), blocks=1, codes=5)


def converted(arrays, path, **settings):
    """Write arrays as a file, convert it, return the file of ours."""
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        path.write_bytes(pickle.dumps(arrays))
    return convert(Request(str(path), f"{path.parent}/ours.safetensors", **settings))


def same(arrays, expected):
    jax.tree.map(np.testing.assert_array_equal, arrays, expected)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_guided_diffusion(suffix, tmp_path):
    params = golden.random_params(ADM_NET, (8, 8, 3))
    file = (tmp_path / "256x256_diffusion_uncond").with_suffix(suffix)
    with pytest.raises(ValueError, match="does not say how large its images are"):
        converted(arrays_of(params), file)
    prior, record = hub.load(converted(arrays_of(params), file, size=8))
    same(prior.params, params)
    assert prior.net == ADM_NET and record["image_shape"] == [8, 8, 3]
    # Of the six channels that it predicts, three are the noise.
    x = jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)
    assert jax.eval_shape(prior, x, jnp.float32(0.5)).shape == (8, 8, 3)


def test_latent_diffusion_becomes_a_prior_and_an_autoencoder(tmp_path, monkeypatch):
    unet = golden.random_params(LATENT, (4, 4, 3))
    x = jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)
    empty = jax.eval_shape(CODES.init, jax.random.key(0), x)
    draw = np.random.default_rng(0).standard_normal
    first = jax.tree.map(lambda a: np.float32(draw(a.shape)), empty)
    # Its trainer keeps what it was called by beside the weights.
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    weights = latent_diffusion(unet, first)
    content = {
        "state_dict": weights,
        "callbacks": {module.ModelCheckpoint: {"best": 1}},
    }
    path = converted(content, tmp_path / "model.ckpt", size=8)
    prior, record = hub.load(path)
    same(prior.params, unet)
    assert record["image_shape"] == [4, 4, 3] and prior.classes == 1000
    # Latents have no range; the schedule is linear in the square roots.
    assert prior.prior.low == 0
    np.testing.assert_allclose(prior.prior.betas[::999], (0.0015, 0.0195), rtol=1e-9)
    beside = tmp_path / "ours_autoencoder.safetensors"
    autoencoder, record = hub.load_autoencoder(beside)
    same(autoencoder.params, first)
    assert jax.eval_shape(autoencoder.encode, x).shape == (4, 4, 3)
    with pytest.raises(ValueError, match="weights of an autoencoder, not of a prior"):
        hub.load(beside)
    with pytest.raises(ValueError, match="weights of a prior, not of an autoencoder"):
        hub.load_autoencoder(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"ours_autoencoder\.safetensors exists"):
        converted(content, tmp_path / "model.ckpt", size=8)
    assert not path.exists()


def test_diffnb(tmp_path):
    net = DDIMUNet(**ONE, classes=3)
    params = golden.random_params(net, (8, 8, 3))
    prior, record = hub.load(converted(arrays_of(params), tmp_path / "nb.ckpt", size=8))
    same(prior.params, params)
    assert prior.classes == 3 and record["prior"]["name"] == "epsilon.Epsilon"


@pytest.mark.parametrize(
    ("beside", "file"),
    [("downsample", "r.pth"), ("shortcut", "r.pth"), ("downsample", "r.safetensors")],
    ids=["torchvision", "OpenOOD", "timm"],
)
def test_a_classifier(beside, file, tmp_path):
    rng = np.random.default_rng(0)

    def norm(name, n):
        leaves = dict(weight=1.0, bias=0.0, running_mean=0.0, running_var=1.0)
        named = {f"{name}.{k}": np.full(n, v, np.float32) for k, v in leaves.items()}
        return named | {f"{name}.num_batches_tracked": np.zeros((), np.int64)}

    def conv(name, out, given, size):
        shape = out, given, size, size
        return {f"{name}.weight": np.float32(rng.standard_normal(shape))}

    arrays = conv("conv1", 4, 3, 3) | norm("bn1", 4)
    for i, (given, out) in enumerate([(4, 4), (4, 8)], start=1):
        block = f"layer{i}.0"
        arrays |= conv(f"{block}.conv1", out, given, 3) | norm(f"{block}.bn1", out)
        arrays |= conv(f"{block}.conv2", out, out, 3) | norm(f"{block}.bn2", out)
    arrays |= conv(f"layer2.0.{beside}.0", 8, 4, 1) | norm(f"layer2.0.{beside}.1", 8)
    arrays |= {"fc.weight": np.ones((2, 8), np.float32), "fc.bias": np.zeros(2)}
    arrays["fc.bias"] = np.float32([0.25, -0.5])
    path = converted(
        {f"module.{name}": array for name, array in arrays.items()}, tmp_path / file
    )
    with pytest.raises(ValueError, match=rf"--mode=convert --source=.*{file}"):
        hub.load_classifier(tmp_path / file)
    classifier, record = hub.load_classifier(path)
    assert record["net"]["stages"] == [1, 1] and record["net"]["stem"] == "cifar"
    assert record["image_shape"] == [32, 32, 3] and classifier.classes == 2
    logits = classifier.logits(jnp.full((32, 32, 3), 0.5))
    np.testing.assert_allclose(logits[0] - logits[1], 0.75, atol=1e-5)
    variables = classifier.variables
    kernel = variables["params"]["layers_1_0"]["shortcut_conv"]["kernel"]
    theirs = arrays[f"layer2.0.{beside}.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, theirs)
    # A broken one is refused whole.
    arrays.pop("layer1.0.bn1.running_var")
    path.unlink()
    with pytest.raises(ValueError, match="layers_0_0/norm_0/var is nothing"):
        converted(arrays, tmp_path / file)
    assert not path.exists()
    # Of another family: timm's ResNet-D has three convolutions in its stem.
    with pytest.raises(ValueError, match="not a ResNet of torchvision: it has no con"):
        stem = arrays.pop("conv1.weight")
        converted(arrays | {"conv1.0.weight": stem}, tmp_path / file)
    with pytest.raises(ValueError, match=r"no layout that we know: .*nor a ResNet"):
        converted({"patch_embed.proj.weight": stem}, tmp_path / file)


def test_a_perceptual_distance_of_two_files(tmp_path):
    rng, arrays, channels = np.random.default_rng(0), {}, 3
    for position in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        shape = 2, channels, 3, 3
        arrays[f"features.{position}.weight"] = np.float32(rng.normal(size=shape))
        arrays[f"features.{position}.bias"] = np.float32(rng.normal(size=2))
        channels = 2
    network = tmp_path / "vgg16.pth"
    network.write_bytes(pickle.dumps(arrays))
    both = {name: np.ones((1, 13, 1, 1), np.float32) for name in ("alpha", "beta")}
    lines = {f"lin{k}.model.1.weight": np.float32([[1], [2]]) for k in range(5)}
    for theirs, kind, made in (
        (both, "DISTS", vgg.dists),
        (lines, "LPIPS", vgg.lpips),
    ):
        weights, target = tmp_path / f"{kind}.pt", tmp_path / f"{kind}.safetensors"
        weights.write_bytes(pickle.dumps(theirs))
        convert(Request(f"{network},{weights}", str(target)))
        distance, record = hub.load_perceptual(target)
        assert record["distance"] == {"name": f"perceptual.{kind}"}
        same(jax.tree.leaves(distance), jax.tree.leaves(made(network, weights)))
        assert type(distance).__name__ == kind and distance.net.widths == (2,) * 5
    with pytest.raises(ValueError, match="weights of a distance, not of a classifier"):
        hub.load_classifier(target)
    with pytest.raises(ValueError, match="has no 'alpha'"):
        convert(Request(f"{network},{network}", f"{tmp_path}/x.safetensors"))
    with pytest.raises(ValueError, match="or the two files of a perceptual distance"):
        convert(Request("a.pt,b.pt,c.pt", f"{tmp_path}/x.safetensors"))
