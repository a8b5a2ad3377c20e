"""Makes the small BigDataViewer movies of this folder: python make_h5.py (needs h5py and numpy).

The voxel at (t, z, y, x) of setup s and level l is (t*7919 + s*1009 + l*499 + z*4001 + y*211 + x*13) mod 65536, or mod 256
where the file has 8 bit. Everything that a BigDataViewer file may look like, and what a hostile one may try.
"""

import zlib
from pathlib import Path

import h5py
import numpy

HERE = Path(__file__).parent / "h5"
SHAPE = (5, 7, 9)
CHUNK = (2, 4, 4)
GZIP = {"chunks": CHUNK, "compression": "gzip"}


def voxels(t=0, setup=0, level=0, shape=SHAPE):
    z, y, x = numpy.indices(shape)
    values = t * 7919 + setup * 1009 + level * 499 + z * 4001 + y * 211 + x * 13
    return (values % 65536).astype("u2").view("i2")


def path(t=0, setup=0, level=0):
    return f"t{t:05}/s{setup:02}/{level}/cells"


def create(name, **options):
    return h5py.File(HERE / name, "w", libver=options.pop("libver", "earliest"), **options)


def movie(name, data=voxels, times=(0, 1), userblock=0, libver="earliest", **options):
    """A movie of one setup and one level."""
    with create(name, libver=libver, userblock_size=userblock) as file:
        file["s00/resolutions"] = numpy.ones((1, 3))
        for t in times:
            file.create_dataset(path(t), data=data(t), **options)


def compact(name):
    """A movie whose voxels lie inside the object headers."""
    with create(name) as file:
        for t in (0, 1):
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_layout(h5py.h5d.COMPACT)
            properties.set_obj_track_times(False)
            group = file.create_group(path(t).removesuffix("/cells"))
            space = h5py.h5s.create_simple(SHAPE)
            cells = h5py.h5d.create(group.id, b"cells", h5py.h5t.STD_I16LE, space, properties)
            cells.write(h5py.h5s.ALL, h5py.h5s.ALL, voxels(t))


def chunk_written_raw(name, make_bytes, chunks=SHAPE, filters=(), mask=0):
    """A movie whose only chunk holds bytes that the library did not make."""
    with create(name) as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(chunks)
        properties.set_obj_track_times(False)
        for filter_id, values in filters:
            properties.set_filter(filter_id, h5py.h5z.FLAG_OPTIONAL, values)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        space = h5py.h5s.create_simple(SHAPE)
        cells = h5py.h5d.create(file.id, path().encode(), h5py.h5t.STD_I16LE, space, properties, links)
        cells.write_direct_chunk((0, 0, 0), make_bytes(), mask)


def links(main, link_of):
    """A movie whose main file has links only."""
    with create(main) as file:
        file["s00/resolutions"] = numpy.ones((1, 3))
        link_of(file)


def make_all():
    HERE.mkdir(exist_ok=True)
    movie("gzip.h5", **GZIP)
    movie("shuffle_gzip.h5", shuffle=True, **GZIP)
    movie("shuffle_only.h5", shuffle=True, chunks=CHUNK)
    movie("plain_chunks.h5", chunks=CHUNK)
    movie("contiguous.h5")
    compact("compact.h5")
    movie("lzf.h5", chunks=CHUNK, compression="lzf")
    movie("fletcher32.h5", fletcher32=True, **GZIP)
    movie("latest.h5", libver="latest", **GZIP)
    movie("large_chunks.h5", chunks=(8, 16, 16), maxshape=(None,) * 3, compression="gzip")
    movie("userblock.h5", userblock=512, **GZIP)
    movie("userblock_contiguous.h5", userblock=512)
    movie("uint16.h5", data=lambda t: voxels(t).view("u2"), **GZIP)
    movie("uint8.h5", data=lambda t: voxels(t).astype("u1"), shuffle=True, **GZIP)
    movie("big_endian.h5", data=lambda t: voxels(t).astype(">i2"), **GZIP)
    movie("big_endian_shuffle.h5", data=lambda t: voxels(t).astype(">i2"), shuffle=True, chunks=CHUNK, compression="lzf")
    # BigDataViewer itself writes scale-offset and gzip.
    movie("scale_offset.h5", scaleoffset=0, chunks=CHUNK)
    movie("scale_offset_gzip.h5", scaleoffset=0, **GZIP)
    movie("scale_offset_16.h5", scaleoffset=16, **GZIP)
    movie("scale_offset_fill.h5", scaleoffset=0, fillvalue=int(voxels()[1, 2, 3]), **GZIP)
    movie("scale_offset_no_fill.h5", data=lambda t: voxels(t).view("u2"), scaleoffset=0, fill_time="never", **GZIP)
    movie("scale_offset_uint8.h5", data=lambda t: voxels(t).astype("u1"), scaleoffset=0, **GZIP)
    movie("scale_offset_big_endian.h5", data=lambda t: voxels(t).astype(">i2"), scaleoffset=0, **GZIP)
    movie("scale_offset_shuffle.h5", scaleoffset=0, shuffle=True, **GZIP)
    movie("constant.h5", data=lambda t: voxels(t) * 0 + 300, scaleoffset=0, **GZIP)
    movie("gaps.h5", times=(2, 5), **GZIP)
    movie("float.h5", data=lambda t: voxels(t).astype("f4"), **GZIP)
    movie("two_axes.h5", data=lambda t: voxels(t)[0])
    movie("sizes_differ.h5", data=lambda t: voxels(t)[: 5 - t], **GZIP)
    with create("setups.h5") as file:
        for setup in (0, 1):
            file[f"s{setup:02}/resolutions"] = numpy.ones((2, 3))
            for t in (0, 1):
                if (setup, t) != (1, 1):  # a missing view
                    for level, shape in enumerate([SHAPE, (5, 4, 5)]):
                        file.create_dataset(path(t, setup, level), data=voxels(t, setup, level, shape), **GZIP)
    with create("unwritten.h5") as file:
        cells = file.create_dataset(path(0), SHAPE, "i2", fillvalue=-2, **GZIP)
        cells[:2] = voxels()[:2]
        file.create_dataset(path(1), SHAPE, "i2", fillvalue=7)

    # Movies in several files.
    for t in (0, 1):
        with create(f"parts-{t:02}-00.h5") as file:
            file.create_dataset(path(), data=voxels(t), **GZIP)
    links("parts.h5", lambda file: [file.update({path(t): h5py.ExternalLink(f"parts-{t:02}-00.h5", path())}) for t in (0, 1)])
    def group_links(file):
        file["t00000/s00"] = h5py.ExternalLink("/somewhere/else/parts-00-00.h5", "t00000/s00")
        file["copy"] = h5py.ExternalLink("parts-01-00.h5", "/t00000")
        file["t00001"] = h5py.SoftLink("/copy")
    links("parts_by_group.h5", group_links)

    # Files that mean no good.
    links("link_outside.h5", lambda file: file.update({path(): h5py.ExternalLink("../make_h5.py", "/x")}))
    links("link_absolute.h5", lambda file: file.update({path(): h5py.ExternalLink("/etc/passwd", "/x")}))
    links("link_missing.h5", lambda file: file.update({path(): h5py.ExternalLink("parts-99-00.h5", path())}))
    links("link_circle.h5", lambda file: file.update({"t00000": h5py.SoftLink("/other"), "other": h5py.SoftLink("/t00000")}))
    links("link_self.h5", lambda file: file.update({path(): h5py.ExternalLink("link_self.h5", path())}))
    links("link_dangling.h5", lambda file: file.update({path(): h5py.SoftLink("/nowhere")}))
    with create("voxels_outside.h5") as file:
        file.create_dataset(path(), SHAPE, "i2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    with create("virtual.h5", libver="latest") as file:
        layout = h5py.VirtualLayout(SHAPE, "i2")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", SHAPE, "i2")
        file.create_virtual_dataset(path(), layout)
    with create("huge_shape.h5") as file:
        file.create_dataset(path(), (2**31, 2**31, 2**31), "i2", chunks=CHUNK)
    with create("huge_chunk.h5") as file:
        file.create_dataset(path(), SHAPE, "i2", chunks=(1024, 1024, 1024), maxshape=(None,) * 3, compression="gzip")
    with create("no_timepoints.h5") as file:
        file["s00/resolutions"] = numpy.ones((1, 3))
    with create("cells_is_a_group.h5") as file:
        file.create_group(path())
    raw = voxels().tobytes()
    chunk_written_raw("skipped_filter.h5", lambda: raw, filters=[(h5py.h5z.FILTER_DEFLATE, (6,))], mask=1)
    chunk_written_raw("zstd.h5", lambda: raw, filters=[(32015, (3,))])
    chunk_written_raw("blosc.h5", lambda: raw, filters=[(32001, (2, 2, 2, 630, 5, 1, 0))])
    gzip = [(h5py.h5z.FILTER_DEFLATE, (6,))]
    chunk_written_raw("bomb.h5", lambda: zlib.compress(bytes(1 << 19), 9), filters=gzip)
    chunk_written_raw("wrong_checksum.h5", lambda: raw + b"\0\0\0\0", filters=[(h5py.h5z.FILTER_FLETCHER32, ())])
    chunk_written_raw("short_chunk.h5", lambda: zlib.compress(raw[:-2]), filters=gzip)
    chunk_written_raw("not_gzip.h5", lambda: b"no gzip data at all" * 20, filters=gzip)
    (HERE / "described.xml").write_text(
        """<SpimData version="0.2"><BasePath type="relative">.</BasePath><SequenceDescription>
<ImageLoader format="bdv.hdf5"><hdf5 type="relative">gzip.h5</hdf5></ImageLoader>
<ViewSetups><ViewSetup><id>0</id><name>nuclei</name><size>9 7 5</size>
<voxelSize><unit>micrometer</unit><size>0.5 0.5 2.0</size></voxelSize></ViewSetup></ViewSetups>
</SequenceDescription></SpimData>
"""
    )
    whole = (HERE / "gzip.h5").read_bytes()
    (HERE / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (HERE / "text.h5").write_text("not an HDF5 file, but called one\n" * 40)


if __name__ == "__main__":
    make_all()
