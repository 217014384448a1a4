"""PD-SSM as its authors train it on regular languages.

- `model`: the model, which is not the layer of `statemix_research.baselines`;
- `scan`: its recurrence and the gradients;
- `loops`, `kernels`: the passes of the recurrence in torch, which define it, and in Triton.
"""
