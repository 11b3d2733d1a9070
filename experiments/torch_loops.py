"""What plain torch takes for the same work; `bench_reference.py` calls it.

    <a Python with torch and diffusers> experiments/torch_loops.py FOLDER

`ddpm`: the loop that the diffusers documentation shows, UNet2DModel and DDPMScheduler,
on the saved network, 8 samples of 32x32x3, and the network alone. `padis`: a Langevin
step of PaDIS for 2 samples, one after the other as the release runs them, with a
network that costs nothing: patches are cut out and put back one by one, the gradient is
torch's, A is ODL's on astra-toolbox as in the release where they can be imported, a
sparse matrix elsewhere. CPU seconds, medians. Prints one JSON object.
"""

import importlib.util
import json
import random
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

PATCH, PAD, SIZE, STEPS = 24, 8, 64, 10


def seconds(call, repeats):
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found)


@torch.no_grad()
def ddpm(folder):
    """Return seconds a step of the loop and of the network alone."""
    config = json.loads((folder / "ddpm_unet_32.json").read_text())
    unet = UNet2DModel.from_config(config["unet"]).eval()
    unet.load_state_dict(load_file(folder / "ddpm_unet_32.safetensors"))
    scheduler = DDPMScheduler.from_config(config["scheduler"])
    scheduler.set_timesteps(100)
    start = torch.randn(8, 3, 32, 32)

    def loop():
        x = start
        for t in scheduler.timesteps[:STEPS]:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample

    def bare():
        for t in scheduler.timesteps[:STEPS]:
            unet(start, t)

    return dict(step=seconds(loop, 5) / STEPS, network=seconds(bare, 5) / STEPS)


def sparse(folder):
    """Return the saved operator as a sparse matrix, both ways."""
    with np.load(folder / "padis_A_64_24_128.npz", allow_pickle=False) as kept:
        parts = (torch.from_numpy(kept[k]) for k in ("indptr", "indices", "data"))
        matrix = torch.sparse_csr_tensor(*parts, size=tuple(kept["shape"]))
    transposed = matrix.to_sparse_csc().t()
    return lambda x: matrix @ x.ravel(), lambda y: transposed @ y.ravel()


def odl_projector():
    """Return the same operator by ODL, both ways."""
    import odl
    from odl.applications import tomo

    space = odl.uniform_discr([-20, -20], [20, 20], [SIZE, SIZE], dtype="float32")
    angles = odl.uniform_partition(0, np.pi, 24)
    beams = tomo.Parallel2dGeometry(angles, odl.uniform_partition(-40, 40, 128))
    op = tomo.RayTransform(space, beams, impl="astra_cpu")

    def through(op):
        return lambda x: torch.from_numpy(op(x.reshape(op.domain.shape).numpy()).data)

    return through(op), through(op.adjoint)


class Project(torch.autograd.Function):
    """A with its transpose as the gradient, as operator libraries wrap it."""

    @staticmethod
    def forward(context, x, forward, adjoint):
        context.adjoint, context.shape = adjoint, x.shape
        return forward(x.detach()).ravel()

    @staticmethod
    def backward(context, y):
        return context.adjoint(y).reshape(context.shape), None, None


def padis(folder):
    """Return seconds of a Langevin step without its network, 2 samples."""
    found = importlib.util.find_spec("odl") and importlib.util.find_spec("astra")
    operator = odl_projector() if found else sparse(folder)
    side, sigma, zeta = SIZE + 2 * PAD, 1.0, 0.3
    count = side // PATCH
    line = torch.linspace(-1, 1, side)
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"))[None]
    y = torch.randn(24 * 128)
    starts = torch.randn(2, 1, 1, side, side)

    def denoise(x, row, column):
        corners = [
            (row + PATCH * i, column + PATCH * j)
            for i in range(count)
            for j in range(count)
        ]
        cut = [x[..., a : a + PATCH, b : b + PATCH] for a, b in corners]
        seen = [places[..., a : a + PATCH, b : b + PATCH] for a, b in corners]
        patches = torch.cat(cut)
        total = (sigma**2 + 0.25) ** 0.5
        both = torch.cat([patches / total, torch.cat(seen)], 1)
        network = 0.1 * both[:, :1]  # what it would be
        found = 0.25 / total**2 * patches + sigma / 2 / total * network
        canvas = torch.zeros_like(x)
        for (a, b), patch in zip(corners, found, strict=True):
            canvas[..., a : a + PATCH, b : b + PATCH] = patch
        inside = torch.zeros_like(x)
        inside[..., PAD:-PAD, PAD:-PAD] = canvas[..., PAD:-PAD, PAD:-PAD]
        return inside

    def step():
        for start in starts:
            x = start.clone().requires_grad_()
            offset = random.randrange(PAD), random.randrange(PAD)
            denoised = denoise(x, *offset)
            image = denoised[..., PAD:-PAD, PAD:-PAD]
            length = (y - Project.apply(image, *operator)).norm()
            (slope,) = torch.autograd.grad(length, x)
            with torch.no_grad():
                score = (denoised - x) / sigma**2
                noise = sigma / 2**0.5 * torch.randn_like(x)
                x - zeta * slope + sigma**2 / 4 * score + noise

    return dict(rest=seconds(step, 21), operator="ODL" if found else "a sparse matrix")


if __name__ == "__main__":
    golden = Path(sys.argv[1])
    print(json.dumps(dict(ddpm=ddpm(golden), padis=padis(golden))))
