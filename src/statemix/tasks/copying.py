"""Tasks that give a sequence back: compression and selective copying."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from statemix.tasks.base import IGNORED, Examples, Option, Task
from statemix.tasks.splits import integers


class Compression(Task):
    """Random tokens, then one compression token; the whole input is to be rebuilt from the last state.

    Inputs: T - 1 uniform tokens of 0 … V - 2, then token V - 1. Targets: the inputs, at all T positions (the
    last one is always V - 1). The autoencoder backbone lets nothing but the last position reach the decoder.
    """

    name = "compression"
    summary = "Rebuild a random sequence from the one state left at its end"
    backbone = "autoencoder"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(16, 3, meaning="tokens, the compression token among them"),
        "length": Option(32, 2, meaning="positions, the compression token's among them"),
    }

    def _prepare(self) -> None:
        self.marks = {self.vocab_size - 1: ("<compress>", "cyan")}

    def _bits(self, length: int) -> float:
        return (length - 1) * math.log2(self.vocab_size - 1)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        inputs = integers(self.vocab_size - 1, (count, length), generator)
        inputs[:, -1] = self.vocab_size - 1
        return Examples(inputs, inputs.clone())


class SelectiveCopying(Task):
    """Tokens scattered among blanks; after the copy token they are to be repeated in order.

    Inputs: k = `copies` uniform tokens of 0 … V - 3 with blanks (V - 2) between them, the copy token (V - 1),
    then k blanks. Each of the T - 2k - 1 scattered blanks stands before one of the k tokens, chosen
    uniformly, so that the last token directly precedes the copy token. Targets: the k tokens in order at the
    last k positions.
    """

    name = "selective_copying"
    summary = "Remember the tokens among the blanks and repeat them in order"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(16, 4, meaning="tokens, blank and copy token among them"),
        "copies": Option(16, 1, meaning="tokens to copy"),
        "length": Option(256, 3, meaning="positions, the blanks where the copy is expected among them"),
    }

    def _prepare(self) -> None:
        self.copies = self.integer("copies")
        self.blank, self.copy_token = self.vocab_size - 2, self.vocab_size - 1
        self.marks = {self.blank: ("·", "white"), self.copy_token: ("<copy>", "bold magenta")}
        self.length_option = Option(0, 2 * self.copies + 1, note="2 * copies + 1")

    def _bits(self, length: int) -> float:
        copies, blanks = self.copies, length - 2 * self.copies - 1
        each, more = divmod(blanks, copies)  # the likeliest gaps are the even ones
        ways = (
            math.lgamma(blanks + 1) - more * math.lgamma(each + 2) - (copies - more) * math.lgamma(each + 1)
        )
        return copies * math.log2(self.vocab_size - 2) + (blanks * math.log(copies) - ways) / math.log(2)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        copies = self.copies
        content = integers(self.vocab_size - 2, (count, copies), generator)
        followers = integers(copies, (count, length - 2 * copies - 1), generator)
        gaps = torch.zeros(count, copies, dtype=torch.int64)
        gaps.scatter_add_(1, followers, torch.ones_like(followers))
        places = gaps.cumsum(dim=1) + torch.arange(copies)
        inputs = torch.full((count, length), self.blank, dtype=torch.int64)
        inputs.scatter_(1, places, content)
        inputs[:, length - copies - 1] = self.copy_token
        targets = torch.full((count, length), IGNORED, dtype=torch.int64)
        targets[:, length - copies :] = content
        return Examples(inputs, targets)
