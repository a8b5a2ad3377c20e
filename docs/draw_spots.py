#!/usr/bin/env python3
"""Draws the cells that a running server finds over slices of a frame, as in the README.

    python docs/draw_spots.py http://127.0.0.1:8080 WORKSPACE/datasets/elephant-demo/elephant-demo.h5 OUT.png

Needs numpy, h5py and matplotlib. The movie must be served as the dataset elephant-demo.
"""
import json
import sys
import urllib.request

import h5py
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

SCALES = [0.5, 0.5, 2.0]  # x, y, z in micrometres
TIMEPOINT = 3

server, movie, out = sys.argv[1:]
body = dict(dataset_name="elephant-demo", timepoint=TIMEPOINT, scales=SCALES, n_keep_axials=2, is_pad=True,
            p_thresh=0.7, r_min=2.0, r_max=8.0)
request = urllib.request.Request(server + "/seg/predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
spots = json.load(urllib.request.urlopen(request))["spots"]
with h5py.File(movie) as file:
    frame = file[f"t{TIMEPOINT:05d}/s00/0/cells"][:].view(np.uint16)

planes = [11, 16, 21]
figure, axes = plt.subplots(1, len(planes), figsize=(12, 4.2), facecolor="#111")
angles = np.linspace(0, 2 * np.pi, 100)
for axis, z in zip(axes, planes):
    axis.imshow(frame[z], cmap="gray", vmin=80, vmax=np.percentile(frame, 99.8),
                extent=(-0.25, frame.shape[2] / 2 - 0.25, frame.shape[1] / 2 - 0.25, -0.25))
    for spot in spots:
        covariance = np.array(spot["covariance"]).reshape(3, 3)
        # The ellipsoid (p - c)' C^-1 (p - c) = 1 cut by the plane z.
        inverse = np.linalg.inv(covariance)
        dz = z * SCALES[2] - spot["pos"][2]
        inplane = inverse[:2, :2]
        shift = -np.linalg.solve(inplane, inverse[:2, 2] * dz)
        level = 1 - dz * dz * inverse[2, 2] + shift @ inplane @ shift
        if level <= 0:
            continue
        values, vectors = np.linalg.eigh(inplane / level)
        outline = vectors @ np.array([np.cos(angles) / np.sqrt(values[0]), np.sin(angles) / np.sqrt(values[1])])
        center = np.array(spot["pos"][:2]) + shift
        axis.plot(*(outline + center[:, None]), color="#3ddc97", linewidth=1.2)
    axis.set_title(f"z = {z * SCALES[2]:.0f} µm", color="white", fontsize=10)
    axis.set_xlim(0, frame.shape[2] / 2 - 0.5)
    axis.set_ylim(frame.shape[1] / 2 - 0.5, 0)
    axis.axis("off")
figure.tight_layout()
figure.savefig(out, dpi=90, facecolor=figure.get_facecolor())
print(len(spots), "spots")
