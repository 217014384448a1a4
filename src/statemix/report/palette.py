"""One colour and one marker per model, in every figure of every page."""

from __future__ import annotations

import re
from typing import NamedTuple


class Look(NamedTuple):
    """How a model is drawn, as matplotlib takes it."""

    color: str
    marker: str


LOOKS = {
    "diagonal": Look("#56B4E9", "."),
    "bdlru": Look("#0072B2", "o"),
    "bdlru1": Look("#56B4E9", "."),
    "bdlru2": Look("#8FA7E8", "s"),
    "bdlru3": Look("#4F7BD9", "^"),
    "bdlru4": Look("#0072B2", "o"),
    "bdlru5": Look("#20509E", "D"),
    "bdlru8": Look("#12306B", "v"),
    "bdlru16": Look("#081A40", "P"),
    "hlru": Look("#D55E00", "s"),
    "hlru1": Look("#56B4E9", "."),
    "hlru2": Look("#F5B183", "s"),
    "hlru3": Look("#EE8A45", "^"),
    "hlru4": Look("#D55E00", "o"),
    "hlru5": Look("#A94A00", "D"),
    "hlru8": Look("#7A3500", "v"),
    "hlru16": Look("#4A2000", "P"),
    "lstm": Look("#009E73", "X"),
    "lru": Look("#CC79A7", "<"),
    "mamba2": Look("#E69F00", ">"),
    "deltanet": Look("#882255", "p"),
    "gateddeltanet": Look("#44AA99", "h"),
    "gateddeltaproduct": Look("#999933", "*"),
    "gateddeltaproduct2": Look("#999933", "*"),
    "gateddeltaproduct4": Look("#5F5F1A", "*"),
    "rwkv7": Look("#AA4499", "d"),
    "mlstm": Look("#117733", "X"),
    "slstm": Look("#88CCEE", "X"),
    "pdssm": Look("#332288", "H"),
    "attention": Look("#000000", "+"),
}
"""By the model's name in lower case, letters and digits alone. Distinguishable by colour-blind readers in the usual
comparisons (after Okabe and Ito, and Tol); block sizes and orders m are shades of one hue."""

OTHERS = Look("#777777", ".")
"""Several models drawn as one series."""

SPARE = ("#661100", "#6699CC", "#AA4466", "#DDCC77", "#4477AA", "#228833", "#BBBBBB", "#EE6677")

MAX_SERIES = 8
"""Series in one panel."""


def look_of(model: str) -> Look:
    """The look of a model by its name or label: "bdlru-4", "BD-LRU m = 4", "Mamba-2"; the same for the same name."""
    key = re.sub(r"[^a-z0-9]", "", re.sub(r"\bm = |\(.*", "", model.lower()))
    if key in LOOKS:
        return LOOKS[key]
    family = LOOKS.get(key.rstrip("0123456789"))
    return family or Look(SPARE[sum(key.encode()) % len(SPARE)], "o")
