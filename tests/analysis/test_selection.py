"""What hard rows select, what is left of a state, how far an error reaches back."""

import itertools

import pytest
import torch

from statemix.analysis import (
    accuracy_by_position,
    collision_penalty,
    gradient_by_position,
    jump,
    ranks,
    ranks_along,
    select,
    selected_columns,
    selection_summary,
)
from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU
from statemix.ops import normalize
from statemix.tasks import IGNORED


def model(mixer=BDLRU, **options):
    torch.manual_seed(0)
    options = options or {"block_size": 3, "num_blocks": 2, "hard": True, "learned_initial_state": True}
    return LanguageModel(5, 8, lambda dim: mixer(dim, **options), depth=1, block={"mlp": False})


@pytest.mark.parametrize("normalization", ["softmax", "relu", "tanh"])
def test_selected_columns_are_where_hard_rows_are_not_zero(normalization):
    gates = torch.randn(50, 4, 5, generator=torch.Generator().manual_seed(0))
    gates[0] = 0 if normalization == "tanh" else -1
    rows, selected = normalize(gates, normalization, hard=True), selected_columns(gates, normalization)
    for row, column in zip(rows.flatten(0, 1), selected.flatten().tolist(), strict=True):
        assert row.nonzero().flatten().tolist() == ([] if column < 0 else [column])
    assert (selected[0] == -1).all() or normalization == "softmax"


def test_select_reads_the_rows_of_the_layer():
    net, tokens = model(), torch.arange(10).view(2, 5) % 5
    (selected,) = select(net, tokens)
    layer = net.layers[0].mixer
    x = net.layers[0].mixer_norm(net.embedding(tokens))
    assert torch.equal(selected, normalize(layer.raw_gates(x), hard=True).argmax(-1))
    with pytest.raises(ValueError, match="it has no BDLRU"):
        select(model(HLRU, order=2), tokens)


def test_summary_counts_maps():
    maps = torch.tensor([[0, 1, 2], [1, 0, 2], [0, 0, 1], [3, 3, 3], [0, 1, 3]])
    summary = selection_summary(maps)
    assert summary.permuting == pytest.approx(2 / 5)
    assert summary.colliding == pytest.approx(1 / 5)
    assert summary.taken == pytest.approx(4 / 15)
    assert summary.copied == pytest.approx(11 / 15)
    assert summary.histogram.tolist() == pytest.approx([5 / 15, 4 / 15, 2 / 15, 4 / 15])


def test_a_row_of_zeros_is_neither_copied_nor_taken():
    summary = selection_summary(torch.tensor([[0, -1]]))
    assert (summary.copied, summary.taken, summary.permuting) == (0.5, 0.0, 0.0)


def test_ranks_along_are_the_ranks_of_products():
    generator = torch.Generator().manual_seed(0)
    selected = torch.randint(-1, 4, (8, 6, 5, 3), generator=generator)
    left = ranks_along(selected)
    for b, n in itertools.product(range(8), range(5)):
        product = torch.eye(3)
        for t in range(6):
            transition = torch.zeros(3, 3)
            for row, column in enumerate(selected[b, t, n].tolist()):
                if 0 <= column < 3:
                    transition[row, column] = 1
            product = transition @ product
            assert left[b, t, n] == torch.linalg.matrix_rank(product)
    assert torch.equal(ranks(selected[:, 0]), left[:, 0])


def test_collision_penalty_counts_copies_beyond_the_first_and_leaves_the_input_out():
    eye = torch.eye(4)  # m = 3
    maps = torch.tensor([[1, 0, 2], [0, 0, 1], [2, 2, 2], [3, 3, 3]])
    each = torch.stack([collision_penalty(eye[one]) for one in maps])
    torch.testing.assert_close(each, torch.tensor([0.0, 1.0, 4.0, 0.0]) / 3)
    torch.testing.assert_close(collision_penalty(eye[maps]), each.mean())


def test_collision_penalty_moves_rows_apart():
    gates = torch.tensor([[0.2, 0.0, -9.0], [0.1, 0.0, -9.0]], requires_grad=True)
    collision_penalty(normalize(gates, hard=True)).backward()
    assert gates.grad[0, 0] > 0 > gates.grad[0, 1] and gates.grad[1, 0] > 0 > gates.grad[1, 1]


def test_accuracy_by_position_leaves_ignored_targets_out():
    net, tokens = model(), torch.arange(20).view(4, 5) % 5
    answers = net(tokens)[0].argmax(-1)
    targets = answers.clone()
    targets[:, 1] = (targets[:, 1] + 1) % 5
    targets[:2, 2] = (targets[:2, 2] + 1) % 5
    targets[2, 2] = targets[:, 3] = IGNORED
    accuracy = accuracy_by_position(net, tokens, targets)
    assert accuracy[:3].tolist() == pytest.approx([1.0, 0.0, 1 / 3])
    assert accuracy[3].isnan()


def test_gradient_by_position_is_that_of_the_inputs():
    net, tokens = model(), torch.arange(20).view(4, 5) % 5
    targets = tokens.flip(1)
    (found,) = gradient_by_position(net, tokens, targets)
    block = net.layers[0]
    x = net.embedding(tokens)
    u = block.mixer_norm(x).detach().requires_grad_()
    logits = net.head(net.norm(x + block.mixer(u)[0]))
    loss = torch.nn.functional.cross_entropy(logits[:, -1], targets[:, -1])
    (expected,) = torch.autograd.grad(loss, u)
    torch.testing.assert_close(found, expected.square().sum((0, 2)).sqrt())
    assert (found > 0).any()


def test_gradient_ends_where_every_row_takes_the_input():
    net = model()
    layer = net.layers[0].mixer
    with torch.no_grad():
        layer.gates.weight.zero_()
        layer.gates.bias.view(4, 2, 3)[3] = 50.0
    (found,) = gradient_by_position(net, torch.arange(10).view(2, 5) % 5, torch.arange(10).view(2, 5) % 5)
    assert found[-1] > 0
    assert found[:-1].max() < 1e-6 * found[-1]


def test_jump():
    assert jump([10, 20, 30], [0.1, 0.2, 0.9]) == (30, 0.7)
    with pytest.raises(ValueError, match="got 1 values for 2 steps"):
        jump([1, 2], [0.5])
