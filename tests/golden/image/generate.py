#!/usr/bin/env python3
"""Makes the files of this folder with scikit-image, NumPy and PyTorch: python generate.py PROBABILITY_MAP.npy

The map is any (z, y, x) probability of "cell centre"; a part of it is kept in half precision.
"""
import json
import os
import sys
from pathlib import Path

# The sign of an eigenvalue that should be zero depends on OpenBLAS's kernels: these fuse no operations at this size.
os.environ["OPENBLAS_CORETYPE"] = "Haswell"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "benches/peers"))
from find_spots import find_spots  # noqa: E402

CASES = [
    ("volume", "center_3d.npy", dict(scale=[2.0, 0.5, 0.5])),
    ("low threshold", "center_3d.npy", dict(scale=[2.0, 0.5, 0.5], p_thresh=0.05)),
    ("threshold between single and double", "center_3d.npy", dict(scale=[2.0, 0.5, 0.5], p_thresh=0.3)),
    ("ratio", "center_3d.npy", dict(scale=[2.0, 0.5, 0.5], c_ratio=0.3, r_min=2.5)),
    ("planes apart", "center_3d.npy", dict(scale=[2.0, 0.5, 0.5], use_2d=True)),
    ("cut radii", "center_3d.npy", dict(scale=[1.0, 1.0, 1.0], r_max=3.0)),
    ("specks", "specks.npy", dict(scale=[2.0, 0.5, 0.5], p_thresh=0.72, r_min=0.0, r_max=1e6)),
    ("specks, small ones dropped", "specks.npy", dict(scale=[1.0, 0.3, 0.3], p_thresh=0.72, r_min=0.4, r_max=1e6)),
    ("plane", "center_2d.npy", dict(scale=[0.5, 0.25], p_thresh=0.2, r_min=0.5, r_max=20.0)),
]


def as_the_oracle_writes_it(cell, ndim):
    """x, y, z order; a plane's cells lie at z = 0 with a variance of 1 along z."""
    center, covariance = cell["center_zyx"], np.array(cell["covariance_zyx"])
    if ndim == 2:
        center = [0.0, *center]
        covariance = np.block([[np.eye(1), np.zeros((1, 2))], [np.zeros((2, 1)), covariance]])
    return {
        "t": 3,
        "pos": center[::-1],
        "covariance": covariance[::-1, ::-1].ravel().tolist(),
        "quality": cell["quality"],
    }


def main():
    center = np.load(sys.argv[1])[8:24].astype(np.float16)
    np.save(HERE / "center_3d.npy", center)
    np.save(HERE / "center_2d.npy", center.max(axis=0))
    # Many components of few voxels, whose flatness is a matter of rounding.
    specks = gaussian_filter(np.random.default_rng(1).random((14, 24, 24)), 0.5)
    np.save(HERE / "specks.npy", specks.astype(np.float16))
    cases = []
    for name, file, options in CASES:
        probability = np.load(HERE / file).astype(np.float32)
        options = {"c_ratio": 0.4, "p_thresh": 0.5, "r_min": 1.0, "r_max": 5.0, "use_2d": False, **options}
        cells = find_spots(probability, **options)
        assert cells, name
        options["scales"] = options.pop("scale")
        spots = [as_the_oracle_writes_it(cell, probability.ndim) for cell in cells]
        cases.append({"name": name, "map": file, "timepoint": 3, "crop_box": None, **options, "spots": spots})
    (HERE / "find_spots.json").write_text(json.dumps(cases))

    random = np.random.default_rng(0)
    image = random.random((5, 9, 13), dtype=np.float32)
    np.save(HERE / "resize_input.npy", image)
    for shape in [(8, 16, 7), (1, 9, 300), (5, 1, 384)]:
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(image)[None, None], size=shape, mode="trilinear", align_corners=True
        )
        np.save(HERE / f"resize_{'x'.join(map(str, shape))}.npy", resized[0, 0].numpy())

    # Odd and even numbers of values, ties, a plane whose median is 0.
    for name, shape in [("odd", (3, 5, 7)), ("even", (4, 6, 5))]:
        image = random.poisson(3.0, shape).astype(np.float32) + random.random(shape, dtype=np.float32).round(3)
        image[1] = np.where(random.random(shape[1:]) < 0.7, 0, image[1])
        np.save(HERE / f"median_{name}_input.npy", image)
        corrected = image.copy()
        for plane in corrected:
            median = np.median(plane)
            if median > 0:
                plane -= median - np.median(image)
        np.save(HERE / f"median_{name}.npy", corrected)


if __name__ == "__main__":
    main()
