"""`torch.export` of layers and models, sizes of every kind of whole number, and inputs that are no plain tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU
from tests.nn.test_layers import LAYERS

EVERY_LAYER = pytest.mark.parametrize("kind", LAYERS)


def build(kind, **options):
    torch.manual_seed(0)
    return LAYERS[kind](**options)


class Everything(nn.Module):
    """All ways into a layer: begun anew, with the state it makes for the batch it is given, and with a state given."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, state):
        own = self.layer.initial_state(x.shape[0])
        wholes = [self.layer(x), self.layer(x, own), self.layer(x, state)]
        tokens = [self.layer.step(x[:, 0]), self.layer.step(x[:, 0], own), self.layer.step(x[:, 0], state)]
        return wholes, tokens


class Packed(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, cu_seqlens, state=None):
        return self.layer(x, state, cu_seqlens)


def check_exported(module, arguments, dims, others, strict=False):
    """The program made from `arguments` gives the module's numbers for all `others` too."""
    program = export(module, arguments, dynamic_shapes=dims, strict=strict)
    for inputs in (arguments, *others):
        torch.testing.assert_close(program.module()(*inputs), module(*inputs))
    return program


B, T = Dim("B", min=1, max=64), Dim("T", min=2, max=4096)
SOME = ("bdlru", "hlru-window", "bdlru-free", "hlru-start")


def batch(layer, size, length):
    return torch.randn(size, length, 6), torch.randn_like(layer.initial_state(size))


@pytest.mark.parametrize(("kind", "strict"), [(kind, kind == "hlru-window") for kind in SOME])
def test_any_batch_and_any_time(kind, strict):
    layer = build(kind)
    others = [batch(layer, 5, 3), batch(layer, 1, 9), batch(layer, 2, 2)]
    check_exported(Everything(layer), batch(layer, 3, 8), ({0: B, 1: T}, {0: B}), others, strict)


def packed(*bounds):
    return torch.randn(1, bounds[-1], 6), torch.tensor(bounds)


OTHERS = [packed(0, 4), packed(0, 2, 2, 9), packed(0, 1, 2, 3, 4)]


@pytest.mark.parametrize("kind", ["bdlru", "hlru-window", "bdlru-start"])
def test_any_number_of_packed_sequences(kind):
    """One sequence is in the range (cu_seqlens of two numbers); begun anew, and from a state of each sequence.

    Where sequences start from a parameter, two are the least: torch's exporter tells one from more.
    """
    layer, strict = build(kind), kind == "hlru-window"
    least = 2 if layer.initial is None else 3
    dims = ({1: T}, {0: Dim("bounds", min=least, max=64)})
    others = [case for case in OTHERS if len(case[1]) >= least]
    check_exported(Packed(layer), packed(0, 3, 8), dims, others, strict)
    carried = [
        (x, cut, torch.randn_like(layer.initial_state(len(cut) - 1))) for x, cut in (packed(0, 3, 8), *OTHERS)
    ]
    sequences = Dim("sequences", min=1, max=64)
    dims = ({1: T}, {0: sequences + 1}, {0: sequences})
    check_exported(Packed(layer), carried[0], dims, carried[1:], strict)


def test_shapes_that_the_exporter_finds_itself():
    auto, layer = Dim.AUTO, build("hlru-window")
    check_exported(
        Everything(layer), batch(layer, 3, 8), ({0: auto, 1: auto}, {0: auto}), [batch(layer, 5, 4)]
    )
    check_exported(Packed(layer), packed(0, 3, 8), ({1: auto}, {0: auto}), OTHERS)


@pytest.mark.parametrize(("mixer", "strict"), [("bdlru", False), ("hlru", True)])
def test_a_model(mixer, strict):
    """Tokens to logits and states, from states made inside."""
    build_mixer = {
        "bdlru": lambda dim: BDLRU(dim, block_size=2, num_blocks=4),
        "hlru": lambda dim: HLRU(dim, order=2, num_channels=4),
    }[mixer]

    class Run(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = LanguageModel(11, 8, build_mixer, depth=1)

        def forward(self, tokens):
            return self.model(tokens, self.model.initial_states(tokens.shape[0]))

    case = lambda *sizes: (torch.randint(11, sizes),)  # noqa: E731
    check_exported(Run(), case(3, 8), ({0: B, 1: T},), [case(5, 3), case(1, 9)], strict)


def test_a_program_survives_a_file(tmp_path):
    layer = build("hlru-window")
    arguments = batch(layer, 3, 8)
    program = export(layer, arguments, dynamic_shapes=({0: B, 1: T}, {0: B}))
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    torch.testing.assert_close(loaded(*arguments), layer(*arguments))


def test_compiled_for_any_batch_through_a_first_state():
    layer = build("hlru-window")

    def run(x):
        return layer(x, layer.initial_state(x.shape[0])), layer.step(x[:, 0])

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="eager")
    for size, length in ((3, 8), (5, 4)):
        x = torch.randn(size, length, 6)
        torch.testing.assert_close(compiled(x), run(x))


# Sizes


class Whole:
    """Something that says which whole number it is, and is none."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    def __repr__(self):
        return f"Whole({self.value})"


def numpy_int(name):
    return lambda value: getattr(pytest.importorskip("numpy"), name)(value)


SIZES = {
    "int": int,
    "int64": numpy_int("int64"),
    "int32": numpy_int("int32"),
    "uint8": numpy_int("uint8"),
    "__index__": Whole,
    "tensor": torch.tensor,
    "numpy array": lambda value: pytest.importorskip("numpy").array(value),
}
WRONG = {
    "bool": True,
    "float": 2.0,
    "text": "2",
    "None": None,
    "float tensor": torch.tensor(2.0),
    "two numbers": torch.tensor([2, 2]),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_sizes_of_every_kind_of_whole_number(size):
    block = BDLRU(size(6), block_size=size(3), num_blocks=size(4))
    order = HLRU(size(6), order=size(3), num_channels=size(4))
    model = LanguageModel(size(11), size(6), lambda dim: BDLRU(dim, block_size=size(3)), depth=size(1))
    sizes = (
        block.dim, block.block_size, block.num_blocks, order.dim, order.order, order.num_channels,
        model.vocab_size, model.dim,
    )  # fmt: skip
    assert [type(s) for s in sizes] == [int] * 8
    assert sizes == (6, 3, 4, 6, 3, 4, 11, 6)
    for layer in (block, order):
        state = layer.initial_state(size(2))
        assert state.shape == (2, 4, 3) and all(type(s) is int for s in state.shape)
        assert layer.initial_state(size(0)).shape == (0, 4, 3)
        layer(torch.randn(2, 5, 6), state)
    assert repr(block) == repr(BDLRU(6, block_size=3, num_blocks=4))


ARGUMENTS = {
    "dim": lambda value: BDLRU(value, block_size=3),
    "block_size": lambda value: BDLRU(6, block_size=value),
    "num_blocks": lambda value: BDLRU(6, block_size=3, num_blocks=value),
    "order": lambda value: HLRU(6, order=value),
    "num_channels": lambda value: HLRU(6, order=3, num_channels=value),
    "batch_size": lambda value: BDLRU(6, block_size=3).initial_state(value),
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_is_no_whole_number_is_refused(name, value):
    if value is None and name in ("num_blocks", "num_channels"):
        ARGUMENTS[name](value)  # the default
        return
    with pytest.raises(TypeError, match=f"^{name}: got .*, expected a whole number$") as raised:
        ARGUMENTS[name](value)
    assert "\n" not in str(raised.value)


def test_numpys_bool_is_refused():
    numpy = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match=r"batch_size: got .*, expected a whole number"):
        BDLRU(6, block_size=3).initial_state(numpy.True_)


# The meta device, and tensors that are no plain ones


@pytest.mark.parametrize("device", ["meta", "cpu"])
@EVERY_LAYER
def test_packed_sequences_without_memory(kind, device):
    """Bounds on the meta device as well as, for shapes alone, on the CPU."""
    layer = build(kind, device="meta")
    bounds = torch.tensor([0, 3, 8], device=device)
    y, state = layer(torch.empty(1, 8, 6, device="meta"), cu_seqlens=bounds)
    assert y.shape == (1, 8, 6)
    assert state.shape == layer.initial_state(2).shape
    y, state = layer(torch.empty(1, 8, 6, device="meta"), layer.initial_state(2), bounds)
    assert (y.device.type, state.device.type) == ("meta", "meta")


@EVERY_LAYER
def test_packed_sequences_of_fake_tensors(kind):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        layer = build(kind)
        y, state = layer(torch.randn(1, 8, 6), cu_seqlens=torch.tensor([0, 3, 8]))
        assert y.shape == (1, 8, 6) and state.shape[0] == 2


RAGGED = {
    "nested, jagged": lambda: torch.nested.nested_tensor(
        [torch.randn(3, 6), torch.randn(5, 6)], layout=torch.jagged
    ),
    "nested, strided": lambda: torch.nested.nested_tensor([torch.randn(3, 6), torch.randn(5, 6)]),
    "PackedSequence": lambda: nn.utils.rnn.pack_sequence([torch.randn(5, 6), torch.randn(3, 6)]),
    "list": lambda: [torch.randn(3, 6), torch.randn(5, 6)],
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("way", ["forward", "step"])
@pytest.mark.parametrize("ragged", RAGGED)
@EVERY_LAYER
def test_ragged_inputs_are_told_of_cu_seqlens(kind, ragged, way):
    layer, x = build(kind), RAGGED[ragged]()
    expected = "expected a tensor" if ragged == "list" else "cu_seqlens"
    with pytest.raises(TypeError, match=f"^x: got .*{expected}") as raised:
        layer(x) if way == "forward" else layer.step(x, layer.initial_state(2))
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("ragged", ["nested, jagged", "nested, strided", "PackedSequence"])
def test_ragged_values_of_a_scan(ragged):
    from statemix.ops import affine_scan, bdlru_scan, hlru_scan

    x = RAGGED[ragged]()
    for scan in (affine_scan, bdlru_scan, hlru_scan):
        with pytest.raises(TypeError, match="cu_seqlens") as raised:
            scan(x, x)
        assert "\n" not in str(raised.value)


@EVERY_LAYER
def test_what_the_error_says_works(kind):
    """The values of a jagged tensor and its offsets are what `cu_seqlens` wants."""
    layer = build(kind)
    pieces = [torch.randn(3, 6), torch.randn(5, 6)]
    ragged = torch.nested.nested_tensor(pieces, layout=torch.jagged)
    y, state = layer(ragged.values().unsqueeze(0), cu_seqlens=ragged.offsets())
    for piece, part, last in zip(pieces, y[0].split([3, 5]), state, strict=True):
        want_y, want_state = layer(piece[None])
        torch.testing.assert_close(part, want_y[0])
        torch.testing.assert_close(last, want_state[0])


# A step without a state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@EVERY_LAYER
def test_a_step_without_a_state_begins_anew(kind, dtype):
    layer = build(kind, dtype=dtype)
    for size in (2, 0):
        x = torch.randn(size, 6, dtype=dtype)
        want = layer.step(x, layer.initial_state(size))
        for have in (layer.step(x), layer.step(x, None), layer.step(x, state=None)):
            torch.testing.assert_close(have, want)
            assert have[1].dtype == want[1].dtype


def test_a_model_steps_without_states():
    for mixer in (lambda dim: BDLRU(dim, block_size=2), lambda dim: HLRU(dim, order=2)):
        model = LanguageModel(11, 8, mixer)
        tokens = torch.randint(11, (2,))
        torch.testing.assert_close(model.step(tokens), model.step(tokens, model.initial_states(2)))


@EVERY_LAYER
def test_a_step_without_a_state_on_the_meta_device(kind):
    layer = build(kind, device="meta")
    y, state = layer.step(torch.empty(2, 6, device="meta"))
    assert y.shape == (2, 6) and state.shape == layer.initial_state(2).shape
    assert state.device.type == "meta"
