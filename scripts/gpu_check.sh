#!/usr/bin/env bash
# Tests what was built on this machine on another one that has an NVIDIA GPU and a Python with torch 2.11.0, but no Rust.
#
#   here:   scripts/gpu_check.sh pack FOLDER    puts the release binary and elephant-nn's tests into FOLDER
#   there:  scripts/gpu_check.sh run FOLDER     in a copy of this checkout: runs them against that torch's libtorch
#
# PYTHON is the Python with torch there, if it is not python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

pack() {
    local test
    mkdir -p "$1/tests"
    say "building"
    cargo build --quiet --release
    strip -o "$1/elephant-server" "${CARGO_TARGET_DIR:-target}/release/elephant-server"
    while read -r test; do
        strip -o "$1/tests/$(basename "$test")" "$test"
    done < <(cargo test --quiet --release -p elephant-nn --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    pwd >"$1/checkout"
    say "packed: $(du -sh "$1" | cut -f1) in $1"
}

run() {
    local python=${PYTHON:-python3} built test failed=0
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || die "this machine has no working NVIDIA GPU"
    LD_LIBRARY_PATH=$("$python" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))') ||
        die "$python has no torch" "Choose one that has it:  PYTHON=/some/python scripts/gpu_check.sh run $1"
    export LD_LIBRARY_PATH
    "$python" -c 'import torch; print("torch", torch.__version__, "sees", torch.cuda.device_count(), "GPUs")'
    # The tests look for their files where they were built.
    built=$(<"$1/checkout")
    [ -e "$built" ] || { mkdir -p "$(dirname "$built")" && ln -s "$PWD" "$built"; }
    for test in "$1"/tests/*; do
        say "$(basename "$test")"
        "$test" --quiet --test-threads=1 || failed=1
    done
    serve_once "$1/elephant-server" "$python" || failed=1
    [ $failed -eq 0 ] || die "some checks failed: see above"
}

# Starts the server on the GPU and prints the devices that it reports.
serve_once() {
    local workspace server status=0
    workspace=$(mktemp -d)
    say "server: GET /state/gpus"
    "$1" serve --workspace "$workspace" --bind 127.0.0.1:18080 --device cuda &
    server=$!
    "$2" - <<'PYTHON' || status=$?
import time, urllib.request

for attempt in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:18080/state/gpus", timeout=5).read().decode())
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("the server did not answer in 10 seconds")
PYTHON
    kill "$server" && wait "$server" || status=$?
    rm -rf "$workspace"
    return $status
}

case ${1:-} in
pack | run) "$1" "${2:?which folder?}" ;;
*) die "usage: scripts/gpu_check.sh pack|run FOLDER" ;;
esac
