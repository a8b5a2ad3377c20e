"""Writes the files of this folder with h5py, and what h5py reads from them.

    python make_hdf5.py                    # values.h5, latest.h5 and values.json
    python make_hdf5.py ilastik FOLDER     # ilastik.json, from the .ilp files of a folder
"""

import hashlib
import json
import pathlib
import sys

import h5py
import numpy as np

HERE = pathlib.Path(__file__).parent


def fill(root):
    numbers = root.create_group("numbers")
    for kind in "i1 i2 i4 i8 u1 u2 u4 u8 f4 f8".split():
        for order in "<>":
            name = numbers.name + f"/{kind}{'be' if order == '>' else ''}"
            values = np.arange(6).reshape(2, 3) * 21 - (60 if kind[0] != "u" else 0)
            root[name] = values.astype(order + kind)
    numbers["scalar"] = np.int64(-7)
    numbers["five_axes"] = np.arange(2 * 1 * 3 * 2 * 2, dtype="u2").reshape(2, 1, 3, 2, 2)
    numbers["no_rows"] = np.zeros((0, 4), "f4")
    numbers["null"] = h5py.Empty("f4")
    numbers["bool"] = np.array([[True, False], [False, True]])
    numbers.create_dataset("enum", data=np.array([0, 2, 1], "i2"), dtype=h5py.enum_dtype({"a": 0, "b": 1, "c": 2}, "i2"))

    stored = root.create_group("stored")
    values = (np.arange(5 * 4 * 7 * 3).reshape(5, 4, 7, 3) * 37 % 1009).astype("i4")
    chunked = dict(chunks=(2, 3, 4, 2), data=values)
    stored.create_dataset("gzip", compression="gzip", shuffle=True, fletcher32=True, **chunked)
    stored.create_dataset("lzf", compression="lzf", **chunked)
    stored.create_dataset("plain", **chunked)
    stored.create_dataset("one_axis", data=values.ravel(), chunks=(100,), compression="gzip")
    stored.create_dataset("big_endian", data=values.astype(">i4"), chunks=(5, 4, 7, 1), shuffle=True)
    part = stored.create_dataset("part", shape=(4, 5), dtype=">f8", chunks=(2, 2), fillvalue=2.5)
    part[0, 0] = 1
    stored.create_dataset("never", shape=(3,), dtype="u2", fillvalue=9)
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((3,))
    h5py.h5d.create(stored.id, b"compact", h5py.h5t.STD_I16BE, space, compact).write(
        h5py.h5s.ALL, h5py.h5s.ALL, np.array([-1, 2, 300], ">i2")
    )

    texts = root.create_group("texts")
    texts["fixed"] = np.array([b"Background", b"Cell", b""], "S12")
    texts.create_dataset("fixed_utf8", data=["µm".encode(), b"pixel"], dtype=h5py.string_dtype("utf-8", 8))
    texts["variable"] = "Pixel Classification"
    texts.create_dataset("variable_ascii", data=[b"a", b"", b"longer than before"], dtype=h5py.string_dtype("ascii"))
    texts.create_dataset("chunked", data=[[f"text {i} {j}" for j in range(3)] for i in range(5)],
                         dtype=h5py.string_dtype(), chunks=(2, 2), compression="gzip")
    texts.create_dataset("fixed_chunked", data=np.array([b"one", b"two", b"three"], "S5"), chunks=(2,), shuffle=True)

    attributes = root.create_group("attributes").attrs
    attributes["version"] = np.array([0.1])
    attributes["count"] = np.uint32(12)
    attributes["matrix"] = np.arange(6, dtype=">i2").reshape(2, 3)
    attributes["flag"] = True
    attributes["fixed"] = np.bytes_(b"[38:39,128:192]")
    attributes["text"] = "x µm"
    attributes["texts"] = ["y", "x", "c"]
    stored["gzip"].attrs["axes"] = "tzyx"

    other = root.create_group("other")
    other["opaque"] = np.void(b"\1\2\3\4")
    other["compound"] = np.zeros(2, [("a", "i4"), ("b", "f4")])
    other["soft"] = h5py.SoftLink("/numbers/u1")
    other["dangling"] = h5py.SoftLink("/gone")
    other["round"] = h5py.SoftLink("/other/round")
    other["outside"] = h5py.ExternalLink("/etc/passwd", "/x")
    other["up"] = root["/"]
    other["again"] = root["/stored"]
    other["type"] = np.dtype("i4")


def dense(root):
    """More attributes than fit into the header of the newest format."""
    attributes = root.create_group("many_attributes").attrs
    for index in range(20):
        attributes[f"a{index:02}"] = np.float32(index / 2)


def described(value):
    """Type, shape and values as our reader should find them."""
    if isinstance(value, h5py.Empty):
        return "f32", [0], []
    if isinstance(value, (str, bytes)):
        return "text", [], [value if isinstance(value, str) else value.decode()]
    value = np.asarray(value)
    if value.dtype.kind in "SOU":
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in value.ravel()]
        return "text", list(value.shape), text
    name = {"b": "bool", "i": "i", "u": "u", "f": "f"}.get(value.dtype.kind)
    if name is None:
        return None
    if name != "bool":
        name += str(8 * value.dtype.itemsize)
    return name, list(value.shape), value.ravel().tolist()


def contents(file):
    """Every dataset and attribute that hard links lead to, as (path, description)."""
    found = []

    def attributes(path, item):
        found.extend((f"{path}@{name}", described(item.attrs[name])) for name in item.attrs)

    def visit(name, item):
        attributes("/" + name, item)
        if isinstance(item, h5py.Dataset):
            found.append(("/" + name, described(item[()])))

    attributes("/", file)
    file.visititems(visit)
    return sorted((path, description) for path, description in found if description)


def digest(file):
    """One number for all values of a project."""
    formats = {"bool": "u1", **{f"{k}{8 * n}": f"<{k}{n}" for k in "iu" for n in (1, 2, 4, 8)}, "f32": "<f4", "f64": "<f8"}
    total = hashlib.sha256()
    for path, (kind, shape, values) in contents(file):
        data = "\0".join(values).encode() if kind == "text" else np.array(values, formats[kind]).tobytes()
        line = f"{path} {kind} {shape} {hashlib.sha256(data).hexdigest()}\n"
        total.update(line.encode())
    return {"values": len(contents(file)), "sha256": total.hexdigest()}


def main():
    if sys.argv[1:2] == ["ilastik"]:
        projects = {path.name: digest(h5py.File(path)) for path in sorted(pathlib.Path(sys.argv[2]).glob("*.ilp"))}
        (HERE / "ilastik.json").write_text(json.dumps(projects, indent=1) + "\n")
        return
    expected = {}
    for name, libver in [("values", "earliest"), ("latest", "latest")]:
        path = HERE / f"{name}.h5"
        with h5py.File(path, "w", libver=libver) as file:
            fill(file)
            dense(file)
        with h5py.File(path) as file:
            listed = contents(file)
        entries = [json.dumps([p, *d], ensure_ascii=False) for p, d in listed]
        expected[name] = entries
    assert expected["values"] == expected["latest"]
    (HERE / "values.json").write_text("[\n" + ",\n".join(expected["values"]) + "\n]\n")


main()
