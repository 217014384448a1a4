"""Read a prompt in one parallel pass, then go on token by token from the carried state."""

import torch

from statemix import BDLRU

torch.manual_seed(0)
layer = BDLRU(dim=64, block_size=4)
prompt = torch.randn(2, 100, 64)  # [B, T, dim]

y, state = layer(prompt)  # state [B, N, m]
for _ in range(5):
    token, state = layer.step(y[:, -1], state)  # constant time and memory per token
    y = torch.cat([y, token.unsqueeze(1)], dim=1)
print(tuple(y.shape), tuple(state.shape))
