"""One torch thread: runs of this process are equal, bit for bit, to those of the workers that tests start."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
