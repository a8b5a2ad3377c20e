"""Creates a dataset as the original server does: with h5py and zarr-python 2 in a process pool.

    python generate_dataset.py MOVIE.h5 OUTPUT_DIR

Prints one line: the seconds it took. Needs h5py, numpy and zarr<3.

As in the original, every worker process gets one plane of one timepoint at a time, opens the movie and the store
for it, divides the voxels by 1.0 and casts them; before that, the movie's timepoints are read until one has a value above
255, which decides between 8 and 16 bits.
"""

import multiprocessing
import re
import sys
import time
from pathlib import Path

import h5py
import numpy
import zarr

CHUNK_EDGE = 1024


def copy_box(task):
    movie, store, t, name, box, dtype, divisor = task
    with h5py.File(movie, "r") as h5:
        voxels = numpy.array(h5[name]["s00"]["0"]["cells"][box])
        zarr.open(store, "a")[(t, *box)] = (voxels // divisor).astype(dtype)


def needs_uint16(h5, names):
    return any(numpy.array(h5[name]["s00"]["0"]["cells"]).max() > 255 for name in names)


def make_stores(folder, times, shape, chunk, dtype):
    axes = len(shape)
    stores = {
        "imgs": ((times, *shape), (1, *chunk), dtype),
        "seg_labels": ((times, *shape), (1, *chunk), "u1"),
        "seg_labels_vis": ((times, *shape, 3), (1, *chunk, 1), "u1"),
        "seg_outputs": ((times, *shape, 3), (1, *chunk, 1), "f2"),
        "flow_outputs": ((times - 1, axes, *shape), (1, 1, *chunk), "f2"),
        "flow_labels": ((times - 1, axes + 1, *shape), (1, 1, *chunk), "f4"),
        "flow_hashes": ((times - 1,), (times - 1,), "S16"),
    }
    for name, (array, chunks, kind) in stores.items():
        zarr.open(str(folder / f"{name}.zarr"), "w", shape=array, chunks=chunks, dtype=kind)


def generate(movie, folder, divisor=1.0):
    with h5py.File(movie, "r") as h5:
        names = [name for name in h5 if re.search(r"t\d{5}", name)]
        dtype = numpy.uint16 if needs_uint16(h5, names) else numpy.uint8
        shape = h5[names[0]]["s00"]["0"]["cells"].shape
    chunk = (1, *(min(edge, CHUNK_EDGE) for edge in shape[1:]))
    make_stores(folder, len(names), shape, chunk, dtype)
    starts = [range(0, edge, step) for edge, step in zip(shape, chunk)]
    boxes = [
        tuple(slice(start, start + step) for start, step in zip((z, y, x), chunk))
        for z in starts[0]
        for y in starts[1]
        for x in starts[2]
    ]
    store = str(folder / "imgs.zarr")
    with multiprocessing.Pool() as pool:
        for t, name in enumerate(names):
            pool.map(copy_box, [(movie, store, t, name, box, dtype, divisor) for box in boxes])


if __name__ == "__main__":
    begin = time.perf_counter()
    generate(sys.argv[1], Path(sys.argv[2]))
    print(f"{time.perf_counter() - begin:.4f}")
