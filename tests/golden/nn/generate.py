#!/usr/bin/env python3
"""Makes the files of this folder with PyTorch: python generate.py

Weights and images are numbers that the test computes too: number i of stream s is the 24 highest bits of SplitMix64's
output for the state (s << 32) + i, as a fraction of 1.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "benches/peers"))
from unet_forward import UNet, predict_all  # noqa: E402
from unet_train import segmentation_loss  # noqa: E402

CASES = [
    # name, ndim, shape, patch, n_keep_axials, is_pad, members
    ("volume", 3, [8, 32, 32], None, 4, False, 1),
    ("volume_padded", 3, [8, 32, 32], None, 2, True, 1),
    ("volume_resized", 3, [7, 21, 34], None, 1, False, 1),
    ("volume_tiled", 3, [11, 40, 37], [6, 16, 25], 3, True, 1),
    ("volume_ensemble", 3, [4, 16, 32], None, 3, False, 2),
    ("plane", 2, [1, 48, 32], None, 4, False, 1),
    ("plane_tiled", 2, [1, 45, 70], [1, 32, 32], 4, True, 1),
    ("planes_of_a_volume", 2, [3, 33, 20], None, 4, True, 2),
]


def numbers(stream, count):
    with np.errstate(over="ignore"):
        z = (np.uint64(stream) << np.uint64(32)) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def network(ndim, member):
    """Convolutions uniform with variance 2 / fan-in; norm weights in 0.75..1.25; biases in -0.25..0.25."""
    made = UNet(ndim).eval()
    state = made.state_dict()
    for index, (name, tensor) in enumerate(state.items()):
        centred = 2 * numbers(1000 * member + index, tensor.numel()) - 1
        if tensor.ndim > 1:
            values = centred * np.sqrt(6 / tensor[0].numel())
        else:
            values = 0.25 * centred + (1 if name.endswith("weight") else 0)
        state[name] = torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape)
    made.load_state_dict(state)
    return made


def adam_step(ndim, shape, n_keep_axials):
    """Loss and parameters after one step of Adam (1e-3). Labels are whole numbers of 0 to 6, from stream 9100."""
    made = network(ndim, 0)
    images = torch.from_numpy(numbers(9101, np.prod(shape)).astype(np.float32)).reshape(shape)[:, None]
    labels = torch.from_numpy((7 * numbers(9100, np.prod(shape))).astype(np.int64)).reshape(shape)
    if ndim == 2:
        images, labels = images[:, :, 0], labels[:, 0]
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3)
    loss = segmentation_loss(made(images, [level < n_keep_axials for level in range(4)], False), labels - 1)
    loss.backward()
    optimizer.step()
    state = made.state_dict().items()
    parameters = {
        name: dict(norm=t.double().norm().item(), first=t.flatten()[:3].tolist(), last=t.flatten()[-3:].tolist())
        for name, t in state
    }
    return dict(ndim=ndim, shape=shape, n_keep_axials=n_keep_axials, loss=loss.item(), parameters=parameters)


def gradients(ndim, shape, n_keep_axials):
    """Loss and gradients by the parameters of `adam_step`, in double precision: of each parameter's gradient the norm and
    the dot product with numbers of -1 to 1, from stream 9102."""
    made = network(ndim, 0).double()
    images = torch.from_numpy(numbers(9101, np.prod(shape))).float().double().reshape(shape)[:, None]
    labels = torch.from_numpy((7 * numbers(9100, np.prod(shape))).astype(np.int64)).reshape(shape)
    if ndim == 2:
        images, labels = images[:, :, 0], labels[:, 0]
    loss = segmentation_loss(made(images, [level < n_keep_axials for level in range(4)], False), labels - 1)
    loss.backward()
    parameters = {
        name: dict(
            norm=p.grad.norm().item(),
            dot=(p.grad.flatten().numpy() * (2 * numbers(9102, p.numel()) - 1)).sum().item(),
        )
        for name, p in made.named_parameters()
    }
    return dict(ndim=ndim, shape=shape, n_keep_axials=n_keep_axials, loss=loss.item(), gradients=parameters)


def main():
    torch.set_num_threads(1)
    derivatives = [gradients(*case) for case in [(3, [2, 8, 32, 32], 2), (3, [3, 8, 32, 32], 0), (2, [2, 1, 32, 48], 4)]]
    (HERE / "gradients.json").write_text(json.dumps(derivatives) + "\n")
    steps = [adam_step(3, [2, 8, 32, 32], 2), adam_step(2, [2, 1, 32, 48], 4)]
    (HERE / "adam_step.json").write_text(json.dumps(steps) + "\n")
    cases = []
    for number, (name, ndim, shape, patch, n_keep_axials, is_pad, members) in enumerate(CASES):
        image = torch.from_numpy(numbers(9000 + number, np.prod(shape)).astype(np.float32)).reshape(shape)
        networks = [network(ndim, member) for member in range(members)]
        with torch.inference_mode():
            result = predict_all(networks, image, patch, n_keep_axials, is_pad)
        np.save(HERE / f"{name}.npy", result.astype(np.float32))
        cases.append(
            dict(name=name, ndim=ndim, shape=shape, patch=patch, n_keep_axials=n_keep_axials, is_pad=is_pad, members=members)
        )
        print(name, result.shape, result.min(), result.max(), result.mean(axis=(1, 2, 3)))
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
