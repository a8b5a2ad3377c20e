#!/usr/bin/env python3
"""Training crops as docs/method.md, "Training data and loop" describes them, with NumPy, scikit-image and PyTorch.

    python crops.py IMAGE.f32 LABELS.u8

Frames of 64 x 512 x 512, raw. For each line on standard input one crop of 16 x 384 x 384, scaled, rotated, flipped and
changed in contrast, and one line with the seconds it took. Needs torch, numpy and scikit-image.
"""
import math
import sys
import time

import numpy as np
import torch
from skimage.transform import rotate
from torch.nn import functional as F

SHAPE = (64, 512, 512)
CROP = (16, 384, 384)
FACTORS = (0.05, 0.2, 0.2)
ANGLE = 30


def draw(image, labels, rng):
    size = [rng.integers(round(c * (1 - f)), int(c * (1 + f)) + 1) for c, f in zip(CROP, FACTORS)]
    angle = int(rng.integers(-ANGLE, ANGLE + 1))
    spread = abs(math.cos(math.radians(angle))) + abs(math.sin(math.radians(angle)))
    size = [size[0]] + [math.ceil(s * spread) for s in size[1:]]
    size = [min(s, n) for s, n in zip(size, SHAPE)]
    origin = [rng.integers(0, n - s + 1) for s, n in zip(size, SHAPE)]
    box = tuple(slice(o, o + s) for o, s in zip(origin, size))
    image, labels = image[box].copy(), labels[box].copy()
    cells, background = np.isin(labels, (2, 3, 5, 6)), np.isin(labels, (1, 4))
    if cells.any() and background.any():
        inner, outer = image[cells].mean(), image[background].mean()
        image[cells] *= ((inner - outer) * rng.uniform(0.5, 1) + outer) / inner
    turned = dict(resize=True, preserve_range=True)
    image = np.array([rotate(plane, angle, order=1, **turned) for plane in image])
    labels = np.array([rotate(plane, angle, order=0, **turned) for plane in labels])
    inner = tuple(slice(max(0, (n - c) // 2), max(0, (n - c) // 2) + c) for n, c in zip(image.shape[1:], CROP[1:]))
    image, labels = image[(slice(None), *inner)], labels[(slice(None), *inner)]
    image = torch.from_numpy(image.astype(np.float32))[None, None]
    labels = torch.from_numpy(labels.astype(np.float32))[None, None]
    image = F.interpolate(image, CROP, mode="trilinear", align_corners=True)
    labels = F.interpolate(labels, CROP).long() - 1
    axes = [axis for axis in (2, 3, 4) if rng.random() < 0.5]
    return image.flip(axes), labels.flip(axes)


def main():
    image = np.fromfile(sys.argv[1], np.float32).reshape(SHAPE)
    labels = np.fromfile(sys.argv[2], np.uint8).reshape(SHAPE)
    rng = np.random.default_rng(1)
    for _ in sys.stdin:
        start = time.perf_counter()
        draw(image, labels, rng)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
