"""Makes small folders as the Cell Tracking Challenge has them, damages them in known ways, and records py-ctcmetrics' scores.

    python make_scores.py EMBRYO [PROTOTYPE]

EMBRYO has a `spots.csv` of the synthetic embryo `tiny`; PROTOTYPE is the folder of `tracking_prototype.py`, for
`spots.json`. Needs numpy, tifffile, py-ctcmetrics (and h5py and scipy for PROTOTYPE). Writes beside itself.
"""
import contextlib, csv, io, json, math, os, shutil, sys, warnings
from collections import Counter, defaultdict
import numpy as np, tifffile
from ctc_metrics.metrics import ALL_METRICS
from ctc_metrics.scripts import evaluate

HERE = os.path.dirname(os.path.abspath(__file__))


class Movie:
    """Cells with masks (flat voxel indices) and their parents."""

    def __init__(self, shape, frames):
        self.shape, self.frames, self.t, self.mask, self.parent = shape, frames, {}, {}, {}

    def copy(self):
        other = Movie(self.shape, self.frames)
        other.t, other.mask, other.parent = dict(self.t), dict(self.mask), dict(self.parent)
        return other

    def add(self, t, mask, parent=None):
        n = max(self.t, default=-1) + 1
        self.t[n], self.mask[n], self.parent[n] = t, mask, parent
        return n

    def children(self):
        out = defaultdict(list)
        for n in sorted(self.t):
            if self.parent[n] is not None:
                out[self.parent[n]].append(n)
        return out

    def remove(self, n, bridge=True):
        """Without a cell; its only child then comes from its parent, over a gap."""
        kids, up = self.children()[n], self.parent[n]
        for k in kids:
            self.parent[k] = up if bridge and len(kids) == 1 else None
        del self.t[n], self.mask[n], self.parent[n]

    def taken(self, t):
        out = np.zeros(int(np.prod(self.shape)), bool)
        for n in self.t:
            if self.t[n] == t:
                out[self.mask[n]] = True
        return out

    def tracks(self):
        kids, track, rows = self.children(), {}, []
        for n in sorted(self.t, key=lambda n: (self.t[n], n)):
            p = self.parent[n]
            if p is not None and len(kids[p]) == 1 and self.t[p] + 1 == self.t[n]:
                track[n] = track[p]
                rows[track[n] - 1][2] = self.t[n]
            else:
                rows.append([len(rows) + 1, self.t[n], self.t[n], track[p] if p is not None else 0])
                track[n] = len(rows)
        return track, rows

    def write(self, folder, table, relabel=lambda label, count: label):
        os.makedirs(folder)
        track, rows = self.tracks()
        new = {0: 0, **{row[0]: relabel(row[0], len(rows)) for row in rows}}
        rows = sorted([new[l], b, e, new[p]] for l, b, e, p in rows)
        with open(os.path.join(folder, table), "w") as f:
            f.writelines("%d %d %d %d\n" % tuple(row) for row in rows)
        for t in range(self.frames):
            image = np.zeros(int(np.prod(self.shape)), np.uint16)
            for n in sorted(self.t):
                if self.t[n] == t:
                    image[self.mask[n]] = new[track[n]]
            name = ("man_track" if table.startswith("man") else "mask") + "%03d.tif" % t
            tifffile.imwrite(os.path.join(folder, name), image.reshape(self.shape), compression="zlib", photometric="minisblack")


def ellipsoid(shape, voxel, centre, covariance):
    grid = np.stack(np.meshgrid(*[np.arange(n) * v for n, v in zip(shape, voxel)], indexing="ij"), -1).reshape(-1, 3) - centre
    return np.flatnonzero(np.einsum("ni,ij,nj->n", grid, np.linalg.inv(covariance), grid) <= 1)


def embryo(folder):
    """The embryo in voxels of 2 µm."""
    rows = list(csv.DictReader(open(os.path.join(folder, "spots.csv"))))
    movie = Movie((32, 24, 24), 8)
    name, order = {}, sorted(rows, key=lambda r: (int(r["t"]), int(r["id"])))
    for r in order:
        centre = np.array([float(r[c]) for c in "zyx"])
        covariance = np.array([[float(r["c%d%d" % (2 - a, 2 - b)]) for b in range(3)] for a in range(3)])
        mask = ellipsoid(movie.shape, (2, 2, 2), centre, covariance)
        mask = mask[~movie.taken(int(r["t"]))[mask]]
        assert len(mask)
        name[int(r["id"])] = movie.add(int(r["t"]), mask, name.get(int(r["parent"])))
    return movie


def colony():
    """A flat colony whose cells divide after two to four frames, so that there are whole cell cycles."""
    rng = np.random.default_rng(7)
    movie, places = Movie((1, 64, 64), 12), {}

    def paint(t, y, x):
        mask = ellipsoid(movie.shape, (1, 1, 1), np.array([0, y, x]), np.diag([1, 7.0, 7.0]))
        return mask[~movie.taken(t)[mask]]

    alive = []
    for y, x in ((16, 16), (44, 20), (24, 46)):
        n = movie.add(0, paint(0, y, x))
        places[n] = (y, x)
        alive.append((n, int(rng.integers(1, 4))))
    for t in range(1, 12):
        after = []
        for n, wait in alive:
            y, x = places[n]
            angle = rng.uniform(0, 2 * math.pi)
            for side in (1, -1) if wait == 0 else (0,):
                place = np.clip((y + side * 3.2 * math.sin(angle) + rng.normal() * 0.7, x + side * 3.2 * math.cos(angle) + rng.normal() * 0.7), 3, 60)
                mask = paint(t, *place)
                if len(mask) < 8:
                    continue
                m = movie.add(t, mask, n)
                places[m] = place
                after.append((m, wait - 1 if wait else int(rng.integers(2, 5))))
        alive = after
    return movie


def at(movie, t):
    return [n for n in sorted(movie.t) if movie.t[n] == t]


def pick(movie, rng, share):
    return [n for n in sorted(movie.t) if rng.random() < share]


def missed(movie, rng, share=0.08, bridge=False):
    for n in pick(movie, rng, share):
        movie.remove(n, bridge)


def spurious(movie, rng, count=8, longest=3):
    size = np.array(movie.shape)
    for _ in range(count):
        last, start = None, int(rng.integers(0, movie.frames - 1))
        centre = rng.uniform(0, size)
        for t in range(start, min(movie.frames, start + int(rng.integers(1, longest + 1)))):
            mask = ellipsoid(movie.shape, (1, 1, 1), centre, np.diag([3.0, 3.0, 3.0]))
            mask = mask[~movie.taken(t)[mask]]
            if len(mask):
                last = movie.add(t, mask, last)


def swapped(movie, rng, count=4):
    for _ in range(count):
        cells = at(movie, int(rng.integers(1, movie.frames)))
        if len(cells) < 2:
            continue
        a, b = rng.choice(cells, 2, replace=False)
        movie.parent[a], movie.parent[b] = movie.parent[b], movie.parent[a]


def split(movie, rng, share=0.08):
    for n in pick(movie, rng, share):
        mask = movie.mask[n]
        if len(mask) > 3:
            cut = int(len(mask) * rng.choice([0.5, 0.3]))
            movie.mask[n], half = mask[cut:], mask[:cut]
            movie.add(movie.t[n], half)


def merged(movie, rng, count=6):
    for _ in range(count):
        cells = at(movie, int(rng.integers(0, movie.frames)))
        if len(cells) < 2:
            continue
        a, b = rng.choice(cells, 2, replace=False)
        movie.mask[a] = np.union1d(movie.mask[a], movie.mask[b])
        movie.remove(b, bool(rng.integers(0, 2)))


def divisions(movie):
    return [(n, kids) for n, kids in sorted(movie.children().items()) if len(kids) == 2]


def late(movie, frames=1):
    for i, (n, (a, b)) in enumerate(divisions(movie)):
        for _ in range(frames):
            kids = movie.children()
            if i % 3 == 2 or len(kids[a]) != 1 or len(kids[b]) != 1:
                break
            below = kids[b][0]
            movie.parent[below] = a
            movie.mask[a] = np.union1d(movie.mask[a], movie.mask[b])
            del movie.t[b], movie.mask[b], movie.parent[b]
            a, b = kids[a][0], below


def early(movie):
    for i, (n, (a, b)) in enumerate(divisions(movie)):
        if movie.parent[n] is None or i % 3 == 2:
            continue
        mask = movie.mask[n]
        movie.mask[n] = mask[: len(mask) // 2]
        movie.parent[b] = movie.add(movie.t[n], mask[len(mask) // 2:], movie.parent[n])


def undivided(movie):
    for n, (a, b) in divisions(movie)[::2]:
        movie.parent[b] = None


def false_divisions(movie, rng, count=4):
    roots = [n for n in sorted(movie.t) if movie.parent[n] is None and movie.t[n] > 0]
    for n in rng.permutation(roots)[:count]:
        before = at(movie, movie.t[n] - 1)
        if before:
            movie.parent[n] = rng.choice(before)


def shifted(movie, rng):
    for n in sorted(movie.t):
        z, y, x = np.unravel_index(movie.mask[n], movie.shape)
        moved = np.ravel_multi_index((z, y, np.clip(x + int(rng.integers(0, 3)), 0, movie.shape[2] - 1)), movie.shape)
        movie.mask[n] = np.unique(moved)


def without_frame(movie, t):
    for n in at(movie, t):
        movie.remove(n, True)


def unlinked(movie):
    for n in movie.t:
        movie.parent[n] = None


def everything(movie, rng):
    shifted(movie, rng); early(movie); missed(movie, rng, 0.06, True); missed(movie, rng, 0.04); merged(movie, rng, 3)
    split(movie, rng, 0.04); spurious(movie, rng, 4); swapped(movie, rng, 3); false_divisions(movie, rng, 3)


CASES = {
    "perfect": lambda m, r: None,
    "missed": missed,
    "gaps": lambda m, r: missed(m, r, 0.12, True),
    "spurious": spurious,
    "swapped": swapped,
    "split": split,
    "merged": merged,
    "late": lambda m, r: late(m),
    "late2": lambda m, r: late(m, 2),
    "early": lambda m, r: early(m),
    "undivided": lambda m, r: undivided(m),
    "false_divisions": lambda m, r: (missed(m, r), false_divisions(m, r)),
    "shifted": shifted,
    "empty_frame": lambda m, r: without_frame(m, 3),
    "unlinked": lambda m, r: unlinked(m),
    "reversed": lambda m, r: (swapped(m, r), late(m)),
    "mixed1": everything, "mixed2": everything, "mixed3": everything,
}


def mostly(res, gt):
    """MT and ML by their definition: py-ctcmetrics counts the frames in which a track is missed as a track that follows it."""
    _, ref, traj, _, _, _ = evaluate.load_data(res, gt, True, False, 1)
    _, labels, mapped = evaluate.merge_tracks(ref, traj["labels_ref"], traj["mapped_ref"])
    comp = evaluate.read_tracking_file(os.path.join(res, "res_track.txt"))
    _, _, mapped_comp = evaluate.merge_tracks(comp, traj["labels_comp"], traj["mapped_comp"])
    total, follows = Counter(), defaultdict(Counter)
    for frame, a, b in zip(labels, mapped, mapped_comp):
        total.update(int(x) for x in frame)
        for x, y in zip(a, b):
            follows[int(x)][int(y)] += 1
    best = [max(follows[x].values(), default=0) / total[x] for x in total]
    return sum(b >= 0.8 for b in best) / len(best), sum(b < 0.2 for b in best) / len(best)


def number(value):
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else float(value)


def record():
    expected = {}
    for name, movie in (("embryo", embryo(sys.argv[1])), ("colony", colony())):
        root = os.path.join(HERE, name)
        shutil.rmtree(root, ignore_errors=True)
        gt = os.path.join(root, "GT")
        movie.write(os.path.join(gt, "TRA"), "man_track.txt")
        os.makedirs(os.path.join(gt, "SEG"))
        for t in (1, 4, 7):
            image = tifffile.imread(os.path.join(gt, "TRA", "man_track%03d.tif" % t)).reshape(movie.shape)
            image = np.where(image > 0, 200 - image, 0).astype(np.uint16)
            tifffile.imwrite(os.path.join(gt, "SEG", "man_seg%03d.tif" % t), image, compression="zlib", photometric="minisblack")
        for seed, (case, damage) in enumerate(CASES.items()):
            if name == "embryo" and case not in ("perfect", "missed", "split", "merged", "shifted", "empty_frame", "mixed1"):
                continue
            other, res = movie.copy(), os.path.join(root, case)
            damage(other, np.random.default_rng(seed))
            reverse = (lambda label, count: count + 1 - label) if case == "reversed" else (lambda label, count: label)
            other.write(res, "res_track.txt", reverse)
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores = evaluate.evaluate_sequence(res, gt, list(ALL_METRICS), threads=1)
            scores = {key: number(value) for key, value in scores.items()}
            scores["MT_defined"], scores["ML_defined"] = mostly(res, gt)
            expected["%s/%s" % (name, case)] = scores
            print(name, case, {k: round(v, 4) for k, v in scores.items() if v is not None and k in ("DET", "SEG", "TRA", "LNK", "CHOTA", "TF", "CT", "BC(0)", "BC(1)", "CCA", "Valid")})
    json.dump(expected, open(os.path.join(HERE, "expected.json"), "w"), indent=1)


def record_spots():
    """Spots, links, and what the prototype's scorer says about them."""
    sys.path.insert(0, sys.argv[2])
    import tracking_prototype as prototype
    rows = list(csv.DictReader(open(os.path.join(sys.argv[1], "spots.csv"))))
    frames, where = [], {}
    for t in range(8):
        here = [r for r in rows if int(r["t"]) == t]
        pos = np.array([[float(r[c]) for c in "zyx"] for r in here])
        cov = np.array([[[float(r["c%d%d" % (a, b)]) for b in (2, 1, 0)] for a in (2, 1, 0)] for r in here])
        for i, r in enumerate(here):
            where[int(r["id"])] = (t, i)
        frames.append(dict(pos=pos, cov=cov, lr=np.linalg.slogdet(cov)[1] / 6))
    truth = dict(frames=frames, links=[(where[int(r["parent"])], where[int(r["id"])]) for r in rows if int(r["parent"]) >= 0])
    cases = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        noise, miss, wrong = (0, 0.15, 0.4, 0.7)[seed % 4], (0, 0.08, 0.15)[seed % 3], (0, 0.05, 0.1)[seed // 4]
        dets, name = [], {}
        for t, frame in enumerate(frames):
            keep = [i for i in range(len(frame["pos"])) if rng.random() >= miss]
            pos = frame["pos"][keep] + rng.normal(size=(len(keep), 3)) * noise * np.exp(frame["lr"][keep])[:, None] / math.sqrt(3)
            extra = rng.uniform(frame["pos"].min(0), frame["pos"].max(0), (rng.binomial(len(keep), miss), 3))
            name.update({(t, i): (t, k) for k, i in enumerate(keep)})
            dets.append(dict(pos=np.vstack([pos, extra])))
        parent = {b: a for a, b in truth["links"]}
        edges = {}
        for b, new in name.items():
            a = parent.get(b)
            if a is not None and a not in name:
                a = parent.get(a)  # over a gap
            if a in name and rng.random() >= wrong:
                edges[new] = name[a]
            elif b[0] and wrong and rng.random() < 0.5:
                edges[new] = (b[0] - 1, int(rng.integers(len(dets[b[0] - 1]["pos"]))))
        # Where a cell and its parent are both missed, two cells may seem to come from one over the gap.
        edges = [(a, b) for b, a in sorted(edges.items())]
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = {keep: prototype.score(truth, dets, edges, keep_single=keep) for keep in (True, False)}
        print("spots", seed, scores[False])
        cases.append(dict(spots=[d["pos"].tolist() for d in dets], links=[[*a, *b] for a, b in edges],
                          all={k: number(v) for k, v in scores[True].items()}, linked={k: number(v) for k, v in scores[False].items()}))
    reference = dict(spots=[f["pos"].tolist() for f in frames], covariances=[f["cov"].tolist() for f in frames],
                     links=[[*a, *b] for a, b in truth["links"]])
    json.dump(dict(reference=reference, cases=cases), open(os.path.join(HERE, "spots.json"), "w"))


record()
if len(sys.argv) > 2:
    record_spots()
