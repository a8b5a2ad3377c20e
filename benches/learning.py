#!/usr/bin/env python3
"""Training from a few tagged cells, over HTTP: takes the demo movie and a model with random parameters, tags spots in two
timepoints, trains for some minutes, and compares the detections in all other timepoints with the truth.

    python benches/learning.py target/release/elephant-server [--spots 10 20 40 60] [--minutes 10] [--chunks 1] [--built-in]

With --built-in, the built-in network is trained instead.

Prints one line for each number of spots: F1 (a detection counts within half a cell radius of a true centre, each once),
precision, recall, the median of found radii as a fraction of the true ones, and DET of py-ctcmetrics where it is installed
(detections are drawn as ellipsoids, which must cover more than half of a nucleus). Needs numpy and scipy.
"""
import argparse
import json
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

SCALES = [0.5, 0.5, 2.0]
TIMEPOINTS = [2, 9]
FIELDS = {"dataset_name": "elephant-demo", "model_name": "learning.pth", "scales": SCALES, "n_keep_axials": 2, "is_3d": True}


class Server:
    def __init__(self, binary, workspace, arguments):
        command = [binary, "serve", "--workspace", workspace, "--bind", "127.0.0.1:0", "--demo", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = next(line for line in self.process.stdout if "listens on" in line).split()[3]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def post(self, path, **body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error.status} {error.read().decode()}")

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as reply:
            return json.load(reply)


def tagged(truth, count, rng):
    """`count` true cells, tagged as by a client, half of them in each of the two timepoints."""
    spots = []
    for i, t in enumerate(TIMEPOINTS):
        cells = [cell for cell in truth if cell["t"] == t]
        for index in rng.permutation(len(cells))[: (count + i) // 2]:
            cell = cells[index]
            spots.append(dict(t=t, pos=cell["pos"], covariance=cell["covariance"], label=str(len(spots)), id=len(spots), tag="tp"))
    return spots


def radius(cell):
    return np.linalg.det(np.reshape(cell["covariance"], (3, 3))) ** (1 / 6)


def matches(found, cells):
    """For each true cell that was found, the found radius as a fraction of the true one."""
    if not found or not cells:
        return []
    distance = np.linalg.norm(np.array([f["pos"] for f in found])[:, None] - np.array([c["pos"] for c in cells])[None], axis=2)
    allowed = distance <= np.array([radius(c) / 2 for c in cells])[None]
    rows, columns = linear_sum_assignment(-allowed.astype(int))
    return [radius(found[r]) / radius(cells[c]) for r, c in zip(rows, columns) if allowed[r, c]]


def evaluate(server, truth, options):
    found_all = {}
    found_count = cell_count = 0
    sizes = []
    for t in sorted({cell["t"] for cell in truth} - set(TIMEPOINTS)):
        reply = server.post(
            "/seg/predict", **FIELDS, timepoint=t, c_ratio=options.c_ratio, p_thresh=options.p_thresh, r_min=1, r_max=8,
            is_pad=False, use_median=False, output_prediction=False)
        cells = [cell for cell in truth if cell["t"] == t]
        found_all[t] = reply["spots"]
        sizes += matches(reply["spots"], cells)
        found_count += len(reply["spots"])
        cell_count += len(cells)
    hits = len(sizes)
    precision, recall = hits / max(found_count, 1), hits / cell_count
    return 2 * hits / (found_count + cell_count), precision, recall, float(np.median(sizes or [0])), found_all


def det(found, movie):
    """DET of the Cell Tracking Challenge over the evaluated timepoints, with detections drawn as ellipsoids."""
    try:
        import tifffile
        from ctc_metrics.metrics import det as det_metric
    except ImportError:
        return None
    counts = dict(NS=0, FN=0, FP=0, num_vertices=0)
    for t, spots in found.items():
        truth = tifffile.imread(movie / "TRA" / f"mask{t:03}.tif")
        covered = coverage(truth, draw(spots, truth.shape))
        covering = set(covered.values())
        counts["num_vertices"] += len(np.unique(truth)) - 1
        counts["FN"] += len(np.unique(truth)) - 1 - len(covered)
        counts["FP"] += len(spots) - len(covering)
        counts["NS"] += len(covered) - len(covering)
    score = det_metric(**counts)
    return score["DET"] if isinstance(score, dict) else score


def draw(spots, shape):
    image = np.zeros(shape, np.uint16)
    scales = np.array(SCALES[::-1])
    for label, spot in enumerate(spots, 1):
        center = np.array(spot["pos"][::-1])
        inverse = np.linalg.inv(np.reshape(spot["covariance"], (3, 3))[::-1, ::-1])
        extent = np.sqrt(np.linalg.eigvalsh(np.linalg.inv(inverse)).max())
        low = np.maximum(np.floor((center - extent) / scales).astype(int), 0)
        high = np.minimum(np.ceil((center + extent) / scales).astype(int) + 1, shape)
        grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high)), indexing="ij"), -1) * scales - center
        inside = np.einsum("...i,ij,...j", grid, inverse, grid) < 1
        view = image[tuple(slice(a, b) for a, b in zip(low, high))]
        view[inside] = label
    return image


def coverage(truth, drawn):
    """For each true label the drawn one that covers more than half of it, where there is one."""
    pairs, counts = np.unique(np.stack([truth[truth > 0], drawn[truth > 0]]), axis=1, return_counts=True)
    sizes = dict(zip(*np.unique(truth, return_counts=True)))
    return {true: label for (true, label), n in zip(pairs.T, counts) if label > 0 and n > sizes[true] / 2}


def learn(server, truth, movie, count, options):
    rng = np.random.default_rng(options.seed)
    spots = tagged(truth, count, rng)
    server.post("/seg/reset", **{k: FIELDS[k] for k in ("model_name", "is_3d")}, url="built-in" if options.built_in else None, seed=options.seed,
                **({"dataset_name": "elephant-demo", "n_crops": 5, "crop_size": options.crop, "scales": SCALES, "n_keep_axials": 2} if options.prior else {}))
    trained = 0.0
    for chunk in range(options.chunks):
        seconds = 60 * options.minutes / options.chunks
        stop = threading.Timer(seconds, lambda: server.post("/state/process", state=0))
        stop.start()
        start = time.perf_counter()
        server.post("/seg/train", **FIELDS, spots=spots, crop_size=options.crop, lr=options.lr, batch_size=options.batch,
                    n_crops=options.crops, n_epochs=100000, aug_scale_factor_base=options.scale, aug_rotation_angle=options.rotation,
                    aug_contrast=options.contrast, class_weights=[1, 10, 10], false_weight=10, auto_bg_thresh=options.background,
                    c_ratio=options.c_ratio, log_interval=1, log_dir="learning", seed=options.seed + chunk)
        trained += time.perf_counter() - start
        stop.cancel()
        f1, precision, recall, size, found = evaluate(server, truth, options)
        job = server.get("/api/v1/jobs?kind=train&limit=1")[0]
        losses = server.get(f"/api/v1/jobs/{job['id']}")["losses"]
        score = det(found, movie) if chunk == options.chunks - 1 else None
        print(f"{count} spots, {trained:.0f} s, {len(losses)} points of loss, last {losses[-1]['loss']:.4f}: F1 {f1:.3f} precision {precision:.3f} recall {recall:.3f} radius {size:.2f}"
              + (f" DET {score:.3f}" if score is not None else ""), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--spots", type=int, nargs="+", default=[10, 20, 40, 60])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--chunks", type=int, default=1, help="evaluate after each of so many parts of the time")
    parser.add_argument("--crop", type=int, nargs=3, default=[96, 96, 16], help="x y z")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--crops", type=int, default=5)
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--rotation", type=float, default=0)
    parser.add_argument("--contrast", type=float, default=0.5)
    parser.add_argument("--background", type=float, default=0.1)
    parser.add_argument("--c-ratio", type=float, default=0.4)
    parser.add_argument("--p-thresh", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prior", action="store_true")
    parser.add_argument("--built-in", action="store_true")
    parser.add_argument("--server-arguments", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        movie = Path(folder) / "movie"
        subprocess.run([options.binary, "demo", movie], check=True, stdout=subprocess.DEVNULL)
        truth = json.loads((movie / "spots.json").read_text())["spots"]
        server = Server(options.binary, f"{folder}/workspace", options.server_arguments)
        try:
            for count in options.spots:
                learn(server, truth, movie, count, options)
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
