#!/usr/bin/env python3
"""Makes the files of this folder with PyTorch: python generate.py"""
import json
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def ramp(*shape, dtype=torch.float32):
    count = torch.Size(shape).numel()
    return (torch.arange(count) - count // 2).reshape(shape).to(dtype)


def all_types():
    names = "float32 float64 float16 bfloat16 int64 int32 int16 int8".split()
    state = OrderedDict((name, ramp(2, 3, dtype=getattr(torch, name)) / 1) for name in names[:4])
    state.update((name, ramp(2, 3, dtype=getattr(torch, name))) for name in names[4:])
    state["uint8"] = torch.arange(250, 256, dtype=torch.uint8)
    state["bool"] = torch.tensor([True, False])
    state["scalar"] = torch.tensor(1.5)
    state["empty"] = torch.zeros(0, 3)
    return state


def views():
    whole = ramp(4, 6)
    return OrderedDict(
        whole=whole,
        transposed=whole.t(),
        window=whole[1:3, 2:5],
        every_other=whole[::2, 1::3],
        expanded=whole[0, :1].expand(3, 1),
        channels_last=ramp(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    )


class RunsCommand:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def contents(member):
    return [[name, list(t.shape), t.to(torch.float64).flatten().tolist()] for name, t in member.items()]




def main():
    warnings.simplefilter("ignore")
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2))
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(ramp(*parameter.shape) / (index + 2))
    expected = {}

    def good(name, value, **options):
        torch.save(value, HERE / f"{name}.pth", **options)
        members = value if isinstance(value, list) else [value]
        expected[name] = [contents(member) for member in members]

    good("types", all_types())
    good("views", views())
    good("module", module.state_dict())
    good("parameters", OrderedDict(module.named_parameters()))
    good("plain_dict", dict(module.state_dict()))
    good("ensemble", [module.state_dict(), all_types()])
    good("protocol_4", module.state_dict(), pickle_protocol=4)
    good("legacy_types", all_types(), _use_new_zipfile_serialization=False)
    good("legacy_views", views(), _use_new_zipfile_serialization=False)
    good("legacy_ensemble", [module.state_dict(), views()], _use_new_zipfile_serialization=False)
    location_tag = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: "cuda:0"
    good("cuda", module.state_dict())
    good("legacy_cuda", module.state_dict(), _use_new_zipfile_serialization=False)
    torch.serialization.location_tag = location_tag
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")

    bad = {
        "bad_command": OrderedDict(weight=RunsCommand()),
        "bad_whole_module": module,
        "bad_training_state": {"model": module.state_dict(), "epoch": 3},
        "bad_number": 3.5,
        "bad_empty": OrderedDict(),
        "bad_numpy": OrderedDict(weight=ramp(2).numpy()),
    }
    for name, value in bad.items():
        torch.save(value, HERE / f"{name}.pth")
    torch.save(OrderedDict(weight=RunsCommand()), HERE / "bad_legacy_command.pth", _use_new_zipfile_serialization=False)
    (HERE / "bad_pickle_command.pth").write_bytes(pickle.dumps(RunsCommand()))
    with zipfile.ZipFile(HERE / "module.pth") as source, zipfile.ZipFile(HERE / "bad_compressed.pth", "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
