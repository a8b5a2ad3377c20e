#!/usr/bin/env python3
"""The original's route to one CTC mask, for the benchmark of elephant-export (docs/method.md, "CTC export").

    export_masks.py SPOTS.json        answers each line with the seconds of one frame; "FILE" writes the mask there

For i = 0..15 and each spot: the ellipsoid with its semi-axes times 1 - 0.05 i inside its clipped box, at least 20 voxels,
painted over the others; then the voxel of the centre; then an ImageJ stack with zlib at level 6. NumPy and tifffile alone,
without the original's detours.
"""
import io
import json
import pathlib
import sys
import time

import numpy as np
import tifffile

MIN_VOXELS = 20


def ellipsoid(center_vox, radii, rotation, scales, shape):
    """Slices of the box, and which of its voxels are inside."""
    corners = np.abs(np.diag(1 / scales) @ rotation @ np.diag(radii)).sum(1)
    lower = np.maximum(np.floor(center_vox - corners).astype(int), 0)
    upper = np.minimum(np.ceil(center_vox + corners).astype(int) + 1, shape)
    while np.prod(np.maximum(upper - lower, 0)) < MIN_VOXELS:
        radii = radii * 1.1
        corners = np.abs(np.diag(1 / scales) @ rotation @ np.diag(radii)).sum(1)
        lower = np.maximum(np.floor(center_vox - corners).astype(int), 0)
        upper = np.minimum(np.ceil(center_vox + corners).astype(int) + 1, shape)
    z, y, x = np.ogrid[tuple(slice(a, b) for a, b in zip(lower, upper))]
    turn = np.linalg.inv(rotation) @ np.diag(scales)
    dz, dy, dx = z - center_vox[0], y - center_vox[1], x - center_vox[2]
    distance = sum(((turn[k, 0] * dz + turn[k, 1] * dy + turn[k, 2] * dx) / radii[k]) ** 2 for k in range(3))
    limit = 1.0
    while (inside := distance < limit).sum() < MIN_VOXELS:
        limit *= 1.1
    return tuple(slice(a, b) for a, b in zip(lower, upper)), inside


def frame(spots, scales, shape):
    mask = np.zeros(shape, np.uint16)
    shapes = []
    for spot in spots:
        variances, rotation = np.linalg.eigh(np.array(spot["covariance"]))
        shapes.append((np.array(spot["center"]) / scales, np.sqrt(variances), rotation, spot["label"]))
    for i in range(16):
        for center, radii, rotation, label in shapes:
            box, inside = ellipsoid(center, radii * (1 - 0.05 * i), rotation, scales, shape)
            mask[box][inside] = label
    for center, _, _, label in shapes:
        mask[tuple(center.astype(int))] = label
    return mask


def main():
    with open(sys.argv[1]) as file:
        task = json.load(file)
    scales, shape = np.array(task["voxel_um"]), np.array(task["shape"])
    for line in sys.stdin:
        begun = time.perf_counter()
        mask = frame(task["spots"], scales, shape)
        drawn = time.perf_counter()
        file = io.BytesIO()
        tifffile.imwrite(file, mask[:, None], imagej=True, metadata={"axes": "ZCYX"}, compression="zlib",
                         compressionargs={"level": 6})
        written = time.perf_counter()
        if name := line.strip():
            pathlib.Path(name).write_bytes(file.getvalue())
        print(drawn - begun, written - begun, flush=True)


main()
