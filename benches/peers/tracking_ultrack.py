"""Links of Ultrack's integer program on the detections of tracking_detections.py.

    python tracking_ultrack.py 'OUT/small*.pkl'

Writes BASE.ultrack.links.json beside each, for tracking_scores.py. The detections become nodes of Ultrack's database, and candidate
links its links, as its own linking stores them, with the weight 1 - (distance / reach)^2 of the centres instead of the overlap of
masks, which detections do not have. Ultrack's own tracking then selects nodes and links (penalties as in its documentation's
example for 3-D embryos: appearing and disappearing -0.1, division -0.1). Reach: 5 µm for every frame, 9 µm for every third, as for
the other peers. Needs ultrack (its default solver: Gurobi if it has a licence, otherwise CBC) and numpy and scipy.
"""
import glob, json, os, pickle, sys, tempfile
import numpy as np
import sqlalchemy as sqla
from scipy.spatial import cKDTree
from sqlalchemy.orm import Session
from ultrack.config import MainConfig
from ultrack.core.database import Base, LinkDB, NodeDB
from ultrack.core.solve.processing import solve

NEIGHBOURS = 5
APPEAR = float(os.environ.get("ULTRACK_APPEAR", "-0.1"))
DIVISION = float(os.environ.get("ULTRACK_DIVISION", "-0.1"))


def links(dets, reach, folder):
    config = MainConfig()
    config.data_config.working_dir = folder
    config.tracking_config.appear_weight = config.tracking_config.disappear_weight = APPEAR
    config.tracking_config.division_weight = DIVISION
    config.tracking_config.link_function = "identity"
    config.tracking_config.n_threads = 1
    if os.environ.get("ULTRACK_SOLVER"):
        config.tracking_config.solver_name = os.environ["ULTRACK_SOLVER"]
    config.data_config.metadata_add({"shape": [len(dets), 1000, 1000, 1000]})
    engine = sqla.create_engine(config.data_config.database_path)
    Base.metadata.create_all(engine)

    nodes, edges = [], []
    for t, det in enumerate(dets):
        for i, (x, y, z) in enumerate(det["pos"]):
            nodes.append(dict(id=len(nodes) + 1, t=t, t_node_id=i + 1, t_hier_id=1, z=float(z), y=float(y), x=float(x), area=1,
                              pickle=b""))
    offset = np.cumsum([0] + [len(det["pos"]) for det in dets])
    for t in range(len(dets) - 1):
        here, there = dets[t]["pos"], dets[t + 1]["pos"]
        if not len(here) or not len(there):
            continue
        distance, source = cKDTree(here).query(there, k=min(NEIGHBOURS, len(here)), distance_upper_bound=reach)
        distance, source = distance.reshape(len(there), -1), source.reshape(len(there), -1)
        for target, k in zip(*np.nonzero(np.isfinite(distance))):
            weight = 1.0 - (distance[target, k] / reach) ** 2
            edges.append(dict(source_id=int(offset[t] + source[target, k] + 1), target_id=int(offset[t + 1] + target + 1),
                              weight=float(weight)))
    with Session(engine) as session:
        session.execute(sqla.insert(NodeDB), nodes)
        session.execute(sqla.insert(LinkDB), edges)
        session.commit()
    solve(config)
    with Session(engine) as session:
        found = session.query(NodeDB.parent_id, NodeDB.id).where(NodeDB.selected, NodeDB.parent_id > 0).all()
    return [[int(parent) - 1, int(child) - 1] for parent, child in found]


if __name__ == "__main__":
    for path in sorted(sum((glob.glob(pattern) for pattern in sys.argv[1:]), [])):
        _, dets = pickle.load(open(path, "rb"))
        reach = {1: 5.0, 2: 7.0, 3: 9.0}[int(os.path.basename(path).split("_s")[1][0])]
        with tempfile.TemporaryDirectory() as folder:
            found = links(dets, reach, folder)
        json.dump(found, open(path[:-4] + ".ultrack.links.json", "w"))
        print(path, len(found), flush=True)
