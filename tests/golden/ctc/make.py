#!/usr/bin/env python3
"""Label images as tifffile writes them, for the reader of elephant-ctc. Needs numpy, tifffile and imagecodecs.

    python make.py          # writes beside itself
"""
import pathlib

import numpy as np
import tifffile

HERE = pathlib.Path(__file__).parent
z, y, x = np.indices((3, 20, 24))
LABELS = np.where((x + y) % 5 == 0, 0, 1 + (z * 7 + y // 4 + 3 * (x // 6)))  # at most 32, except for this voxel:
WIDE = LABELS.copy()
WIDE[2, 19, 23] = 65535

for name, array, options in [
    ("plain", WIDE.astype("<u2"), dict(photometric="minisblack")),
    ("imagej", WIDE.astype("u2"), dict(imagej=True, metadata={"axes": "ZYX"}, compression="zlib")),
    ("big_endian", WIDE.astype(">u2"), dict(byteorder=">", photometric="minisblack")),
    ("bigtiff", WIDE.astype("u2"), dict(bigtiff=True, photometric="minisblack", compression="zlib")),
    ("lzw", WIDE.astype("u2"), dict(photometric="minisblack", compression="lzw", rowsperstrip=3)),
    ("lzw_predictor", WIDE.astype("u2"), dict(photometric="minisblack", compression="lzw", predictor=True)),
    ("packbits", LABELS.astype("u1"), dict(photometric="minisblack", compression="packbits")),
    ("tiled", WIDE.astype("u2"), dict(photometric="minisblack", compression="zlib", tile=(16, 16))),
    ("u4", WIDE.astype("u4"), dict(photometric="minisblack", compression="zlib")),
    ("i4", WIDE.astype("i4"), dict(photometric="minisblack", compression="zlib")),
    ("float", WIDE.astype("f4"), dict(photometric="minisblack", compression="zlib")),
    ("rgb", np.zeros((4, 4, 3), "u1"), dict(photometric="rgb")),
]:
    tifffile.imwrite(HERE / f"{name}.tif", array, software=None, **options)
