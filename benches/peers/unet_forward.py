#!/usr/bin/env python3
"""The detection network in PyTorch itself, run tile by tile as Python servers run it.

    python unet_forward.py MODEL.pth

For each line of JSON on standard input one prediction and one line of JSON, {"seconds": s, "peak_mib": m}. A line holds
image (a file of raw float32), shape [z, y, x], patch [z, y, x] or null, n_keep_axials, is_pad, threads, dtype ("float32"
or "bfloat16") and output (null, or where to write the probabilities, raw float32, channels first). MODEL.pth is a state
dict or a list of them (an ensemble), read with weights_only=True. See docs/method.md, "Detection network". Needs torch and
numpy; imported by tests/golden/nn/generate.py.
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
CLASSES = 3


def block(conv, inputs, outputs):
    layers = []
    for width in (inputs, outputs):
        layers += [conv(width, outputs, 3, padding=1), nn.ReLU(), nn.GroupNorm(min(32, outputs), outputs)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, ndim):
        super().__init__()
        conv = nn.Conv3d if ndim == 3 else nn.Conv2d
        self.ndim = ndim
        self.encoder = nn.ModuleList(block(conv, a, b) for a, b in zip([1, *WIDTHS], WIDTHS))
        self.base = block(conv, WIDTHS[-1], BASE_WIDTH)
        below = [BASE_WIDTH, *WIDTHS[:0:-1]]
        self.decoder = nn.ModuleList(block(conv, a + b, b) for a, b in zip(below, WIDTHS[::-1]))
        self.out_conv = conv(WIDTHS[0], CLASSES, 1)

    def forward(self, x, keep_axials, is_pad):
        multiples = [2 ** keep_axials.count(False), 16, 16][3 - self.ndim:]
        padding = [m // 2 for m in multiples]
        if is_pad:
            x = F.pad(x, [p for p in padding[::-1] for _ in range(2)], "replicate")
        size = list(x.shape[2:])
        fitting = [-(-s // m) * m for s, m in zip(size, multiples)]
        mode = dict(mode="trilinear" if self.ndim == 3 else "bilinear", align_corners=True)
        if fitting != size:
            x = F.interpolate(x, fitting, **mode)
        x = F.log_softmax(self.levels(x, keep_axials), dim=1)
        if fitting != size:
            x = F.interpolate(x, size, **mode)
        if is_pad:
            x = x[(..., *(slice(p, s - p) for p, s in zip(padding, size)))]
        return x

    def levels(self, x, keep_axials):
        max_pool = F.max_pool3d if self.ndim == 3 else F.max_pool2d
        factors = [[1 if keep else 2, 2, 2][3 - self.ndim:] for keep in keep_axials]
        skipped = []
        for encode, factor in zip(self.encoder, factors):
            skipped.append(encode(x))
            x = max_pool(skipped[-1], factor)
        x = self.base(x)
        for decode, factor in zip(self.decoder, factors[::-1]):
            x = F.interpolate(x, scale_factor=factor)
            x = decode(torch.cat((skipped.pop(), x), dim=1))
        return self.out_conv(x)


def load(path):
    loaded = torch.load(path, weights_only=True)
    networks = []
    for state in loaded if isinstance(loaded, list) else [loaded]:
        network = UNet(state["out_conv.weight"].ndim - 2).eval()
        network.load_state_dict(state)
        networks.append(network)
    return networks


def axis_tiles(image, patch):
    """Starts and weights of the tiles along one axis."""
    patch = min(patch, image)
    if patch == image:
        return [0], [torch.ones(image)]
    count = image // patch + 1
    interval = patch - (patch * count - image) // (count - 1)
    overlap = max(1, patch - interval)
    starts, weights = [], []
    for k in range(count):
        weight = torch.ones(patch)
        if k > 0:
            weight[:overlap] *= torch.linspace(0, 1, overlap)
        if k < count - 1:
            weight[-overlap:] *= torch.linspace(1, 0, overlap)
        starts.append(min(k * interval, image - patch))
        weights.append(weight)
    return starts, weights


def predict(network, image, patch, n_keep_axials, is_pad):
    """Probabilities (class, z, y, x) of an image (z, y, x), or (class, y, x) of (y, x); tiles are blended."""
    keep_axials = [level < n_keep_axials for level in range(4)]
    dtype = next(network.parameters()).dtype
    axes = [axis_tiles(size, tile) for size, tile in zip(image.shape, patch or image.shape)]
    total = np.zeros((CLASSES, *image.shape), np.float32)
    for index in np.ndindex(*(len(starts) for starts, _ in axes)):
        where, weight = [], torch.ones(())
        for (starts, weights), k in zip(axes, index):
            where.append(slice(starts[k], starts[k] + len(weights[k])))
            weight = weight[..., None] * weights[k]
        tile = image[tuple(where)][None, None].to(dtype)
        probability = network(tile, keep_axials, is_pad)[0].float().exp_()
        total[(slice(None), *where)] += (probability * weight).numpy()
    return total


def predict_all(networks, image, patch, n_keep_axials, is_pad):
    """The ensemble's mean, (class, z, y, x) of (z, y, x); a 2-D network sees each plane on its own."""
    if networks[0].ndim == 3:
        members = [predict(network, image, patch, n_keep_axials, is_pad) for network in networks]
    else:
        patch = patch and patch[1:]
        members = [
            np.stack([predict(network, plane, patch, n_keep_axials, is_pad) for plane in image], axis=1)
            for network in networks
        ]
    return members[0] if len(members) == 1 else np.mean(members, axis=0)


def main():
    networks = load(sys.argv[1])
    for line in sys.stdin:
        task = json.loads(line)
        torch.set_num_threads(task["threads"])
        for network in networks:
            network.to(getattr(torch, task["dtype"]))
        image = torch.from_numpy(np.fromfile(task["image"], np.float32).reshape(task["shape"]))
        start = time.perf_counter()
        with torch.inference_mode():
            result = predict_all(networks, image, task["patch"], task["n_keep_axials"], task["is_pad"])
        seconds = time.perf_counter() - start
        if task["output"]:
            Path(task["output"]).write_bytes(np.ascontiguousarray(result, np.float32).tobytes())
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mib": peak_mib}), flush=True)


if __name__ == "__main__":
    main()
