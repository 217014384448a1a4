"""One colour and one marker per model, in every figure of every page."""

from __future__ import annotations

import re
from typing import NamedTuple


class Look(NamedTuple):
    """How a model is drawn, as matplotlib takes it."""

    color: str
    marker: str


SHADES = {
    "bdlru": ("#8FA7E8", "#4F7BD9", "#0072B2", "#20509E", "#12306B", "#081A40"),
    "hlru": ("#F5B183", "#EE8A45", "#D55E00", "#A94A00", "#7A3500", "#4A2000"),
}
"""One hue per family, a shade for each of `SHADED` block sizes or orders."""

SHADED = {2: "s", 3: "^", 4: "o", 5: "D", 8: "v", 16: "P"}

LOOKS = {
    **{f"{name}{m}": Look(color, marker) for name, shades in SHADES.items()
       for color, (m, marker) in zip(shades, SHADED.items(), strict=True)},
    **dict.fromkeys(("diagonal", "bdlru1", "hlru1"), Look("#56B4E9", ".")),
    "bdlru": Look("#0072B2", "o"),
    "hlru": Look("#D55E00", "s"),
    "lstm": Look("#009E73", "X"),
    "lru": Look("#CC79A7", "<"),
    "mamba2": Look("#E69F00", ">"),
    "deltanet": Look("#882255", "p"),
    "gateddeltanet": Look("#44AA99", "h"),
    **dict.fromkeys(("gateddeltaproduct", "gateddeltaproduct2"), Look("#999933", "*")),
    "gateddeltaproduct4": Look("#5F5F1A", "*"),
    "rwkv7": Look("#AA4499", "d"),
    "mlstm": Look("#117733", "X"),
    "slstm": Look("#88CCEE", "X"),
    "pdssm": Look("#332288", "H"),
    "attention": Look("#000000", "+"),
}  # fmt: skip
"""By the model's name in lower case, letters and digits alone. Distinguishable by colour-blind readers in the usual
comparisons (after Okabe and Ito, and Tol)."""

OTHERS = Look("#777777", ".")
"""Several models drawn as one series."""

SPARE = ("#661100", "#6699CC", "#AA4466", "#DDCC77", "#4477AA", "#228833", "#BBBBBB", "#EE6677")

MAX_SERIES = 8
"""Series in one panel."""


def look_of(model: str) -> Look:
    """The look of a model by its name or label: "bdlru-4", "BD-LRU m = 4", "Mamba-2"; the same for the same name."""
    key = re.sub(r"[^a-z0-9]", "", re.sub(r"\bm = |\(.*", "", model.lower()))
    look = LOOKS.get(key) or LOOKS.get(key.rstrip("0123456789"))
    return look or Look(SPARE[sum(key.encode()) % len(SPARE)], "o")
