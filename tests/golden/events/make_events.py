"""Writes an event file with PyTorch's SummaryWriter: python make_events.py FOLDER"""

import sys

from torch.utils.tensorboard import SummaryWriter

with SummaryWriter(sys.argv[1]) as writer:
    for step in range(100, 105):
        writer.add_scalar("train_loss", 1 / step, step)
        writer.add_scalar("nll_loss", step / 3, step)
    writer.add_text("note", "not a scalar", 103)
