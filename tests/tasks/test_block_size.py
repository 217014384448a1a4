"""The rule for m: its table, its bounds against definitions, its errors."""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations, product

import pytest

from statemix.analysis import prove
from statemix.tasks import IGNORED, Automaton, BlockSize, get_task, smallest_block
from statemix.tasks.groups import DERIVED_LENGTHS, Group, Map, Subset, enough_size, needed_size
from tests.analysis.exact import functions_model

Q8 = {"i": "(1 2 3 4)(5 6 7 8)", "j": "(1 5 3 7)(2 8 4 6)"}


def group(automaton: Automaton) -> Group:
    """The group of an automaton whose symbols generate it."""
    moves = [tuple(column) for column in automaton.table.T.tolist()]
    elements = [tuple(range(len(automaton.table)))]
    for element in elements:
        elements += {tuple(move[i] for i in element) for move in moves} - set(elements)
    return Group(elements)


@pytest.mark.parametrize(
    ("name", "options", "plain", "signed"),
    [
        ("parity", {}, 2, 1),
        ("permutation", {"n": 3}, 3, 3),
        ("permutation", {"n": 4}, 4, 3),
        ("alternating", {"n": 5}, 5, 5),
        ("permutation", {"n": 5}, 5, 5),
        ("cycle_navigation", {}, 5, 5),
        ("cyclic", {"n": 4}, 4, 2),
        ("cyclic", {"n": 6}, 3, 3),
        ("cyclic", {"n": 8}, 8, 4),
        ("cyclic", {"n": 12}, 4, 3),
        ("cyclic", {"n": 101}, 101, 101),
    ],
)
def test_the_table_of_sizes(name: str, options: dict[str, int], plain: int, signed: int) -> None:
    automaton = get_task(name, **options).automaton()
    assert smallest_block(automaton) == BlockSize(plain, plain)
    assert smallest_block(automaton, signed=True) == BlockSize(signed, signed)


def test_a_group_may_divide_where_it_does_not_embed() -> None:
    """The quaternions divide a power of the square's symmetries, but act faithfully on no fewer than 8 points."""
    quaternions = Automaton.from_generators(Q8)
    assert len(quaternions.table) == 8
    assert smallest_block(quaternions) == BlockSize(4, 8)
    assert smallest_block(quaternions, signed=True) == BlockSize(2, 4)


COUNTER = {"a": {"+": "b", "0": "a"}, "b": {"+": "c", "0": "a"}, "c": {"+": "a", "0": "a"}}
OTHERS = {
    "expressions modulo 5": (get_task("modular_arithmetic").automaton(), (5, 51), (5, 51)),
    "even pairs": (get_task("even_pairs").automaton(), (1, 5), (1, 3)),
    "a cycle of three with a reset": (Automaton.from_table(COUNTER, "a"), (3, 3), (3, 3)),
    "parity with a reset": (Automaton([[0, 1, 0], [1, 0, 0]]), (2, 2), (1, 1)),
    "flip-flop": (Automaton([[0, 0, 1], [1, 0, 1]]), (1, 1), (1, 1)),
    "ends in abb": (Automaton([[1, 0], [1, 2], [1, 3], [1, 0]], 0, [0, 0, 0, 1]), (1, 3), (1, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_functions_of_the_state_are_enough(name: str) -> None:
    """A layer made of them is equal to the automaton for words of every length."""
    automaton, plain, signed = OTHERS[name]
    assert smallest_block(automaton) == BlockSize(*plain)
    assert smallest_block(automaton, signed=True) == BlockSize(*signed)
    model = functions_model(automaton)
    assert model.layers[0].mixer.block_size == plain[1]
    assert prove(model, automaton).equal


def test_what_no_word_shows_needs_no_channel() -> None:
    unreached = Automaton([[0, 0, 1], [1, 0, 1], [0, 1, 2]])
    assert smallest_block(unreached) == smallest_block(Automaton([[0, 0, 1], [1, 0, 1]])) == BlockSize(1, 1)
    for outputs in ([7, 7], [IGNORED, IGNORED]):
        assert smallest_block(Automaton([[0, 0, 1], [1, 0, 1]], 0, outputs)) == BlockSize(1, 1)


def all_subgroups(found: Group) -> set[Subset]:
    """Those that three elements generate: all, in groups this small."""
    return {found.generated(three) for three in combinations_with_replacement(range(found.order), 3)}


def definition(found: Group, signed: bool) -> int:
    """The least m with enough kernels of (signed) permutations of m things, from all subgroups."""
    subgroups, t = all_subgroups(found), found.table
    for m in range(1, found.order + 1):
        common = frozenset(range(found.order))
        for subgroup in subgroups:
            if found.order > m * len(subgroup):
                continue
            halves = [k for k in subgroups if k <= subgroup and 2 * len(k) == len(subgroup)] if signed else []
            for kernel in (subgroup, *halves):
                for x in range(found.order):
                    common &= {t[t[x][h]][found.inverse[x]] for h in kernel}
        if len(common) == 1:
            return m
    raise AssertionError


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "generators",
    [
        {"a": "(1 2)"}, {"a": "(1 2 3)", "b": "(1 2)"}, {"a": "(1 2 3 4)", "b": "(1 3)"}, Q8, {"a": "(1 2 3 4)"},
        {"a": "(1 2 3)(4 5)"}, {"a": "(1 2 3)", "b": "(2 3 4)"}, {"a": "(1 2)", "b": "(1 2 3 4)"},
        {"a": "(1 2)", "b": "(3 4)", "c": "(5 6)"}, {"a": "(1 2 3 4 5)", "b": "(2 5)(3 4)"},
    ],
)  # fmt: skip
def test_enough_is_its_definition(generators: dict[str, str], signed: bool) -> None:
    found = group(Automaton.from_generators(generators))
    assert enough_size(found, signed) == definition(found, signed)
    assert needed_size(found, signed) <= enough_size(found, signed)


def signed_permutations(m: int) -> Group:
    def element(places: Map, signs: tuple[int, ...]) -> Map:
        return tuple(2 * places[i // 2] + (i % 2 ^ signs[i // 2]) for i in range(2 * m))

    return Group(element(p, s) for p in permutations(range(m)) for s in product((0, 1), repeat=m))


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_whole_of_what_a_block_can_do(m: int) -> None:
    plain, signed = Group(permutations(range(m))), signed_permutations(m)
    assert needed_size(plain, False) == enough_size(plain, False) == m
    assert needed_size(signed, True) == enough_size(signed, True) == m
    for found, has_signs in ((plain, False), (signed, True)):
        assert (
            len(found.derived_series) - 1 == DERIVED_LENGTHS[has_signs][m]
            and len(found.derived_series[-1]) == 1
        )


def test_what_is_too_large() -> None:
    with pytest.raises(ValueError, match="automaton: got a group of 720 elements, expected at most 400"):
        smallest_block(get_task("permutation", n=6).automaton())
    table = [[(i + 1) % 7, 0 if i == 1 else i, 1 if i == 0 else 0 if i == 1 else i] for i in range(7)]
    with pytest.raises(ValueError, match="automaton: got more than 2000 maps of its states"):
        smallest_block(Automaton(table))
