"""The recurrences once more, number by number in Python floats (float64): what every backend is held to.

Nothing here comes from statemix; the normalisations are written from the table in the paper.
"""

from __future__ import annotations

import math

import torch

SIGNED = ("tanh", "linear", "silu")
BOUNDED = ("softmax", "sigmoid", "relu", *SIGNED)
ALL = (*BOUNDED, "none")
HARD = tuple(f"hard:{name}" for name in BOUNDED)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


WEIGHTS = {
    "softmax": math.exp,
    "sigmoid": sigmoid,
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "linear": lambda x: x,
    "silu": lambda x: x * sigmoid(x),
}


def normalized_row(row: list[float], name: str) -> list[float]:
    if name == "none":
        return row
    if name.startswith("hard:"):
        return hard_row(row, name.removeprefix("hard:"))
    weights = [WEIGHTS[name](x) for x in row]
    divisor = sum(abs(w) for w in weights) + (0.001 * len(row) if name == "relu" else 0.0)
    return [w / divisor if divisor else 0.0 for w in weights]


def hard_row(row: list[float], name: str) -> list[float]:
    """The sign of the largest weight in its place, zeros elsewhere."""
    weights = [WEIGHTS[name](x) for x in row]
    sizes = row if name in ("softmax", "sigmoid") else [abs(w) for w in weights]
    largest = sizes.index(max(sizes))
    sign = 1.0 if weights[largest] > 0 else -1.0 if weights[largest] < 0 else 0.0
    return [sign if j == largest else 0.0 for j in range(len(row))]


def bdlru_loop(gates, values, state, name):
    """gates [T, m, m+1], values [T, m], state [m] -> (states [T, m], state)."""
    states = []
    for g, v in zip(gates, values, strict=True):
        rows = [normalized_row(row, name) for row in g]
        state = [
            sum(a * h for a, h in zip(row[:-1], state, strict=True)) + row[-1] * v[i]
            for i, row in enumerate(rows)
        ]
        states.append(state)
    return states, state


def affine_loop(transitions, inputs, state, name="none"):
    """transitions [T, m, m], inputs [T, m], state [m] -> (states [T, m], state)."""
    states = []
    for a, b in zip(transitions, inputs, strict=True):
        state = [sum(x * h for x, h in zip(row, state, strict=True)) + b[i] for i, row in enumerate(a)]
        states.append(state)
    return states, state


def hlru_loop(gates, values, window, name):
    """gates [T, m+1], values [T], window [m], newest first -> (states [T], window)."""
    states = []
    for g, v in zip(gates, values, strict=True):
        p = normalized_row(g, name)
        h = sum(a * past for a, past in zip(p[:-1], window, strict=True)) + p[-1] * v
        window = [h, *window[:-1]]
        states.append(h)
    return states, window


LOOPS = {"bdlru": bdlru_loop, "hlru": hlru_loop, "affine": affine_loop}


def loop(recurrence, gates, values, state, name="softmax", bounds=None):
    """The recurrence on tensors shaped as for `statemix.ops`, sequence by sequence, block by block, in float64."""
    batch, length, blocks = values.shape[:3]
    spans = [(b, 0, length) for b in range(batch)]
    if bounds is not None:
        spans = [(0, start, end) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    states = torch.zeros(values.shape, dtype=torch.float64)
    final = torch.zeros(state.shape, dtype=torch.float64)
    for s, (b, start, end) in enumerate(spans):
        for n in range(blocks):
            part, last = LOOPS[recurrence](
                gates[b, start:end, n].double().tolist(),
                values[b, start:end, n].double().tolist(),
                state[s, n].double().tolist(),
                name,
            )
            if part:
                states[b, start:end, n] = torch.tensor(part, dtype=torch.float64)
            final[s, n] = torch.tensor(last, dtype=torch.float64)
    return states, final
