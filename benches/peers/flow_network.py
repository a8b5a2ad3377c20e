#!/usr/bin/env python3
"""The flow network in PyTorch itself: forward passes, and training steps (forward, loss, backward and Adam).

    python flow_network.py MODEL.pth

For each line of JSON on standard input one task and one line of JSON, {"seconds": s, "peak_mib": m} and, of a step, "loss".
A line holds images (a file of raw float32, [n, 2, z, y, x]: the earlier and the later frame), shape [n, z, y, x],
n_keep_axials and threads; of a forward pass also output (null, or where to write the vectors, raw float32, channels first);
of a step also vectors and weight (files of raw float32, [n, 3, z, y, x] and [n, z, y, x]) and norms, the displacements in
voxels along x, y and z that 1 stands for. The parameters move on from step to step. See docs/method.md, "Flow network" and
"Losses". Needs torch and numpy.
"""
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = [16, 32, 64, 128]
BASE_WIDTH = 256
SLOPE = 0.1


class Residual(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.res = nn.Conv3d(inputs, outputs, 1, bias=False)
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1)

    def forward(self, x):
        features = self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return F.leaky_relu((self.res(x) + features) / 2, SLOPE)


def plain(inputs, outputs):
    layers = []
    for width in (inputs, outputs):
        layers += [nn.Conv3d(width, outputs, 3, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class FlowNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList(Residual(a, b) for a, b in zip([2, *WIDTHS], WIDTHS))
        self.base = Residual(WIDTHS[-1], BASE_WIDTH)
        below = [BASE_WIDTH, *WIDTHS[:0:-1]]
        self.decoder = nn.ModuleList(plain(a + b, b) for a, b in zip(below, WIDTHS[::-1]))
        self.out_conv = nn.Conv3d(WIDTHS[0], 3, 1)

    def forward(self, x, n_keep_axials):
        factors = [[1 if level < n_keep_axials else 2, 2, 2] for level in range(4)]
        skipped = []
        for encode, factor in zip(self.encoder, factors):
            skipped.append(encode(x))
            x = F.max_pool3d(skipped[-1], factor)
        x = self.base(x)
        for decode, factor in zip(self.decoder, factors[::-1]):
            x = F.interpolate(x, scale_factor=factor)
            x = decode(torch.cat((skipped.pop(), x), dim=1))
        return torch.tanh(self.out_conv(x))


def kernel(sizes, sigmas):
    product = torch.ones(1, 1, 1)
    for axis, (size, sigma) in enumerate(zip(sizes, sigmas)):
        x = torch.arange(size) - size // 2
        product = product * torch.exp(-x**2 / (2 * sigma**2)).reshape([-1 if a == axis else 1 for a in range(3)])
    return (product / product.sum())[None, None]


def roughness(vectors):
    weights, padding = kernel((3, 5, 5), (1.0, 8.0, 8.0)), (1, 2, 2)
    channels = vectors.flatten(0, 1)[:, None]
    coarse = F.conv3d(channels, weights, stride=2, padding=padding)
    smooth = F.conv3d(F.interpolate(coarse, size=vectors.shape[2:]), weights, padding=padding)
    return (channels - smooth).abs().mean()


def similarity(earlier, later, vectors, norms):
    sizes = vectors.shape[2:]
    grids = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in sizes), indexing="ij")
    moved = [grids[2 - c] - vectors[:, c] * (2 * norms[c] / max(sizes[2 - c] - 1, 1)) for c in range(3)]
    grid = torch.stack(moved, dim=-1)
    warped = F.grid_sample(later, grid, align_corners=True)
    weights = kernel((3, 7, 7), (1.5, 1.5, 1.5))

    def window(x):
        return F.conv3d(x, weights, padding=(1, 3, 3))

    a, b = window(earlier), window(warped)
    variances = window(earlier**2) - a**2 + window(warped**2) - b**2
    covariance = window(earlier * warped) - a * b
    score = (2 * a * b + 1e-4) * (2 * covariance + 9e-4) / ((a**2 + b**2 + 1e-4) * (variances + 9e-4))
    inside = (grid.detach().abs().amax(-1) <= 1)[:, None]
    return score[inside].mean()


def flow_loss(vectors, images, targets, weight, norms):
    known = weight > 0
    distance = sum((vectors[:, c] - targets[:, c]).abs()[known].mean() for c in range(3)) / 3
    dissimilarity = 1 - similarity(images[:, :1], images[:, 1:], vectors, norms)
    return (distance + 0.01 * dissimilarity + 0.01 * roughness(vectors)) / 1.02


def read(path, shape):
    return torch.from_numpy(np.fromfile(path, np.float32).reshape(shape))


def main():
    network = FlowNetwork()
    network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
    optimizer = None
    for line in sys.stdin:
        task = json.loads(line)
        torch.set_num_threads(task["threads"])
        n, *size = task["shape"]
        images = read(task["images"], [n, 2, *size])
        if "vectors" not in task:
            start = time.perf_counter()
            with torch.inference_mode():
                vectors = network(images, task["n_keep_axials"])
            answer = {"seconds": time.perf_counter() - start}
            if task["output"]:
                Path(task["output"]).write_bytes(np.ascontiguousarray(vectors[0], np.float32).tobytes())
        else:
            targets, weight = read(task["vectors"], [n, 3, *size]), read(task["weight"], [n, *size])
            optimizer = optimizer or torch.optim.Adam(network.parameters(), lr=1e-3)
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = flow_loss(network(images, task["n_keep_axials"]), images, targets, weight, task["norms"])
            loss.backward()
            optimizer.step()
            answer = {"seconds": time.perf_counter() - start, "loss": loss.item()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(answer | {"peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
