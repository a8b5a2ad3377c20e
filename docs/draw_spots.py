#!/usr/bin/env python3
"""Draws the cells that a running server finds over three slices of a frame, as in the README.

    python docs/draw_spots.py http://127.0.0.1:8080 DATASET MOVIE.h5 OUT.png [--scales X Y Z] [--timepoint T]

MOVIE.h5 must be the movie that DATASET was made of, frame for frame. Needs numpy, h5py and matplotlib.
"""
import argparse
import json
import urllib.request

import h5py
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("server", "dataset", "movie", "out"):
    parser.add_argument(name)
parser.add_argument("--scales", type=float, nargs=3, default=[0.5, 0.5, 2.0], help="edges of a voxel along x, y, z in micrometres")
parser.add_argument("--timepoint", type=int, default=3)
parser.add_argument("--planes", type=int, nargs=3, help="default: at a third, a half and two thirds of the depth")
parser.add_argument("--r-min", type=float, default=1.0)
parser.add_argument("--r-max", type=float, default=50.0)
options = parser.parse_args()
dx, dy, dz = options.scales

body = dict(dataset_name=options.dataset, timepoint=options.timepoint, scales=options.scales, r_min=options.r_min, r_max=options.r_max,
            n_keep_axials=sum(dz / dx >= bound for bound in (2, 3, 6, 12)), model_name="detection.pth")
request = urllib.request.Request(options.server + "/seg/predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
spots = json.load(urllib.request.urlopen(request))["spots"]
with h5py.File(options.movie) as file:
    timepoint = sorted(name for name in file if name[0] == "t")[options.timepoint]
    frame = file[f"{timepoint}/s00/0/cells"][:]
    frame = frame.view(np.uint16) if frame.dtype == np.int16 else frame

depth, height, width = frame.shape
planes = options.planes or [depth // 3, depth // 2, 2 * depth // 3]
figure, axes = plt.subplots(1, 3, figsize=(12, 4 * height / width + 0.3), facecolor="#111")
angles = np.linspace(0, 2 * np.pi, 100)
for axis, z in zip(axes, planes):
    axis.imshow(frame[z], cmap="gray", vmin=np.percentile(frame, 1), vmax=np.percentile(frame, 99.8),
                extent=(-dx / 2, (width - 0.5) * dx, (height - 0.5) * dy, -dy / 2))
    for spot in spots:
        # The ellipsoid (p - c)' C^-1 (p - c) = 1 cut by the plane z.
        inverse = np.linalg.inv(np.array(spot["covariance"]).reshape(3, 3))
        away = z * dz - spot["pos"][2]
        inplane = inverse[:2, :2]
        shift = -np.linalg.solve(inplane, inverse[:2, 2] * away)
        level = 1 - away * away * inverse[2, 2] + shift @ inplane @ shift
        if level <= 0:
            continue
        values, vectors = np.linalg.eigh(inplane / level)
        outline = vectors @ np.array([np.cos(angles) / np.sqrt(values[0]), np.sin(angles) / np.sqrt(values[1])])
        center = np.array(spot["pos"][:2]) + shift
        axis.plot(*(outline + center[:, None]), color="#3ddc97", linewidth=1.2)
    axis.set_title(f"z = {z * dz:.0f} µm", color="white", fontsize=10)
    axis.set_xlim(0, (width - 1) * dx)
    axis.set_ylim((height - 1) * dy, 0)
    axis.axis("off")
figure.tight_layout()
figure.savefig(options.out, dpi=90, facecolor=figure.get_facecolor())
print(len(spots), "spots")
