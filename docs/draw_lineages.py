#!/usr/bin/env python3
"""Draws lineages over an embryo and as a tree, as in the README.

    elephant-server export DATASET tracks.csv --format napari
    python docs/draw_lineages.py tracks.csv MOVIE.h5 OUT.png [--scales X Y Z]

MOVIE.h5 must be the movie that DATASET was made of, frame for frame. The last frame is projected along z. Each lineage, a first
cell with all of its descendants, has one colour; the tails show where its cells were. Needs numpy, h5py and matplotlib.
"""
import argparse
import csv

import h5py
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("tracks", "movie", "out"):
    parser.add_argument(name)
parser.add_argument("--scales", type=float, nargs=3, default=[0.5, 0.5, 2.0], help="edges of a voxel along x, y, z in micrometres")
options = parser.parse_args()
dx, dy, _ = options.scales

tracks, parents = {}, {}
with open(options.tracks, newline="") as file:
    for row in csv.DictReader(file):
        number = int(row["track_id"])
        tracks.setdefault(number, []).append([float(row[name]) for name in "tzyx"])
        parents[number] = int(row["parent_track_id"])
tracks = {number: np.array(sorted(spots)) for number, spots in tracks.items()}
children = {number: sorted(child for child in tracks if parents[child] == number) for number in tracks}
roots = sorted((number for number in tracks if parents[number] not in tracks), key=lambda number: (tracks[number][0, 0], number))


def descendants(number):
    return [number] + [other for child in children[number] for other in descendants(child)]


# Lineages with divisions have colours, the others are grey.
dividing = [root for root in roots if children[root]]
wheel = plt.get_cmap("hsv")(np.linspace(0, 1, len(dividing), endpoint=False))
colors = {number: "#7d8597" for number in tracks}
for root, color in zip(dividing, wheel):
    colors.update((number, color) for number in descendants(root))

with h5py.File(options.movie) as file:
    timepoints = sorted(name for name in file if name[0] == "t")
    frame = file[f"{timepoints[-1]}/s00/0/cells"][:]
    frame = frame.view(np.uint16) if frame.dtype == np.int16 else frame
image = frame.max(axis=0)
height, width = image.shape

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), width_ratios=[1, 1.15], facecolor="#111")
left.imshow(image, cmap="gray", vmin=np.percentile(image, 5), vmax=np.percentile(image, 99.8), alpha=0.75,
            extent=(-dx / 2, (width - 0.5) * dx, (height - 0.5) * dy, -dy / 2))
for number, spots in tracks.items():
    before = tracks[parents[number]][-1:] if parents[number] in tracks else spots[:0]
    path = np.concatenate([before, spots])
    left.plot(path[:, 3], path[:, 2], color=colors[number], linewidth=1.2, alpha=0.9)
    if spots[-1, 0] == len(timepoints) - 1:
        left.plot(*spots[-1, [3, 2]], "o", color=colors[number], markersize=4)
left.set_title(f"{len(tracks)} tracks over the last frame", color="white", fontsize=10)
left.axis("off")

# Leaves stand side by side; a mother stands in the middle of her daughters.
places, leaves = {}, 0


def place(number):
    global leaves
    if children[number]:
        places[number] = np.mean([place(child) for child in children[number]])
    else:
        places[number] = leaves
        leaves += 1
    return places[number]


for root in dividing:
    place(root)
for number, at in places.items():
    first, last = tracks[number][[0, -1], 0]
    start = tracks[parents[number]][-1, 0] if parents[number] in tracks else first
    right.plot([at, at], [start, last], color=colors[number], linewidth=2, solid_capstyle="round")
    if children[number]:
        ends = [places[child] for child in children[number]]
        right.plot([min(ends), max(ends)], [last, last], color=colors[number], linewidth=2, solid_capstyle="round")
right.invert_yaxis()
right.set_facecolor("#111")
right.set_xticks([])
right.tick_params(colors="white")
for spine in right.spines.values():
    spine.set_visible(False)
right.set_ylabel("timepoint", color="white")
right.set_title(f"{len(dividing)} lineages with divisions", color="white", fontsize=10)
figure.tight_layout()
figure.savefig(options.out, dpi=110, facecolor=figure.get_facecolor())
