"""Writes the movies beside this file: python make_field.py (h5py, numpy).

All voxels of timepoint t and view setup s have the value 1 + t % 50 + 100 * s, so that a test knows a frame by one voxel.
"""

import pathlib

import h5py
import numpy as np

HERE = pathlib.Path(__file__).parent
SHAPE = (3, 6, 8)  # z, y, x


def value(t, s=0):
    return 1 + t % 50 + 100 * s


def cells(file, t, s=0, shape=SHAPE, **how):
    data = np.full(shape, value(t, s), "<i2")
    file.create_dataset(f"t{t:05d}/s{s:02d}/0/cells", data=data, chunks=shape, compression="gzip", **how)


def header(file, setups):
    for s in setups:
        file[f"s{s:02d}/resolutions"] = np.ones((1, 3))
        file[f"s{s:02d}/subdivisions"] = np.array([[8, 6, 3]], np.int32)


def movie(path, timepoints, setups=(0,)):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w", libver="latest") as file:
        header(file, setups)
        for t in timepoints:
            for s in setups:
                cells(file, t, s)


def xml(path, h5, timepoints, setups=(0,), missing=()):
    z, y, x = SHAPE
    views = "".join(
        f"<ViewSetup><id>{s}</id><size>{x} {y} {z}</size><voxelSize><unit>um</unit><size>1 1 2</size></voxelSize></ViewSetup>"
        for s in setups
    )
    gone = "".join(f'<MissingView timepoint="{t}" setup="{s}"/>' for t, s in missing)
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<SpimData version="0.2"><BasePath type="relative">.</BasePath>'
        f'<SequenceDescription><ImageLoader format="bdv.hdf5"><hdf5 type="relative">{h5}</hdf5></ImageLoader>'
        f'<ViewSetups>{views}</ViewSetups>'
        f'<Timepoints type="range">{timepoints}</Timepoints>'
        f"<MissingViews>{gone}</MissingViews></SequenceDescription></SpimData>\n"
    )


# Ids that do not begin at 0, leave some out, or are dates.
movie(HERE / "ids" / "from_5.h5", [5, 6, 7])
movie(HERE / "ids" / "only_18.h5", [18])
movie(HERE / "ids" / "every_second.h5", [0, 2, 4, 6, 8])
movie(HERE / "ids" / "every_second_without_4.h5", [0, 2, 6, 8])
movie(HERE / "ids" / "from_5_without_7.h5", [5, 6, 8, 9])
movie(HERE / "ids" / "from_0_without_2.h5", [0, 1, 3, 4])
movie(HERE / "ids" / "from_2_of_4.h5", [2, 3])
movie(HERE / "ids" / "dates.h5", [20210603, 20210604, 20210607])

# Two channels, the first of which begins later; setups that do not begin at 0, whose first has no images.
(HERE / "setups").mkdir(exist_ok=True)
with h5py.File(HERE / "setups" / "begins_later.h5", "w") as file:
    header(file, [0, 1])
    for t, s in [(0, 1), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]:
        cells(file, t, s)
movie(HERE / "setups" / "from_8.h5", [0, 1], setups=(8, 9))
with h5py.File(HERE / "setups" / "first_is_empty.h5", "w") as file:
    header(file, [0, 1])
    for t in range(2):
        cells(file, t, 1)

# The XML lists four of six timepoints, one of them missing, and the second channel only.
movie(HERE / "subset" / "movie.h5", range(6), setups=(0, 1))
xml(HERE / "subset" / "movie.xml", "movie.h5", "<first>2</first><last>5</last>", setups=(1,), missing=[(3, 1)])

# One file per timepoint from the microscope, and a master file of links whose name comes last in the alphabet.
(HERE / "master").mkdir(exist_ok=True)
for t in range(2):
    with h5py.File(HERE / "master" / f"Cam_{t:05d}.lux.h5", "w") as file:
        file.create_dataset("Data", data=np.full(SHAPE, value(t), "<u2"), chunks=SHAPE)
with h5py.File(HERE / "master" / "master.h5", "w") as file:
    header(file, [0])
    for t in range(2):
        file[f"t{t:05d}/s00/0/cells"] = h5py.ExternalLink(f"Cam_{t:05d}.lux.h5", "Data")
xml(HERE / "master" / "master.xml", "master.h5", "<first>0</first><last>1</last>")

# Soft and hard links inside a file.
(HERE / "links").mkdir(exist_ok=True)
with h5py.File(HERE / "links" / "soft.h5", "w") as file:
    header(file, [0])
    cells(file, 0)
    file["t00001/s00"] = h5py.SoftLink("/t00000/s00")
    file["t00002"] = file["t00000"]

# What is no movie, or none that can be used: Fiji's own HDF5; a last timepoint with fewer planes; a cut file.
(HERE / "refused").mkdir(exist_ok=True)
with h5py.File(HERE / "refused" / "fiji.h5", "w") as file:
    file["t0/channel0"] = np.full(SHAPE, 1, "<u2")
with h5py.File(HERE / "refused" / "sizes_differ.h5", "w") as file:
    header(file, [0])
    cells(file, 0)
    cells(file, 1, shape=(2, 6, 8))
(HERE / "refused" / "cut.h5").write_bytes((HERE / "ids" / "from_5.h5").read_bytes()[:3000])

# A movie, exported again with one more timepoint.
movie(HERE / "exported" / "a.h5", [0, 1])
movie(HERE / "exported" / "z.h5", [0, 1, 2])
