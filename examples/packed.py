"""Three sequences of different length in one row, no padding: the same numbers as one by one."""

import torch

from statemix import HLRU

torch.manual_seed(0)
layer = HLRU(dim=32, order=3)
lengths = [5, 1, 12]
x = torch.randn(1, sum(lengths), 32)
cu_seqlens = torch.tensor([0, 5, 6, 18])

y, state = layer(x, cu_seqlens=cu_seqlens)  # state [3, N, m]: one per sequence
for k, part in enumerate(x.split(lengths, dim=1)):
    alone, last = layer(part)
    assert torch.allclose(y[:, cu_seqlens[k] : cu_seqlens[k + 1]], alone, atol=1e-6)
    assert torch.allclose(state[k], last[0], atol=1e-6)
print("packed equals separate:", tuple(state.shape))
