#!/usr/bin/env python3
"""Training steps of the detection network in PyTorch itself: forward, loss, backward and Adam, in one process.

    python unet_train.py MODEL.pth

For each line of JSON on standard input one step and one line of JSON, {"seconds": s, "loss": l, "peak_mib": m}. A line
holds images (a file of raw float32), labels (a file of raw uint8), shape [n, z, y, x], n_keep_axials, threads, dtype
("float32" or "float64"), and optionally grad_norms: true for the norm of every parameter's gradient. The parameters move
on from step to step. The loss is that of docs/method.md, "Losses". Needs torch and numpy.
"""
import json
import resource
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

from unet_forward import load

CLASS_WEIGHTS = [1.0, 10.0, 10.0]
FALSE_WEIGHT = 10.0


def gaussian(ndim, dtype):
    axes = [(3, 1.0), (5, 8.0), (5, 8.0)][3 - ndim:]
    kernel = torch.ones([1] * ndim, dtype=dtype)
    for axis, (size, sigma) in enumerate(axes):
        x = torch.arange(size, dtype=dtype) - size // 2
        kernel = kernel * torch.exp(-x**2 / (2 * sigma**2)).reshape([-1 if a == axis else 1 for a in range(ndim)])
    return (kernel / kernel.sum())[None, None], [size // 2 for size, _ in axes]


def roughness(center):
    ndim = center.dim() - 2
    kernel, padding = gaussian(ndim, center.dtype)
    conv = F.conv3d if ndim == 3 else F.conv2d
    coarse = conv(center, kernel, stride=2, padding=padding)
    return (center - conv(F.interpolate(coarse, size=center.shape[2:]), kernel, padding=padding)).abs().mean()


def segmentation_loss(logarithms, targets):
    weights = torch.tensor(CLASS_WEIGHTS, dtype=logarithms.dtype)
    parts = torch.zeros(3, dtype=logarithms.dtype)
    for logarithm, target in zip(logarithms, targets):
        center = logarithm[2].exp()
        likelihood, dice, total = 0, 0, 0
        for mask, importance in ((target >= 0) & (target < 3), 1.0), (target > 2, FALSE_WEIGHT):
            share = importance * mask.sum()
            if share == 0:
                continue
            classes = target[mask] % 3
            likelihood = likelihood + share * F.nll_loss(logarithm[:, mask].T, classes, weights)
            p, t = center[mask], (classes == 2).to(center.dtype)
            dice = dice + share * (1 - 2 * (p * t).sum() / ((p * p).sum() + (t * t).sum()).clamp(min=1e-6))
            total = total + share
        parts = parts + torch.stack([likelihood / total, dice / total, roughness(center[None, None])])
    return (parts / len(targets) * torch.tensor([1, 5, 1]) / 7).sum()


def main():
    network = load(sys.argv[1])[0].train()
    optimizer = None
    for line in sys.stdin:
        job = json.loads(line)
        torch.set_num_threads(job["threads"])
        network = network.to(getattr(torch, job["dtype"])).requires_grad_(True)
        optimizer = optimizer or torch.optim.Adam(network.parameters(), lr=1e-3)
        images = torch.from_numpy(np.fromfile(job["images"], np.float32).reshape(job["shape"]))
        labels = torch.from_numpy(np.fromfile(job["labels"], np.uint8).reshape(job["shape"]))
        keep = [level < job["n_keep_axials"] for level in range(4)]
        images, targets = images[:, None].to(next(network.parameters()).dtype), labels.long() - 1
        if network.ndim == 2:
            images, targets = images[:, :, 0], targets[:, 0]
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = segmentation_loss(network(images, keep, False), targets)
        loss.backward()
        answer = {}
        if job.get("grad_norms"):
            answer["grad_norms"] = {name: p.grad.norm().item() for name, p in network.named_parameters()}
        optimizer.step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        answer |= {"seconds": time.perf_counter() - start, "loss": loss.item(), "peak_mib": peak}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
