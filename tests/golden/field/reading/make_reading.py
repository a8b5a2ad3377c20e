"""Makes the small movies of this folder: python make_reading.py (needs h5py and numpy).

The voxel (z, y, x) of timepoint id t and setup s is t*100 + s*10 + z*7 + y*3 + x, between 0 and 200; other values are said
beside the files. README.md says which structures of movies in the field they have.
"""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy

HERE = Path(__file__).parent
SHAPE = (3, 4, 5)
CHUNK = (2, 3, 4)


def voxels(t=0, s=0):
    z, y, x = numpy.indices(SHAPE)
    return t * 100 + s * 10 + z * 7 + y * 3 + x


def path(t=0, s=0, level=0):
    return f"t{t:05}/s{s:02}/{level}/cells"


def create(name, libver="latest"):
    (HERE / name).parent.mkdir(parents=True, exist_ok=True)
    return h5py.File(HERE / name, "w", libver=libver)


def declare(file, setups=(0,), data_type=None):
    for s in setups:
        group = file.require_group(f"s{s:02}")
        group.attrs.clear()
        if data_type is not None:
            group.attrs["dataType"] = data_type


def movie(name, data, times=(0,), setups=(0,), data_type=None, **options):
    with create(name) as file:
        declare(file, setups, data_type)
        for t in times:
            for s in setups:
                file.create_dataset(path(t, s), data=data(t, s), **options)


def types():
    """A movie of each type: setup 0 contiguous, 1 gzip and shuffle, 2 scale-offset, 3 LZF in an unlimited dataset, 4 compact,
    5 one chunk of two written, 6 nothing written; in each, the first voxel is the type's lowest value, and voxels never
    written are 9. Big-endian ones end in be.
    """
    for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"):
        for order in "<>":
            if order == ">" and kind[1] == "1":
                continue
            dtype = numpy.dtype(order + kind)
            data = (voxels() + (0.75 if kind[0] == "f" else 0)).astype(dtype)
            data[0, 0, 0] = numpy.iinfo(dtype).min if kind[0] != "f" else -1e30
            with create(f"types/{dtype.newbyteorder('=').name}{'be' if order == '>' else ''}.h5") as file:
                declare(file, range(7), dtype.newbyteorder("=").name)
                file.create_dataset(path(0, 0), data=data)
                file.create_dataset(path(0, 1), data=data, chunks=CHUNK, compression="gzip", shuffle=True)
                packed = data.clip(0) if kind[0] == "f" else data
                scale = {"scaleoffset": 2 if kind[0] == "f" else 0}
                file.create_dataset(path(0, 2), data=packed, chunks=CHUNK, compression="gzip", **scale)
                file.create_dataset(path(0, 3), data=data, chunks=CHUNK, compression="lzf", shuffle=True, maxshape=(None,) * 3)
                compact(file, path(0, 4), data)
                partial = file.create_dataset(path(0, 5), SHAPE, dtype, chunks=(2, 4, 5), fillvalue=9)
                partial[:2] = data[:2]
                file.create_dataset(path(0, 6), SHAPE, dtype, fillvalue=9)


def szip():
    """Setups by kind of coding: every type and order of bytes, blocks of 4 to 32, values that are few, many, noise or zero."""
    random = numpy.random.default_rng(7)
    shape = (6, 24, 12)
    kinds = (
        lambda: numpy.zeros(shape, int),
        lambda: random.integers(0, 3, shape),
        lambda: numpy.where(random.random(shape) < 0.01, 200, 0),
        lambda: random.integers(0, 256, shape),
        lambda: numpy.add.outer(numpy.arange(6) * 5, numpy.add.outer(numpy.arange(24), numpy.arange(12))) + random.integers(0, 4, shape),
    )
    with create("szip.h5") as file:
        s = 0
        for dtype in ("<u2", ">u2", "u1", "<f4", ">u4", "<f8"):
            for kind in kinds:
                block = (4, 8, 16, 32)[s % 4]
                chunks = ((2, 8, 12), (3, 24, 7), (1, 8, 10), (6, 24, 3))[(s + s // 4) % 4]
                options = ("nn", block) if s % 3 else ("ec", block)
                data = kind().astype(dtype)
                for name, how in ((path(0, s), {"compression": "szip", "compression_opts": options}), (path(1, s), {"compression": "gzip"})):
                    file.create_dataset(name, data=data, chunks=chunks, shuffle=s % 5 == 4, **how)
                s += 1
        declare(file, range(s), "uint16")


def compact(file, name, data):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    group, name = name.rsplit("/", 1)
    space = h5py.h5s.create_simple(data.shape)
    cells = h5py.h5d.create(file.require_group(group).id, name.encode(), h5py.h5t.py_create(data.dtype), space, properties)
    cells.write(h5py.h5s.ALL, h5py.h5s.ALL, numpy.ascontiguousarray(data))


def values():
    signed = lambda t, s: (voxels(t, s) - 20).astype("<i2")
    for name, declared in (
        ("fixed", numpy.bytes_("int16")), ("variable", "int16"), ("padded", numpy.bytes_(b"INT16 ")), ("legacy", None),
        ("unsigned", "uint16"), ("number", 16),
    ):
        movie(f"values/int16_{name}.h5", signed, data_type=declared)
    with h5py.File(HERE / "values/int16_old.h5", "w", libver="earliest", userblock_size=512) as file:
        declare(file)
        for index in range(12):
            file["s00"].attrs[f"other{index}"] = "x" * index
        file["s00"].attrs["dataType"] = "int16"
        file[path()] = signed(0, 0)
    float32 = lambda change: lambda t, s: change(voxels(t, s).astype("<f4"))
    movie("values/float.h5", float32(lambda v: v * 4 + 0.25), times=(0, 1), data_type="float32")  # 0.25 to 624.25
    movie("values/fraction.h5", float32(lambda v: v / 160), times=(0, 1), data_type="float32")  # 0 to 0.8
    movie("values/coarse.h5", float32(lambda v: v / 20), data_type="float32")  # 0 to 1.35
    movie("values/negative.h5", float32(lambda v: -v), data_type="float32")
    movie("values/large.h5", lambda t, s: (voxels(t, s) * 5000).astype("<i4"), data_type="int32")  # up to 135000
    movie("values/infinite.h5", float32(lambda v: numpy.where(v == 27, numpy.inf, v)), data_type="float32")
    movie("values/nan.h5", float32(lambda v: numpy.where(v == 27, numpy.nan, v)), data_type="float32")
    with create("values/mixed.h5") as file:  # unsigned 16 bit, then float
        declare(file)
        file[path(0)] = voxels(0).astype("<u2")
        file[path(1)] = (voxels(1) * 4 + 0.5).astype("<f4")


def links():
    """Masters whose parts are in other folders, as written on several systems; in `links/home` only masters and part.h5."""
    movie("links/home/parts/inner.h5", lambda t, s: voxels(t, s).astype("<i2"), times=(0, 1))
    movie("links/home/part.h5", lambda t, s: voxels(t, s).astype("<i2"), times=(0, 1))
    movie("links/other/outer.h5", lambda t, s: voxels(t, s).astype("<i2"), times=(0, 1))
    for name, file_name in (
        ("below", "parts/inner.h5"), ("below_windows", "parts\\inner.h5"), ("gone", "../gone/part.h5"),
        ("gone_windows", "..\\gone\\part.h5"), ("drive", "C:\\Data\\movie\\part.h5"), ("share", "\\\\server\\data\\part.h5"),
        ("absolute", "/data/movie/part.h5"), ("round", "../home/part.h5"), ("elsewhere", "../other/outer.h5"),
        ("elsewhere_windows", "..\\other\\outer.h5"), ("nowhere", "..\\gone\\nowhere.h5"),
    ):
        with create(f"links/home/{name}.h5") as file:
            declare(file)
            file[path(0)] = h5py.ExternalLink(file_name, path(0))
            file["t00001"] = h5py.ExternalLink(file_name, "t00001")
    with create("links/home/chain.h5") as file:  # soft to external to soft, in two files
        declare(file)
        file[path(0)] = h5py.SoftLink("/first")
        file["first"] = h5py.SoftLink("second")
        file["second"] = h5py.ExternalLink("chain_part.h5", "/a/b")
        file["t00001"] = h5py.SoftLink("/third")
        file["third"] = h5py.ExternalLink("C:\\x\\chain_part.h5", "c")
    with create("links/home/chain_part.h5") as file:
        file["a/b"] = h5py.SoftLink("/a/c")
        file["a/c"] = h5py.ExternalLink("part.h5", path(0))
        file["c"] = h5py.ExternalLink("part.h5", "t00001")


def virtual():
    data = lambda t: voxels(t).astype("<u2")
    with create("virtual/planes.h5") as file:
        for z in range(SHAPE[0]):
            file[f"plane{z}"] = data(1)[z]
        file.create_dataset("stack", data=numpy.concatenate([data(0), data(2)]), chunks=CHUNK, compression="gzip")
        file["float"] = data(0).astype("<f4") * 4
    with create("virtual/movie.h5") as file:
        declare(file)

        def put(t, parts, dtype="<u2", fill=0, shape=SHAPE):
            layout = h5py.VirtualLayout(shape, dtype)
            for place, source in parts:
                layout[place] = source
            file.create_virtual_dataset(path(t), layout, fillvalue=fill)

        stack = h5py.VirtualSource("planes.h5", "stack", (6, 4, 5), "<u2")
        put(0, [(slice(0, 3), stack[0:3])])
        put(1, [(z, h5py.VirtualSource("D:\\old\\planes.h5", f"plane{z}", SHAPE[1:], "<u2")) for z in range(3)])
        put(2, [(slice(0, 1), stack[3:4]), (slice(1, 2), stack[4:5])], fill=8)  # the last plane is in no source
        file["here"] = data(3)
        put(3, [(slice(0, 3), h5py.VirtualSource(".", "here", SHAPE, "<u2"))])
        put(4, [(slice(0, 3), h5py.VirtualSource(".", path(3), SHAPE, "<u2"))])
        put(5, [(slice(0, 3), h5py.VirtualSource("planes.h5", "float", SHAPE, "<f4"))])
        put(6, [(slice(0, 3), h5py.VirtualSource("gone.h5", "float", SHAPE, "<f4"))])
        put(7, [(slice(0, 3), stack[0:6:2])])  # every second plane, which is not read
        put(8, [(slice(0, 3), h5py.VirtualSource(".", path(8), SHAPE, "<u2"))])  # itself


def nested():
    """Timepoint 0: virtual datasets inside each other, 40 times each in the next one, in the same place; 1 and 2: parts that
    overlap, and cover two planes of three or all of them; 3: parts in 300 files."""
    data = voxels().astype("<u2")
    with create("virtual/nested.h5") as file:
        declare(file)
        file["here"] = data

        def put(where, parts, fill=0):
            layout = h5py.VirtualLayout(SHAPE, "<u2")
            for place, source in parts:
                layout[place] = source
            file.create_virtual_dataset(where, layout, fillvalue=fill)

        here = h5py.VirtualSource(".", "here", SHAPE, "<u2")
        source = "here"
        for where in ("inner", "middle", "outer", path(0)):
            spelled = ["/" * n + source for n in range(40)]
            put(where, [(slice(0, 3), h5py.VirtualSource(".", name, SHAPE, "<u2")) for name in spelled])
            source = where
        put(path(1), [(slice(0, 2), here[0:2]), (slice(1, 2), here[1:2])], fill=500)
        put(path(2), [(slice(0, 2), here[0:2]), (slice(1, 3), here[1:3])], fill=500)
        put(path(3), [(0, h5py.VirtualSource(f"part{n}.h5", "plane0", SHAPE[1:], "<u2")) for n in range(300)])


def described():
    """XML files of movie.h5 (timepoints 0, 1, 2, 3, 20210603; setups 0, 1) in many encodings, with paths of many systems."""
    folder = HERE / "xml"
    small = lambda t, s: (voxels(t % 5, s) // 2).astype("<u2")
    movie("xml/data/movie.h5", small, times=(0, 1, 2, 3, 20210603), setups=(0, 1))
    hdf5 = lambda text, kind=' type="relative"': f'<ImageLoader format="bdv.hdf5"><hdf5{kind}>{text}</hdf5></ImageLoader>'
    pattern = '<Timepoints type="pattern"><integerpattern>1, 3,20210603</integerpattern></Timepoints>'

    def xml(name, loader, declared="UTF-8", encoding="utf-8", base=".", times=pattern, setups=(1,), missing="", size="5 4 3"):
        views = "".join(
            f"<ViewSetup><id>{s}</id><size>{size}</size><voxelSize><unit>µm</unit><size>0,5 0,5 2</size></voxelSize></ViewSetup>"
            for s in setups
        )
        text = (
            f'<?xml version="1.0" encoding="{declared}"?>\n<SpimData version="0.2"><BasePath type="relative">{base}</BasePath>'
            f"<SequenceDescription>{loader}<ViewSetups>{views}</ViewSetups>{times}<MissingViews>{missing}</MissingViews>"
            "</SequenceDescription></SpimData>\n"
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode(encoding))

    for name, text in (
        ("same", "movie.h5"), ("dots", "../data/movie.h5"), ("windows", "..\\data\\movie.h5"), ("drive", "C:\\old\\movie.h5"),
        ("encoded", "../data/movie%2Eh5"), ("uri", "file:/old/place/movie.h5"),
    ):
        xml(f"data/{name}.xml", hdf5(text))
    xml("data/typeless.xml", hdf5("/old/place/movie.h5", ""))
    xml("above/up.xml", hdf5("../data/movie.h5"))
    xml("above/base.xml", hdf5("data/movie.h5"), base="..")
    xml("down.xml", hdf5("data\\movie.h5"))
    for encoding in ("utf-8-sig", "utf-16-le", "utf-16-be", "utf-16", "latin-1", "cp1252"):
        xml(f"data/{encoding}.xml", hdf5("movie.h5"), encoding=encoding)
    xml("data/declared_latin.xml", hdf5("movie.h5"), declared="ISO-8859-1", encoding="latin-1")
    xml("data/declared_utf16.xml", hdf5("movie.h5"), declared="UTF-16", encoding="utf-16")
    wrapped = f'<ImageLoader format="spimreconstruction.wrapped.flatfield.default">{hdf5("movie.h5")}</ImageLoader>'
    xml("data/wrapped.xml", wrapped)
    xml("data/range.xml", hdf5("movie.h5"), times='<Timepoints type="range"><first>2</first><last>4</last></Timepoints>', setups=(1, 0))
    ids = "".join(f"<Timepoint><id>{t}</id></Timepoint>" for t in (20210603, 0))
    xml("data/list.xml", hdf5("movie.h5"), times=f'<Timepoints type="list">{ids}</Timepoints>')
    xml("data/missing.xml", hdf5("movie.h5"), missing='<MissingView timepoint="3" setup="1"/><MissingView timepoint="1" setup="0"/>')
    split = "".join(
        f"<SetupIdDefinition><NewId>{new}</NewId><OldId>1</OldId><min>{low} 0 0</min><max>{high} 3 2</max></SetupIdDefinition>"
        for new, low, high in ((5, 0, 2), (6, 2, 4))
    )
    inner = f"<SequenceDescription>{hdf5('movie.h5')}<ViewSetups><ViewSetup><id>1</id></ViewSetup></ViewSetups></SequenceDescription>"
    loader = f'<ImageLoader format="split.viewerimgloader">{hdf5("movie.h5")}{inner}<SetupIds>{split}</SetupIds></ImageLoader>'
    xml("data/split.xml", loader, setups=(5, 6), size="3 4 3")
    for name, loader in (
        ("n5", '<ImageLoader format="bdv.n5" version="1.0"><n5 type="relative">movie.n5</n5></ImageLoader>'),
        ("zarr", '<ImageLoader format="bdv.multimg.zarr"><zarr type="relative">movie.zarr</zarr></ImageLoader>'),
        ("tiff", '<ImageLoader format="spimreconstruction.filelist"><files/></ImageLoader>'),
    ):
        xml(f"data/not_{name}.xml", loader)


def not_closed():
    """A file whose writer was killed."""
    code = (
        "import h5py, numpy, os, sys; f = h5py.File(sys.argv[1], 'w', libver='latest');"
        "f['t00000/s00/0/cells'] = numpy.zeros((3, 4, 5), '<i2'); f.flush(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, os.fspath(HERE / "not_closed.h5")], check=True)


def levels():
    for name, kept in (("level_1", (1,)), ("levels_1_3", (1, 3))):
        with create(f"{name}.h5") as file:
            declare(file)
            for level in kept:
                file[path(0, 0, level)] = voxels().astype("<i2")


if __name__ == "__main__":
    types()
    szip()
    values()
    links()
    virtual()
    nested()
    described()
    not_closed()
    levels()
