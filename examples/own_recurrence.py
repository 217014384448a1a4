"""A recurrence of your own: rotations by a learned angle, through `affine_scan`."""

import torch

from statemix import affine_scan

torch.manual_seed(0)
B, T, N = 2, 50, 8
angle = torch.randn(B, T, N, requires_grad=True)
decay = 0.99
cos, sin = decay * angle.cos(), decay * angle.sin()
transitions = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))  # [B, T, N, 2, 2]
inputs = torch.randn(B, T, N, 2)

states, final_state = affine_scan(transitions, inputs)
states.square().mean().backward()
print(tuple(states.shape), tuple(final_state.shape), "gradient of the angles:", tuple(angle.grad.shape))
