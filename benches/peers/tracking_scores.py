"""Scores of trackers on the detections of tracking_detections.py, all on the same ones, by py-ctcmetrics.

    python tracking_scores.py optimal,nearest,greedy,laptrack,ilp 'OUT/small*.pkl'

"optimal" and "nearest" are what the example `tracking_peer` has written beside the detections; "greedy" (the client's linking), "laptrack" and
"ilp" are run here. Columns: means over the movies of link F1, division F1 with a tolerance of one frame, CHOTA, TRA, division
F1 without tolerance, divisions found / true. Needs numpy, scipy, h5py, py-ctcmetrics and laptrack.
"""
import collections, glob, json, os, pickle, sys
import numpy as np
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../shared/tools"))
import tracking_prototype as P


def edges(dets,links):
    off=np.cumsum([0]+[len(d["pos"]) for d in dets]); f=lambda g:(int(np.searchsorted(off,g,"right")-1),int(g-off[np.searchsorted(off,g,"right")-1]))
    return [(f(l[0]),f(l[1])) for l in links]
def one(base,method):
    D,dets=pickle.load(open(base+".pkl","rb"))
    single=False
    if method=="greedy": E=P.elephant(dets,{1:5,2:7,3:9}[int(base.split("_s")[1][0])]); single=True
    elif method=="laptrack": E=P.lap(dets,{1:5,2:7,3:9}[int(base.split("_s")[1][0])]); single=True
    elif method=="ilp": E=P.ilp(dets)
    else:
        E=edges(dets,json.load(open(f"{base}.{method}.links.json"))); single=method=="nearest"
    return P.score(D,dets,E,keep_single=single)
if __name__=="__main__":
    methods=sys.argv[1].split(","); acc=collections.defaultdict(list)
    for pkl in sorted(sum((glob.glob(a) for a in sys.argv[2:]),[])):
        base=pkl[:-4]; nm,s,n=base.split("/")[-1].split("_")
        for m in methods:
            try: r=one(base,m)
            except FileNotFoundError: continue
            acc[(m,nm[:5],s,n)].append([r["link"],r["div1"],r["CHOTA"],r["TRA"],r["div0"],r["ndiv"],r["gtdiv"]])
    for k in sorted(acc,key=lambda k:(k[1:],k[0])):
        a=np.array(acc[k]); print("%-9s %-6s %s %-8s n=%d link %.4f div1 %.3f CHOTA %.4f TRA %.4f div0 %.3f  ndiv %.0f/%.0f"%(*k,len(a),*a.mean(0)),flush=True)
