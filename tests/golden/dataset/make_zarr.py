"""Makes the small Zarr stores of this folder: python make_zarr.py (needs zarr 2.18 and numpy).

`arrays/` holds arrays of shape (3, 5, 7) in chunks of (1, 4, 4); the element at (t, y, x) is t*1000 + y*50 + x, or its last
byte. The chunk 2.0.0 was never written. `stores_*/` holds the metadata of the seven stores as zarr-python makes them for
the original server: 3-D with two timepoints, 2-D, one timepoint only, and planes larger than a chunk.
"""

import shutil
from pathlib import Path

import numcodecs
import numpy
import zarr

HERE = Path(__file__).parent / "zarr"


def array(name, dtype="<u2", **options):
    t, y, x = numpy.indices((3, 5, 7))
    values = t * 1000 + y * 50 + x
    store = zarr.open(str(HERE / "arrays" / name), "w", shape=values.shape, chunks=(1, 4, 4), dtype=dtype, **options)
    store[:] = (values % 256 if dtype == "u1" else values).astype(dtype)
    separator = options.get("dimension_separator", ".")
    (HERE / "arrays" / name / separator.join("200")).unlink()


def stores(name, times, shape):
    axes = len(shape)
    chunk = tuple(min(edge, 1024) for edge in shape[-2:])
    if axes == 3:
        chunk = (1, *chunk)
    for store, array_shape, chunks, dtype in [
        ("imgs", (times, *shape), (1, *chunk), "u2"),
        ("seg_labels", (times, *shape), (1, *chunk), "u1"),
        ("seg_labels_vis", (times, *shape, 3), (1, *chunk, 1), "u1"),
        ("seg_outputs", (times, *shape, 3), (1, *chunk, 1), "f2"),
        ("flow_outputs", (times - 1, axes, *shape), (1, 1, *chunk), "f2"),
        ("flow_labels", (times - 1, axes + 1, *shape), (1, 1, *chunk), "f4"),
        ("flow_hashes", (times - 1,), (times - 1,), "S16"),
    ]:
        zarr.open(str(HERE / f"stores_{name}" / f"{store}.zarr"), "w", shape=array_shape, chunks=chunks, dtype=dtype)


def make_all():
    shutil.rmtree(HERE, ignore_errors=True)
    array("default")
    array("uint8", dtype="u1")
    array("float16", dtype="<f2")
    array("float32", dtype="<f4")
    array("uncompressed", compressor=None)
    array("slash", dimension_separator="/")
    array("blosclz", compressor=numcodecs.Blosc("blosclz", 9, numcodecs.Blosc.NOSHUFFLE))
    array("lz4hc_bits", compressor=numcodecs.Blosc("lz4hc", 1, numcodecs.Blosc.BITSHUFFLE))
    array("fill_7", fill_value=7)
    array("zstd", compressor=numcodecs.Blosc("zstd"))
    array("zlib", compressor=numcodecs.Zlib())
    array("fortran", order="F")
    array("big_endian", dtype=">u2")
    array("int64", dtype="<i8")
    array("delta", filters=[numcodecs.Delta("<u2")])
    zarr.open_group(str(HERE / "arrays" / "group"), "w")
    stores("3d", 2, (3, 4, 5))
    stores("2d", 4, (6, 7))
    stores("one", 1, (3, 4, 5))
    stores("large", 3, (2, 1500, 2000))


if __name__ == "__main__":
    make_all()
