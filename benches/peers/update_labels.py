"""Draws labels by the original server's method: the whole frame in memory, every spot by index arrays, and then both
stores rewritten (or, if few voxels are touched, only those voxels by fancy indexing).

python update_labels.py DATASET SPOTS.json: draws the spots, prints the seconds and how many voxels changed.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import zarr

MIN_VOXELS = 9
MAX_SPARSE = 100_000


def ellipsoid(center, radii, axes, scales, shape):
    center = center / scales
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8)
    reach = np.abs(np.diag(1 / scales) @ axes @ np.diag(radii) @ corners).max(axis=1)
    low = np.maximum(np.floor(center - reach).astype(int), 0)
    high = np.minimum(np.ceil(center + reach).astype(int), np.array(shape) - 1)
    z, y, x = (index - origin for index, origin in zip(np.ogrid[tuple(slice(0, n) for n in high - low + 1)], center - low))
    to_axes = np.linalg.inv(axes) @ np.diag(scales)
    distance = sum(((z * row[0] + y * row[1] + x * row[2]) / radius) ** 2 for row, radius in zip(to_axes, radii))
    limit = 1.0
    while (distance < limit).sum() < MIN_VOXELS:
        limit *= 1.1
    return tuple(index + first for index, first in zip(np.nonzero(distance < limit), low))


def dilated(indices, shape):
    steps = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, 27, 1)
    moved = np.stack(indices)[:, None] + steps
    moved = np.clip(moved, 0, np.array(shape)[:, None, None] - 1).reshape(3, -1)
    return tuple(np.unique(moved, axis=1))


def draw(spots, scales, c_ratio, image, threshold):
    shape = image.shape
    label = np.zeros(shape, np.uint8)
    vis = np.zeros(shape + (3,), np.uint8)
    touched = set()
    if threshold > 0:
        image = image.astype(np.float32)
        image -= image.min()
        image /= image.max()
        background = np.nonzero(image < threshold)
        label[background] = 1
        vis[background] = (255, 0, 0)
        touched = None if len(background[0]) > MAX_SPARSE else set(zip(*background))
    for spot in spots:
        center = np.array(spot["pos"][::-1])
        covariance = np.array(spot["covariance"][::-1]).reshape(3, 3)
        variances, axes = np.linalg.eigh(covariance)
        radii = np.sqrt(variances)
        outer = ellipsoid(center, radii, axes, scales, shape)
        if touched is not None:
            touched.update(map(tuple, np.array(outer).T))
            touched = None if len(touched) > MAX_SPARSE else touched
        offset, bright = (0, 255) if spot["tag"] in ("tp", "tb", "tn") else (3, 127)
        kind = np.fmod(label[outer] - 1, 3)
        if spot["tag"] in ("tn", "fp"):
            label[outer] = np.where(kind <= 0, 1 + offset, label[outer])
            vis[outer] = np.where((kind <= 0)[:, None], (bright, 0, 0), vis[outer])
            continue
        label[outer] = np.where(kind <= 1, 2 + offset, label[outer])
        vis[outer] = np.where((kind <= 1)[:, None], (0, bright, 0), vis[outer])
        if spot["tag"] in ("tp", "fn"):
            inner = ellipsoid(center, radii * c_ratio, axes, scales, shape)
            around = dilated(inner, shape)
            label[around] = 2 + offset
            vis[around] = (0, bright, 0)
            label[inner] = 3 + offset
            vis[inner] = (0, 0, bright)
    return label, vis, touched


def update(folder, request):
    images = zarr.open(str(folder / "imgs.zarr"), mode="r")
    labels = zarr.open(str(folder / "seg_labels.zarr"), mode="a")
    colors = zarr.open(str(folder / "seg_labels_vis.zarr"), mode="a")
    t, scales = request["t"], np.array(request["scales"][::-1])
    image = images[t] if request["auto_bg_thresh"] > 0 else np.empty(images.shape[1:], images.dtype)
    label, vis, touched = draw(request["spots"], scales, request["c_ratio"], image, request["auto_bg_thresh"])
    for store in (labels, colors):
        for chunk in Path(store.store.path).glob(f"{t}.*"):
            chunk.unlink()
    if touched is None:
        labels[t], colors[t] = label, vis
    else:
        places = tuple(np.array(sorted(touched)).T)
        whole = (np.full(len(places[0]), t),) + places
        labels.vindex[whole] = label[places]
        for channel in range(3):
            colors.vindex[whole + (np.full(len(places[0]), channel),)] = vis[places + (channel,)]
    labels.attrs[f"label.indices.{t}"] = [
        (np.array(spot["pos"][::-1]) / scales).astype(int).tolist() for spot in request["spots"]
    ]
    labels.attrs["updated"] = True


folder = Path(sys.argv[1])
request = json.loads(Path(sys.argv[2]).read_text())
before = zarr.open(str(folder / "seg_labels.zarr"), mode="r")[request["t"]]
begin = time.perf_counter()
update(folder, request)
seconds = time.perf_counter() - begin
after = zarr.open(str(folder / "seg_labels.zarr"), mode="r")[request["t"]]
print(seconds, int((before != after).sum()))
