"""Held-out loss of a language model: nats per token, perplexity by context, bits per byte."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.lm.heldout import CUTS, Piece, batch_pieces, count_bytes, pieces
from statemix.lm.loss import IGNORED
from statemix.lm.stateful import Stateful, stateful
from statemix.packs import Batch, Batches, Pack

LOGITS = 1 << 25
"""Logits that are in float32 at a time."""


@dataclass(frozen=True)
class ContextLoss:
    """The loss where a prediction is made from `first` to `last` tokens of context."""

    first: int
    last: int
    tokens: int
    loss: float

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return _exp(self.loss)


@dataclass(frozen=True)
class Evaluation:
    r"""What `evaluate` gives.

    loss: mean of $-\ln p(\text{token} \mid \text{context})$, nats per token. standard_error: of the loss, over units;
    None for a single one. bits_per_byte: None where the bytes of the text are not known. tokens: that were predicted.
    bytes: of their text in UTF-8. units: sequences or documents. by_context: the loss by tokens of context, in
    buckets 1, 2–3, 4–7, …
    """

    loss: float
    standard_error: float | None
    bits_per_byte: float | None
    tokens: int
    bytes: float | None
    units: int
    cut: str
    length: int | None
    carry_state: bool
    by_context: tuple[ContextLoss, ...]

    @property
    def perplexity(self) -> float:
        """exp(loss), per token."""
        return _exp(self.loss)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, perplexities included."""
        content = {**asdict(self), "perplexity": self.perplexity}
        content["by_context"] = [{**asdict(one), "perplexity": one.perplexity} for one in self.by_context]
        return content


def evaluate(
    model: nn.Module,
    data: Pack | Batches | Iterable[Batch],
    *,
    cut: str = "sequences",
    length: int = 1024,
    batch_size: int = 8,
    max_tokens: int | None = None,
    carry_state: bool = False,
    precision: str = "auto",
) -> Evaluation:
    r"""The loss of a model on text that it was not trained on.

    Each token of a split is predicted once, so that bits per byte are exact:
    $\sum_t -\ln p(x_t \mid x_{<t}) \,/\, (\ln 2 \cdot \text{bytes})$. The first token of a document is predicted from
    the end of the document before it; before the first document of a split the end of a document stands too.

    Args:
        model: A `LanguageModel`, or a `StatemixForCausalLM`. It runs where it lies.
        data: A split of a pack; or batches, of which each row (each sequence of `cu_seqlens`) begins empty. Of
            `Batches` one epoch. Batches ignore the arguments from `cut` to `carry_state`.
        cut: "sequences" cuts the split every `length` tokens, whatever the documents. "documents" begins every document
            empty, and one that is longer than `length` anew every `length` tokens.
        length: T, tokens of a sequence, and of one forward.
        batch_size: B, rows of a forward.
        max_tokens: Evaluate the first so many tokens; of documents, whole ones until they have so many.
        carry_state: Let the state go on from a piece of `length` tokens to the next: documents whole, whatever their
            length; sequences as B rows through the split. Context then grows beyond `length`.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 on a GPU that has it.

    Returns:
        An `Evaluation`. Its standard error is that of a ratio over the units i, which have n_i tokens and l_i nats:
        $\sqrt{\frac{S}{S-1} \sum_i (l_i - L n_i)^2} \,/ \sum_i n_i$ with S units and the loss L.

    Raises:
        TypeError: The model is of another kind.
        ValueError: A size is no whole number of at least 1, a name is unknown, the model has too few ids for the pack,
            or there is no text.
        FloatingPointError: A loss is not finite.

    Example:
        >>> import tempfile
        >>> from statemix.packs import build_source, prepare_pack
        >>> folder = tempfile.mkdtemp()
        >>> meta = prepare_pack(build_source(["stdlib"]), folder, max_tokens=10_000)
        >>> model = LanguageModel(257, 16, lambda dim: BDLRU(dim, block_size=4))
        >>> result = evaluate(model, Pack(folder), length=128, max_tokens=2000)
        >>> result.tokens, round(result.loss), [one.last for one in result.by_context]
        (2000, 6, [1, 3, 7, 15, 31, 63, 127, 128])

    Source: bits per byte as in The Pile (arXiv 2101.00027), section 3.1.
    """
    whole = stateful(model)
    if isinstance(data, Pack):
        for name, value in (("length", length), ("batch_size", batch_size), ("max_tokens", max_tokens)):
            _check_size(name, 1 if name == "max_tokens" and value is None else value)
        if cut not in CUTS:
            raise ValueError(f"cut: got {cut!r}, expected {' or '.join(map(repr, CUTS))}")
        tokens = data.tokens if max_tokens is None else min(max_tokens, data.tokens)
        found = pieces(
            data, cut=cut, length=length, batch_size=batch_size, tokens=tokens, carry_state=carry_state
        )
        settings = {"cut": cut, "length": length, "carry_state": carry_state}
    else:
        found, settings = batch_pieces(data), {"cut": "batches", "length": None, "carry_state": False}
    pack = data if isinstance(data, Pack) else getattr(data, "pack", None)
    if pack is not None:
        pack.check_vocab_size(whole.vocab_size)
    totals = Totals()
    with _evaluating(model), _autocast(precision, whole.device):
        for piece, losses in _losses(whole, found):
            totals.add(piece, losses)
    return totals.result(_bytes(data, totals.tokens), settings)


class Totals:
    """Sums of losses, by context and by unit."""

    def __init__(self) -> None:
        self.tokens = self.longest = 0
        self._contexts: dict[int, list[float]] = {}
        self._units: dict[int, list[float]] = {}

    def add(self, piece: Piece, losses: Tensor) -> None:
        """losses [B, T] in nats, float64 on the CPU."""
        real = piece.targets.cpu() != IGNORED
        losses = losses[real]
        if not bool(losses.isfinite().all()):
            worst = float(losses[~losses.isfinite()][0])
            raise FloatingPointError(
                f"loss: got {worst} behind {self.tokens} tokens, expected finite numbers"
            )
        self.tokens += len(losses)
        self.longest = max(self.longest, int(piece.context[real].max()) if len(losses) else 0)
        buckets = torch.frexp(piece.context[real].double()).exponent  # context c is in [2^(e-1), 2^e)
        _gather(self._contexts, buckets.long(), losses)
        _gather(self._units, piece.units[real], losses)

    def result(self, size: float | None, settings: dict[str, Any]) -> Evaluation:
        """The means. size: bytes of the text, if they are known."""
        if not self.tokens:
            raise ValueError("data: got no tokens to predict, expected at least one")
        nats = math.fsum(total for total, _ in self._units.values())
        loss = nats / self.tokens
        return Evaluation(
            loss=loss, standard_error=self._standard_error(loss), tokens=self.tokens, bytes=size,
            bits_per_byte=nats / (math.log(2) * size) if size else None, units=len(self._units),
            by_context=tuple(self._by_context()), **settings,
        )  # fmt: skip

    def _by_context(self) -> Iterator[ContextLoss]:
        for exponent in sorted(self._contexts):
            total, count = self._contexts[exponent]
            last = min(2**exponent - 1, self.longest)
            yield ContextLoss(2 ** (exponent - 1), last, int(count), total / count)

    def _standard_error(self, loss: float) -> float | None:
        units = len(self._units)
        if units < 2:
            return None
        squares = math.fsum((total - loss * count) ** 2 for total, count in self._units.values())
        return math.sqrt(squares * units / (units - 1)) / self.tokens


def _gather(sums: dict[int, list[float]], keys: Tensor, losses: Tensor) -> None:
    """Add losses and their number under their keys."""
    names, places = keys.unique(return_inverse=True)
    totals = torch.zeros(len(names), dtype=torch.float64).index_add_(0, places, losses)
    counts = torch.bincount(places, minlength=len(names))
    for name, total, count in zip(names.tolist(), totals.tolist(), counts.tolist(), strict=True):
        here = sums.setdefault(name, [0.0, 0])
        here[0] += total
        here[1] += count


def _losses(model: Stateful, found: Iterator[Piece]) -> Iterator[tuple[Piece, Tensor]]:
    """Each piece with the losses [B, T] of its targets."""
    state = None
    for piece in found:
        bounds = None if piece.cu_seqlens is None else piece.cu_seqlens.to(model.device)
        x, state = model.hidden(piece.inputs.to(model.device), None if piece.fresh else state, bounds)
        yield piece, token_losses(model, x, piece.targets.to(model.device))


def token_losses(model: Stateful, x: Tensor, targets: Tensor) -> Tensor:
    """x [B, T, D], targets [B, T] -> their losses [B, T] in nats, float64 on the CPU; 0 where nothing is predicted."""
    rows = max(1, LOGITS // model.vocab_size)
    parts = [
        F.cross_entropy(model.logits(some).float(), wanted, ignore_index=IGNORED, reduction="none")
        for some, wanted in zip(x.flatten(0, 1).split(rows), targets.flatten().split(rows), strict=True)
    ]
    return torch.cat(parts).view(targets.shape).to("cpu", torch.float64)


def _bytes(data: Pack | Batches | Iterable[Batch], tokens: int) -> float | None:
    """Bytes of the text of what was predicted, from the pack's own counts."""
    if isinstance(data, Pack):
        return count_bytes(data, tokens)
    return tokens * data.pack.bytes_per_token if isinstance(data, Batches) else None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without gradients and dropout; afterwards the model trains if it did."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision: got {precision!r}, expected 'auto', 'float32' or 'bfloat16'")
    automatic = precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    if automatic or precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1")


def _exp(loss: float) -> float:
    """exp, infinite where float has no such number."""
    return math.exp(loss) if loss < 700 else math.inf
