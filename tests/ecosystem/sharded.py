"""What a process of a group of two runs: layers and models split by FSDP, tensor parallelism and DDP.

`main(rank, file)` joins the group that meets at a file, runs every check and prints one line for each: its name, then
nothing or what went wrong.
"""

from __future__ import annotations

import copy
import json
import traceback
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from statemix import BDLRU, HLRU
from statemix.models import LanguageModel
from tests.ecosystem.layers import LAYERS, build, by_steps, inputs, linears

WORLD = 2


def full(tensor):
    """A tensor put together from its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def loss_of(outputs):
    y, final = outputs
    return y.sin().sum() + final.cos().sum()


def gradients(layer, plain, x, state):
    """The gradients of a sharded layer, and those of the plain one: name -> (sharded, plain)."""
    for one in (layer, plain):
        loss_of(one(x, state)).backward()
    exact = dict(plain.named_parameters())
    return {name: (full(p.grad), exact[name].grad) for name, p in layer.named_parameters()}


def check_same(layer, plain):
    """A split layer gives what the plain one gives: whole, token by token, and on the way back."""
    for T in (7, 1):
        x, state = inputs(plain, T)
        with torch.no_grad():
            want = plain(x, state)
            torch.testing.assert_close(layer(x, state), want)
            torch.testing.assert_close(by_steps(layer, x, state), want)
            torch.testing.assert_close(layer(x), plain(x))
            torch.testing.assert_close(layer.initial_state(2), plain.initial_state(2))


def inputs_to_learn(plain):
    """x and a state: none where the first state is learned, too."""
    x, state = inputs(plain)
    return x, state if plain.initial is None else None


def check_gradients(layer, plain):
    x, state = inputs_to_learn(plain)
    for have, exact in gradients(layer, plain, x, state).values():
        torch.testing.assert_close(
            have, exact
        )  # all ranks see the same batch: a mean over them changes nothing


# FSDP


def sharded_linears(layer):
    """FSDP2 around every linear, then around the layer (which holds the free gates)."""
    for name in linears(layer):
        fully_shard(getattr(layer, name))
    return fully_shard(layer)


def fsdp2(kind):
    plain = build(kind)
    layer = sharded_linears(copy.deepcopy(plain))
    assert all(isinstance(p, DTensor) for p in layer.parameters())
    check_same(layer, plain)
    check_gradients(layer, plain)


def fsdp2_linears_alone(kind):
    """Nothing around the layer itself."""
    plain = build(kind)
    layer = copy.deepcopy(plain)
    for name in linears(layer):
        fully_shard(getattr(layer, name))
    check_same(layer, plain)
    check_gradients(layer, plain)


def fsdp2_layer_alone(kind):
    """One group of everything, brought together when the layer is called."""
    plain = build(kind)
    layer = fully_shard(copy.deepcopy(plain))
    check_same(layer, plain)
    check_gradients(layer, plain)


def fsdp2_half_precision(kind):
    """Weights and inputs in bfloat16 where they are used, float32 where they are kept."""
    plain = build(kind, dtype=torch.float32)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    x, state = inputs(plain, dtype=torch.float32)
    want = plain(x, state)
    for names in ([""], linears(plain)):
        layer = copy.deepcopy(plain)
        for name in names:
            fully_shard(layer.get_submodule(name), mp_policy=policy)
        with torch.no_grad():
            for y, final in (layer(x, state), by_steps(layer, x, state)):
                assert (y.dtype, final.dtype) == (torch.bfloat16, torch.float32)
                torch.testing.assert_close((y.float(), final), want, rtol=0.05, atol=0.05)


def fsdp1(kind):
    plain = build(kind)
    layer = FullyShardedDataParallel(
        copy.deepcopy(plain), auto_wrap_policy=ModuleWrapPolicy({nn.Linear}), device_id=torch.device("cpu"),
        use_orig_params=True,
    )  # fmt: skip
    x, state = inputs(plain)
    want = plain(x, state)
    torch.testing.assert_close(layer(x, state), want)
    with torch.no_grad():
        for T in (7, 1):
            x, state = inputs(plain, T)
            torch.testing.assert_close(layer(x, state), plain(x, state))
    loss_of(layer(x, state)).backward()
    loss_of(plain(x, state)).backward()
    with FullyShardedDataParallel.summon_full_params(layer, with_grads=True):
        for have, exact in zip(layer.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(have.grad, exact.grad)


def fsdp1_step(kind):
    """Every linear is a unit of its own; they are called one by one."""
    plain = build(kind)
    layer = copy.deepcopy(plain)
    for name in linears(layer):
        wrapped = FullyShardedDataParallel(getattr(layer, name), device_id=torch.device("cpu"))
        setattr(layer, name, wrapped)
    check_same(layer, plain)


def sharded_without_numbers(kind, **options):
    with torch.device("meta"):
        layer = build(kind, **options)
    sharded_linears(layer).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(float("nan"))  # what memory may hold
    return layer


def meta_then_reset(kind):
    """FSDP2's way of starting a model too large for one device: meta, shard, to_empty, reset_parameters."""
    options = {"gate_bias": -3.0, "transition_bias": 0.5} if "free" not in kind else {}
    layer, plain = sharded_without_numbers(kind, **options), build(kind, **options)
    torch.manual_seed(dist.get_rank())  # on a CPU torch leaves it to us that shards differ
    layer.reset_parameters()
    check_started_like(layer, plain)


def check_started_like(layer, plain):
    """Filled numbers are equal, drawn ones lie in the same range and differ between shards."""
    exact = dict(plain.named_parameters())
    for name, parameter in layer.named_parameters():
        have, want = full(parameter), exact[name]
        assert have.isfinite().all(), name
        assert have.shape == want.shape, name
        if name == "gates.bias":
            assert torch.equal(have, want)
        else:
            if name != "initial":  # normal
                assert have.amin() >= min(want.amin() * 1.5, 0) and have.amax() <= want.amax() * 1.5, name
            assert (have.std() / want.std() - 1).abs() < 3 * want.numel() ** -0.5, name
            half = have.shape[0] // 2
            assert not torch.equal(have[:half], have[half : 2 * half]), name


def meta_then_walk(kind):
    """As torchtitan does it: every module that has `reset_parameters`, children before parents or after."""
    for order in (iter, reversed):
        layer, plain = sharded_without_numbers(kind), build(kind)
        torch.manual_seed(dist.get_rank())
        for module in order(list(layer.modules())):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        check_started_like(layer, plain)


# Tensor parallelism and data parallelism


PLAN = {
    "gates": lambda: ColwiseParallel(output_layouts=Replicate()),
    "values": lambda: ColwiseParallel(output_layouts=Replicate()),
    "readout_projection": lambda: RowwiseParallel(input_layouts=Replicate()),
}


def tensor_parallel(kind):
    plain = build(kind)
    layer = copy.deepcopy(plain)
    mesh = init_device_mesh("cpu", (WORLD,))
    plan = {name: PLAN[name]() for name in linears(layer)}
    layer = parallelize_module(layer, mesh, plan)
    assert layer.values.weight.placements == (Shard(0),)
    check_same(layer, plain)
    check_gradients(layer, plain)


def tensor_parallel_and_sharded(kind):
    """Two kinds of splitting on one layer (a mesh of 1 × 2)."""
    plain = build(kind)
    layer = copy.deepcopy(plain)
    mesh = init_device_mesh("cpu", (1, WORLD), mesh_dim_names=("data", "tensor"))
    layer = parallelize_module(layer, mesh["tensor"], {name: PLAN[name]() for name in linears(layer)})
    for name in linears(layer):
        fully_shard(getattr(layer, name), mesh=mesh["data"])
    check_same(layer, plain)
    check_gradients(layer, plain)


def ddp(kind):
    plain = build(kind)
    layer = DistributedDataParallel(copy.deepcopy(plain))
    x, state = inputs_to_learn(plain)
    rank = dist.get_rank()  # each rank its own half of the batch
    mine = x[rank:][:1], None if state is None else state[rank:][:1]
    loss_of(layer(*mine)).backward()
    (loss_of(plain(x, state)) / WORLD).backward()
    for have, exact in zip(layer.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(have.grad, exact.grad)
    check_same(layer.module, plain)


MIXERS = {
    "bdlru": lambda dim: BDLRU(dim, block_size=2, num_blocks=6),
    "hlru-window": lambda dim: HLRU(dim, order=2, num_channels=6),
    "start": lambda dim: BDLRU(dim, block_size=2, num_blocks=6, hard=True, learned_initial_state=True),
}


def whole_model(kind):
    """FSDP2 around every linear of a language model and around its layers: logits, gradients, one optimiser step."""
    torch.manual_seed(0)
    plain = LanguageModel(11, 8, MIXERS[kind]).double()
    model = copy.deepcopy(plain)
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            fully_shard(module)
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)
    tokens = torch.randint(11, (2, 6))
    for one in (model, plain):
        optimizer = torch.optim.AdamW(one.parameters(), lr=0.1)
        one(tokens)[0].logsumexp(-1).mean().backward()
        optimizer.step()
    torch.testing.assert_close(model(tokens), plain(tokens))


def whole_model_from_meta(kind):
    """A model built without memory, sharded, reset: finite logits and the constructor's distribution."""
    build_model = lambda: LanguageModel(11, 16, MIXERS[kind])  # noqa: E731
    with torch.device("meta"):
        model = build_model()
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(full(p).isfinite().all() for p in model.parameters())
    logits, _ = model(torch.randint(11, (2, 6)))
    assert logits.isfinite().all()


BOTH = ("bdlru-free", "hlru-window")
KINDS = {
    **dict.fromkeys((fsdp2, tensor_parallel), tuple(LAYERS)),
    **dict.fromkeys(
        (fsdp2_linears_alone, fsdp2_layer_alone, fsdp2_half_precision, fsdp1, fsdp1_step, ddp), BOTH
    ),
    tensor_parallel_and_sharded: BOTH,
    **dict.fromkeys((fsdp2_layer_alone, ddp), (*BOTH, "hlru-start")),
    **dict.fromkeys((meta_then_reset, meta_then_walk), ("bdlru", "hlru-free", "hlru-start")),
    **dict.fromkeys((whole_model, whole_model_from_meta), tuple(MIXERS)),
}
"""The layers or models of each check: all of them for one that reads whole linears and one that splits them."""
CHECKS = {f"{check.__name__}[{kind}]": (check, kind) for check, kinds in KINDS.items() for kind in kinds}


def main(rank, file):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    try:
        for name, (check, kind) in CHECKS.items():
            try:
                torch.manual_seed(rank)
                check(kind)
                trouble = ""
            except Exception as error:
                trouble = "".join(traceback.format_exception(error))
            print(json.dumps({"check": name, "trouble": trouble}), flush=True)
    finally:
        dist.destroy_process_group()
