#!/usr/bin/env bash
# Creates the Python environment that `make bench` compares with, in the cache folder: `make peers`. Nothing else needs it.
# PYTHON chooses another Python than python3, if the pinned packages have no wheels for that one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

peers=$cache/peers
python=${PYTHON:-python3}
index=${ELEPHANT_PYPI_INDEX:+--index-url=$ELEPHANT_PYPI_INDEX}

if [ ! -e "$peers/ready" ]; then
    need_packages "$python=python3" gcc=gcc objdump=binutils
    "$python" -c 'import ensurepip' 2>/dev/null || need_packages "venv=python3-venv"
    make_cache_folder
    need_space "$cache" 3000 "the Python environment" "Free some space, or choose a folder on another disk with ELEPHANT_CACHE"
    rm -rf "$peers"
    say "installing torch, zarr, scikit-image and what they need into $peers (1 GB to download)"
    "$python" -m venv "$peers"
    pip=("$peers/bin/python" -m pip --quiet --disable-pip-version-check install --only-binary=:all: ${index:+"$index"})
    if ! "${pip[@]}" -r benches/peers/requirements.txt </dev/null ||
        ! "${pip[@]}" --no-deps torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 </dev/null; then
        die "pip could not install what benches/peers/requirements.txt and torch 2.11.0 ask for" \
            "If this Python is too new for them, choose another one:  PYTHON=python3.12 make peers"
    fi
    site=$("$peers/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    "$peers/bin/python" benches/peers/torch_without_cuda.py "$site" >/dev/null
    "$peers/bin/python" -c 'import h5py, numcodecs, scipy, skimage, tifffile, torch, zarr; torch.nn.Conv3d(1, 1, 3)(torch.ones(1, 1, 4, 4, 4))'
    ln -s bin "$peers/ready" # marks the environment as complete; the Makefile looks for it
fi
say "ready: ELEPHANT_PEER_PYTHON=$peers/bin/python, which make bench uses by default"
