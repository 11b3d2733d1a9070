"""Run by the Python of an environment with torch and diffusers; see test_torch.py.

python write_with_torch.py diffusers <folder> <config.json>
python write_with_torch.py pickles <folder with arrays.npz>
"""

import json
import pathlib
import pickle
import sys
import types

import numpy as np
import torch


def write_diffusers(folder, config):
    """Save a random model as diffusers does, with an input and its output."""
    import diffusers

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**config["unet"]).eval()
    scheduler = diffusers.DDPMScheduler(**config.get("scheduler", {}))
    whole = diffusers.DDPMPipeline(unet, scheduler)
    whole.save_pretrained(folder)
    if config.get("pickled"):
        whole.save_pretrained(folder / "pickled", safe_serialization=False)
    size, channels = unet.config.sample_size, unet.config.in_channels
    x = torch.randn(1, channels, size, size)
    timesteps = config.get("timesteps", [0, 437])
    with torch.no_grad():
        out = [unet(x, t).sample[0].numpy() for t in timesteps]
    abar = scheduler.alphas_cumprod.numpy()
    np.savez(folder / "io.npz", x=x[0], timesteps=timesteps, out=out, abar=abar)


class EasyDict(dict):
    """As EDM has it."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Persistent(torch.nn.Module):
    """Pickles as EDM's persistent objects: class name, source code and state."""

    def __init__(self, kind):
        super().__init__()
        self._init_args, self._init_kwargs = (), EasyDict(kind=kind)
        self._kind, self.sigma_data, self.skip_scale = kind, 0.5, np.sqrt(0.5)

    def __reduce__(self):
        state = super().__reduce__()[2]
        meta = EasyDict(type="class", version=6, module_src="raise SystemExit")
        meta |= dict(class_name=self._kind, state=state)
        return reconstruct, (meta,), None


def reconstruct(meta):
    """Stand where EDM's own function is."""
    raise NotImplementedError


def module_of(arrays):
    """Return EDM's precondition around a tree of modules with these arrays."""
    net = Persistent("Patch_EDMPrecond")
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        at = net
        for depth, part in enumerate(path):
            if part not in at._modules:
                kind = ["SongUNet", "", "UNetBlock", "Conv2d"][depth]
                plain = part in ("enc", "dec")
                own = torch.nn.ModuleDict() if plain else Persistent(kind)
                at.add_module(part, own)
            at = at._modules[part]
        tensor = torch.from_numpy(array)
        if leaf in ("weight", "bias"):
            at.register_parameter(leaf, torch.nn.Parameter(tensor))
        else:
            at.register_buffer(leaf, tensor)
    return net


def write_pickles(folder):
    """Write the arrays as EDM, and as torch.save in both formats, and odd tensors."""
    with np.load(folder / "arrays.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, values in {
        "torch_utils.persistence": {"_reconstruct_persistent_obj": reconstruct},
        "dnnlib.util": {"EasyDict": EasyDict},
    }.items():
        package = sys.modules.setdefault(
            name.split(".")[0], types.ModuleType(name.split(".")[0])
        )
        module = sys.modules[name] = types.ModuleType(name)
        setattr(package, name.split(".")[1], module)
        for attribute, value in values.items():
            value.__module__, value.__qualname__ = name, attribute
            value.__name__ = attribute
            setattr(module, attribute, value)
    net = module_of(arrays).eval().requires_grad_(False)
    data = dict(ema=net, loss_fn=Persistent("Patch_EDMLoss"), augment_pipe=None)
    data |= dict(dataset_kwargs=EasyDict(path="/data", resolution=24))
    for protocol in (2, 4):
        with open(folder / f"edm_{protocol}.pkl", "wb") as file:
            pickle.dump(data, file, protocol=protocol)
    state = net.state_dict()
    torch.save(state, folder / "state.pt")
    old = dict(_use_new_zipfile_serialization=False)
    torch.save(state, folder / "state_old.pt", **old)
    base = torch.arange(24.0)
    odd = {
        "transposed": base.reshape(4, 6).T,
        "part": base[5:9],
        "half": base.half(),
        "bfloat": (base / 7).bfloat16(),
        "long": base.long(),
        "bool": base > 3,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "double": base.double() / 3,
        "parameter": torch.nn.Parameter(base),
    }
    torch.save(odd, folder / "odd.pt")
    torch.save(odd, folder / "odd_old.pt", **old)
    with open(folder / "odd.pkl", "wb") as file:
        pickle.dump(odd, file)
    np.savez(
        folder / "odd.npz", **{k: v.detach().float().numpy() for k, v in odd.items()}
    )


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "diffusers":
        write_diffusers(folder, json.loads(pathlib.Path(sys.argv[3]).read_text()))
    else:
        write_pickles(folder)
