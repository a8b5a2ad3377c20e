#!/usr/bin/env python3
"""Prints the largest difference between the probabilities stored by a server and PyTorch's with the same model.

    python compare_prediction.py MODEL.pth DATASET_FOLDER TIMEPOINT

The frame is computed in one piece; the first two poolings keep z. Needs torch, numpy and zarr 2.
"""
import sys

import numpy as np
import torch
import zarr

from unet_forward import load, predict_all


def main():
    model, dataset, timepoint = sys.argv[1], sys.argv[2], int(sys.argv[3])
    image = zarr.open(f"{dataset}/imgs.zarr", "r")[timepoint].astype(np.float32)
    image -= image.min()
    image /= image.max()
    stored = np.moveaxis(zarr.open(f"{dataset}/seg_outputs.zarr", "r")[timepoint].astype(np.float32), -1, 0)
    with torch.inference_mode():
        expected = predict_all(load(model), torch.from_numpy(image), None, 2, False)
    print(float(np.abs(stored - expected).max()))


if __name__ == "__main__":
    main()
