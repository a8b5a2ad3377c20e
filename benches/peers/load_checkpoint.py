#!/usr/bin/env python3
"""Loads checkpoints as Python servers do, but without running code from them (weights_only=True).

    python load_checkpoint.py

For each path on standard input one line of JSON: {"seconds": s, "members": [[[name, dtype, shape, bytes], …], …]}, bytes
in hexadecimal and left out of tensors of more than 1000 elements. Needs torch and numpy.
"""
import json
import sys
import time

import torch


def describe(name, tensor):
    content = tensor.flatten().view(torch.uint8).numpy().tobytes().hex() if tensor.numel() <= 1000 else ""
    return [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), content]


def main():
    for line in sys.stdin:
        start = time.perf_counter()
        loaded = torch.load(line.rstrip("\n"), weights_only=True)
        seconds = time.perf_counter() - start
        members = loaded if isinstance(loaded, list) else [loaded]
        described = [[describe(name, tensor) for name, tensor in member.items()] for member in members]
        print(json.dumps({"seconds": seconds, "members": described}), flush=True)


if __name__ == "__main__":
    main()
