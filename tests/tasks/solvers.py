"""Every task solved in plain Python: from one row of inputs to the targets it must have, checking the row."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

Row = list[int]
Options = dict[str, Any]
NONE = -100


def compression(inputs: Row, options: Options, split: str) -> Row:
    last = options["vocab_size"] - 1
    assert inputs[-1] == last and last not in inputs[:-1]
    return list(inputs)


def selective_copying(inputs: Row, options: Options, split: str) -> Row:
    blank, copy, k = options["vocab_size"] - 2, options["vocab_size"] - 1, options["copies"]
    at = inputs.index(copy)
    content = [token for token in inputs[:at] if token != blank]
    assert len(content) == k and inputs[at + 1 :] == [blank] * k and inputs[at - 1] != blank
    return [NONE] * (at + 1) + content


def recall(inputs: Row, options: Options, split: str) -> Row:
    noise = options["vocab_size"] - options.get("noise_vocab", 0)
    keys, known, targets, pairs = noise // 2, dict[int, int](), list[int](), 0
    for key, value in zip(inputs[:-1:2], inputs[1::2], strict=True):
        if key >= noise:
            assert value >= noise
            targets += [NONE, NONE]
            continue
        assert key < keys <= value < noise and known.get(key, value) == value
        targets += [value if key in known else NONE, NONE]
        known[key] = value
        pairs += 1
    assert pairs >= 1
    answer = known[inputs[-1]]
    return [*inputs[1:], answer] if split == "train" else [*targets, answer]


def fuzzy_recall(inputs: Row, options: Options, split: str) -> Row:
    padding, m = options["vocab_size"] - 1, options["motif_size"]
    keys, known = padding // 2, dict[tuple[int, ...], tuple[int, ...]]()
    at = 0
    while inputs[at] == padding:
        at += 1
    assert at >= 1
    targets, start = [NONE] * (at - 1), at
    while True:
        while at < len(inputs) and inputs[at] < keys:
            at += 1
        key, start = tuple(inputs[start:at]), at
        assert 1 <= len(key) <= m and len(set(key)) == len(key)
        assert split == "train" or len(key) == m
        targets += [NONE] * len(key)
        while at < len(inputs) and keys <= inputs[at] < padding:
            at += 1
        value, start = tuple(inputs[start:at]), at
        if at == len(inputs):
            break
        assert 1 <= len(value) <= m and len(set(value)) == len(value) and known.get(key, value) == value
        targets += value if key in known else [NONE] * len(value)
        known[key] = value
    answer = known[key]
    assert answer[:-1] == value
    return [*inputs[1:], answer[-1]] if split == "train" else [*targets, *answer]


def permutation(inputs: Row, options: Options, split: str) -> Row:
    return _product(inputs, list(permutations(range(options["n"]))))


def alternating(inputs: Row, options: Options, split: str) -> Row:
    return _product(inputs, [p for p in permutations(range(options["n"])) if _sign(p) == 1])


def _sign(p: tuple[int, ...]) -> int:
    """By sorting with exchanges, each of which changes the sign."""
    rest, sign = list(p), 1
    for i in range(len(rest)):
        while rest[i] != i:
            j = rest[i]
            rest[i], rest[j] = rest[j], rest[i]
            sign = -sign
    return sign


def _product(inputs: Row, elements: list[tuple[int, ...]]) -> Row:
    number = {element: i for i, element in enumerate(elements)}
    running, targets = elements[0], list[int]()
    for token in inputs:
        running = tuple(running[i] for i in elements[token])
        targets.append(number[running])
    return targets


def cyclic(inputs: Row, options: Options, split: str) -> Row:
    return [sum(inputs[: t + 1]) % options["n"] for t in range(len(inputs))]


def _asked(prefixes: Row, options: Options) -> Row:
    return prefixes if options["target"] == "every" else [NONE] * (len(prefixes) - 1) + prefixes[-1:]


def parity(inputs: Row, options: Options, split: str) -> Row:
    return _asked([inputs[: t + 1].count(1) % 2 for t in range(len(inputs))], options)


def even_pairs(inputs: Row, options: Options, split: str) -> Row:
    changes = [sum(a != b for a, b in pairwise(inputs[: t + 1])) for t in range(len(inputs))]
    return _asked([1 - number % 2 for number in changes], options)


def cycle_navigation(inputs: Row, options: Options, split: str) -> Row:
    position, prefixes = 0, list[int]()
    for move in inputs:
        position = (position + (0, 1, -1)[move]) % options["modulus"]
        prefixes.append(position)
    return _asked(prefixes, options)


def modular_arithmetic(inputs: Row, options: Options, split: str) -> Row:
    m, text, prefixes = options["modulus"], "", list[int]()
    for t, token in enumerate(inputs):
        assert (token == m + 3) == (t == 0 and len(inputs) % 2 == 0)
        text += str(token) if token < m else ("+", "-", "*", "")[token - m]
        prefixes.append(eval(text) % m if token < m else NONE)
    return _asked(prefixes, options)


def automaton(inputs: Row, options: Options, split: str) -> Row:
    if options["table"]:
        states, at, prefixes = list(options["table"]), options["start"], list[int]()
        symbols = list(options["table"][states[0]])
        for token in inputs:
            at = options["table"][at][symbols[token]]
            prefixes.append(int(at in options["accepting"]) if options["accepting"] else states.index(at))
        return _asked(prefixes, options)
    factors = [_one_line(text) for text in options["generators"].values()]
    elements = [(0, 1, 2)]
    for element in elements:
        for factor in factors:
            if (product := tuple(element[i] for i in factor)) not in elements:
                elements.append(product)  # type: ignore[arg-type]
    running, prefixes = elements[0], []
    for token in inputs:
        running = tuple(running[i] for i in factors[token])  # type: ignore[assignment]
        prefixes.append(elements.index(running))
    return _asked(prefixes, options)


def _one_line(cycle: str) -> tuple[int, ...]:
    """One cycle of 1, 2, 3 as the images of 0, 1, 2."""
    points = [int(c) - 1 for c in cycle if c.isdigit()]
    return tuple(points[(points.index(i) + 1) % len(points)] if i in points else i for i in range(3))


SOLVERS: dict[str, Callable[[Row, Options, str], Row]] = {
    "compression": compression,
    "selective_copying": selective_copying,
    "in_context_recall": recall,
    "noisy_recall": recall,
    "fuzzy_recall": fuzzy_recall,
    "permutation": permutation,
    "cyclic": cyclic,
    "alternating": alternating,
    "parity": parity,
    "even_pairs": even_pairs,
    "cycle_navigation": cycle_navigation,
    "modular_arithmetic": modular_arithmetic,
    "automaton": automaton,
}
"""All tasks but memorization, whose targets no row of inputs determines."""
