#!/usr/bin/env python3
"""Finds cells in a probability map with scikit-image and NumPy, as Python servers do.

    python find_spots.py MAP.npy              for each line on standard input, one run and one line: SECONDS CELLS
    python find_spots.py MAP.npy --json       prints the cells

Label the thresholded map with full connectivity, take the properties of each region, and turn the second central moments
of each region's mask into an ellipsoid (docs/method.md, "From probabilities to spots"). Needs numpy and scikit-image.
"""
import argparse
import json
import math
import sys
import time

import numpy as np
from skimage.measure import label, regionprops


def covariance_of_mask(mask, scale):
    """Second central moments over the mask's voxels, in physical units, divided by the number of voxels.

    Summed axis by axis in floating point, as the original server does: rounding decides what becomes of flat cells.
    """
    def moments(center):
        sums = mask.astype(float)
        for n, edge, origin in zip(mask.shape, scale, center):
            away = np.arange(n) * (edge * n / n) - origin
            # The first axis goes last and becomes powers, so after all axes the order is the first again.
            sums = np.dot(np.moveaxis(sums, 0, -1), np.vander(away, 3, increasing=True))
        return sums

    unit = np.eye(mask.ndim, dtype=int)
    raw = moments(np.zeros(mask.ndim))
    count = raw[(0,) * mask.ndim]
    central = moments(raw[tuple(unit)] / count)
    return np.array([[central[tuple(a + b)] for b in unit] for a in unit]) / count


def cell_of_region(region, scale, c_ratio, r_min, r_max, use_2d):
    ndim = len(scale)
    radius = r_min * c_ratio
    smallest = (math.pi * radius**2 if ndim == 2 else 4 / 3 * math.pi * radius**3) / math.prod(scale)
    if region.area < smallest:
        return None
    extent = region.image.shape
    stretched = [s * (n + 1.0) / n for s, n in zip(scale, extent)]
    if use_2d and ndim == 3:
        stretched[0] *= c_ratio
    covariance = covariance_of_mask(region.image, stretched)
    if not covariance.any():
        return None
    values, vectors = np.linalg.eigh(covariance)
    if (values < 0).any():
        return None
    radii = [2 * math.sqrt(v) / c_ratio for v in values]
    radii = np.array([r if r > 0 else max(r_min, s) for r, s in zip(radii, scale)])
    if (radii < r_min).any():
        return None
    radii = np.minimum(radii, r_max)
    covariance = vectors @ np.diag(radii**2) @ vectors.T
    center = [float(c * s) for c, s in zip(region.centroid, scale)]
    return {
        "center_zyx": center,
        "covariance_zyx": covariance.tolist(),
        "quality": float(region.intensity_mean),
        "voxels": int(region.area),
    }


def find_spots(probability, scale, c_ratio=0.4, p_thresh=0.5, r_min=1.0, r_max=5.0, use_2d=False):
    labels = label(probability > p_thresh)
    cells = (cell_of_region(region, scale, c_ratio, r_min, r_max, use_2d) for region in regionprops(labels, probability))
    return [cell for cell in cells if cell is not None]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("map")
    parser.add_argument("--scale", type=float, nargs="+", default=[2.0, 0.5, 0.5], help="voxel size, (z) y x")
    parser.add_argument("--c-ratio", type=float, default=0.4)
    parser.add_argument("--p-thresh", type=float, default=0.5)
    parser.add_argument("--r-min", type=float, default=1.0)
    parser.add_argument("--r-max", type=float, default=5.0)
    parser.add_argument("--use-2d", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    probability = np.load(arguments.map).astype(np.float32)
    options = dict(
        scale=arguments.scale,
        c_ratio=arguments.c_ratio,
        p_thresh=arguments.p_thresh,
        r_min=arguments.r_min,
        r_max=arguments.r_max,
        use_2d=arguments.use_2d,
    )
    if arguments.json:
        print(json.dumps(find_spots(probability, **options)))
        return
    for _ in sys.stdin:
        start = time.perf_counter()
        cells = find_spots(probability, **options)
        print(time.perf_counter() - start, len(cells), flush=True)


if __name__ == "__main__":
    main()
