"""Writes the movies whose chunks would be decoded again and again: python make_chunks.py (h5py, numpy)."""

import h5py
import numpy


def movie(name):
    return h5py.File(name, "w", libver="earliest")


with movie("chunks_differ.h5") as file:
    # Blocks that suit the first volume have a hundredth of the second one's only chunk.
    shape = (1, 9216, 9216)
    first = file.create_dataset("t00000/s00/0/cells", shape, "u1", chunks=(1, 64, 64), compression="gzip")
    first[0, 0, 0] = 1
    file.create_dataset("t00001/s00/0/cells", shape, "u1", chunks=shape, compression="gzip")

with h5py.File("virtual_again.h5", "w", libver="latest") as file:
    # 64 boxes of one voxel each in the same chunk of 16 million.
    shape = (1, 4096, 4096)
    source = file.create_dataset("source", shape, "u1", chunks=shape, compression="gzip")
    source[:] = numpy.zeros(shape, "u1")
    layout = h5py.VirtualLayout((1, 8, 8), "u1")
    for index in range(64):
        y, x = divmod(index, 8)
        layout[0, y, x] = h5py.VirtualSource(".", "source", shape)[0, 64 * y, 64 * x]
    file.create_virtual_dataset("t00000/s00/0/cells", layout)
