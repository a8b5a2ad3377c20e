"""Noisy detections of synthetic embryos with their truth, for fitting and for comparing trackers.

    python tracking_detections.py MOVIES OUT train|test small101 small102 ...

MOVIES has a folder for each movie, made by ../shared/tools/make_embryo.py. OUT gets files for the example `tracking_peer` of
elephant-track (spots, intensities, parents), and for "test" also pickles for tracking_scores.py. Noise: a % missed, b %
spurious (half of them 0.8 to 1.6 radii from a cell, half anywhere), jitter in radii. Intensities are the mean of 3 x 3 x 3 voxels
minus 100, the camera offset. Needs numpy, scipy, h5py and py-ctcmetrics.
"""
import json, os, pickle, sys
import numpy as np
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../shared/tools"))
import tracking_prototype as P

SET = dict(perfect=(0, 0, 0), n5=(.05, .05, 0), n10=(.1, .1, 0), j10=(.1, .1, .5))
TR = dict(perfect=(0, 0, 0), n5=(.05, .05, 0), n5j=(.05, .05, .1), n10=(.1, .1, 0), n10j=(.1, .1, .25), j10=(.1, .1, .5))


def degrade(D,miss,spur,jit,seed,rad_noise=.08):
    rng=np.random.default_rng(seed); out=[]
    for fr in D["frames"]:
        n=len(fr["pos"]); keep=rng.random(n)>=miss
        r=np.exp(fr["lr"]); pos=fr["pos"]+rng.normal(size=(n,3))*(jit*r/np.sqrt(3))[:,None]
        lr=fr["lr"]+(rng.normal(size=n)*rad_noise if (miss or spur or jit) else 0)
        ns=rng.binomial(n,spur); near=rng.random(ns)<.5; src=rng.integers(0,n,ns)
        u=rng.normal(size=(ns,3)); u/=np.linalg.norm(u,axis=1,keepdims=True)+1e-9
        sp=np.where(near[:,None],fr["pos"][src]+u*(r[src]*rng.uniform(.8,1.6,ns))[:,None],rng.uniform(fr["pos"].min(0),fr["pos"].max(0),(ns,3)))
        Pp=np.vstack([pos[keep],sp]); L=np.r_[lr[keep],np.log(np.median(r))+rng.normal(size=ns)*.2]
        o=rng.permutation(len(Pp)); g=np.r_[np.nonzero(keep)[0],-np.ones(ns,int)][o]; Pp=Pp[o]; L=L[o]; I=P.intensity(fr,Pp,D["vox"])
        raw=np.exp(I)
        out.append(dict(pos=Pp,lr=L,li=I-np.median(I),gt=g,raw=raw))
    return out
def dump(D,dets,path):
    par={b:a for a,b in D["links"]}; idx={}; k=0; spots=[]; inten=[]; parents=[]
    for t,d in enumerate(dets):
        for i in range(len(d["pos"])):
            if d["gt"][i]>=0: idx[(t,int(d["gt"][i]))]=k
            k+=1
    for t,d in enumerate(dets):
        for i in range(len(d["pos"])):
            v=float(np.exp(2*d["lr"][i])); x,y,z=map(float,d["pos"][i])
            spots.append(dict(t=t,center_um=[z,y,x],covariance_um2=[[v,0,0],[0,v,0],[0,0,v]],quality=1.0)); inten.append(float(d["raw"][i]))
            p=-1
            if d["gt"][i]>=0:
                a=par.get((t,int(d["gt"][i])))
                while a is not None and a not in idx: a=par.get(a)
                if a is not None: p=idx[a]
            parents.append(p)
    json.dump(dict(spots=spots,intensities=inten,parents=parents),open(path,'w'))
if __name__=="__main__":
    movies, out, mode = sys.argv[1:4]; os.makedirs(out,exist_ok=True)
    for nm in sys.argv[4:]:
        for step in ((1,2,3) if mode=="train" else (1,3)):
            D=P.load(os.path.join(movies, nm), step)
            for k,(n,(a,b,c)) in enumerate((TR if mode=="train" else SET).items()):
                if mode=="train" and step==2 and n in("n5","n10j"): continue
                dets=degrade(D,a,b,c,1000*step+k+(7 if mode=="train" else 100)); base=f"{out}/{nm}_s{step}_{n}"
                dump(D,dets,base+".json")
                if mode!="train":
                    pickle.dump((dict(frames=[{k:v for k,v in f.items() if k!="img"} for f in D["frames"]],links=D["links"]),dets),open(base+".pkl","wb"))
