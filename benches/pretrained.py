#!/usr/bin/env python3
"""Evaluates the built-in networks without tags, over HTTP: F1 of the cells' centres.

    python benches/pretrained.py target/release/elephant-server [--seeds 101 102 103] [--movie DIR ...] [--plane IMAGE.tif MASK.tif]

Data: demo movies of the given seeds; folders with a BigDataViewer movie and spots_ctc.json; a 2-D image with an instance
mask. A detection counts within half a cell radius of a true centre (the whole radius in 2-D), each
once. Needs numpy, scipy, h5py and, for images, tifffile.
"""
import argparse
import json
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import h5py
import numpy as np
from learning import Server, matches


def keep_axials(scales):
    return sum(scales[2] / scales[0] >= bound for bound in (2, 3, 6, 12))


def predict(server, dataset, t, scales, **more):
    body = dict(dataset_name=dataset, timepoint=t, scales=scales, n_keep_axials=keep_axials(scales), is_3d=True, c_ratio=0.4,
                p_thresh=0.5, r_min=1, r_max=50, model_name="detection.pth") | more
    return server.post("/seg/predict", **body)["spots"]


def report(name, frames):
    hits = sum(len(matches(found, cells)) for found, cells in frames)
    found, cells = (sum(len(frame[i]) for frame in frames) for i in (0, 1))
    sizes = [size for frame in frames for size in matches(*frame)]
    print(f"{name}: F1 {2 * hits / max(found + cells, 1):.3f}, precision {hits / max(found, 1):.3f}, recall {hits / cells:.3f}, "
          f"found radius {np.median(sizes or [0]):.2f} of the true one; {cells} cells in {len(frames)} frames", flush=True)


def movie(server, workspace, name, h5, scales, truth):
    folder = workspace / "datasets" / name
    folder.mkdir(parents=True)
    shutil.copy(h5, folder / f"{name}.h5")
    server.post("/dataset/generate", dataset_name=name)
    times = sorted({cell["t"] for cell in truth})
    report(name, [(predict(server, name, t, scales), [cell for cell in truth if cell["t"] == t]) for t in times])


def plane(server, workspace, image, mask):
    import tifffile

    pixels, labels = tifffile.imread(image), tifffile.imread(mask)
    folder = workspace / "datasets" / "plane"
    folder.mkdir(parents=True)
    with h5py.File(folder / "plane.h5", "w") as file:
        file["s00/resolutions"] = np.ones((1, 3))
        file["s00/subdivisions"] = np.array([[64, 64, 1]], np.int32)
        file.create_dataset("t00000/s00/0/cells", data=pixels[None].astype(np.int16), chunks=(1, 64, 64), compression="gzip")
    server.post("/dataset/generate", dataset_name="plane", is_2d=True)
    cells = []
    for label in np.unique(labels[labels > 0]):
        y, x = np.nonzero(labels == label)
        # Four times the covariance, so that the radius is that of a disc of this area and matches() allows all of it.
        variance = 4 * len(y) / np.pi
        cells.append(dict(t=0, pos=[x.mean(), y.mean(), 0.0], covariance=np.diag([variance, variance, variance]).ravel()))
    found = predict(server, "plane", 0, [1.0, 1.0, 1.0], is_3d=False, model_name="detection-2d.pth")
    report(Path(image).name, [(found, cells)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--seeds", type=int, nargs="*", default=[101, 102, 103])
    parser.add_argument("--movie", type=Path, nargs="*", default=[])
    parser.add_argument("--plane", type=Path, nargs=2)
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        server = Server(options.binary, workspace, rest)
        try:
            if options.plane:
                plane(server, workspace, *options.plane)
            for seed in options.seeds:
                made = Path(folder) / f"demo-{seed}"
                subprocess.run([options.binary, "demo", made, "--name", "movie", "--seed", str(seed)], check=True, capture_output=True)
                movie(server, workspace, f"demo-{seed}", made / "movie.h5", [0.5, 0.5, 2.0], json.loads((made / "spots.json").read_text())["spots"])
            for made in options.movie:
                xml = next(made.glob("*.xml"))
                scales = [float(n) for n in ElementTree.parse(xml).find(".//voxelSize/size").text.split()]
                movie(server, workspace, made.name, next(made.glob("*.h5")), scales, json.loads((made / "spots_ctc.json").read_text()))
        finally:
            server.process.terminate()


if __name__ == "__main__":
    main()
