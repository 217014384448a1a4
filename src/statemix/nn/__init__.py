"""The two layers, the block around them, and mixers by name."""

from statemix.nn.bdlru import BDLRU
from statemix.nn.block import NORMS, Block, BlockState, Stack, SwiGLU
from statemix.nn.convolution import ShortConvolution
from statemix.nn.hlru import HLRU
from statemix.nn.padding import map_state
from statemix.nn.registry import MIXERS, build_mixer, mixer_functions, mixers_in_turn
from statemix.nn.weights import load_block_major

__all__ = [
    "BDLRU",
    "HLRU",
    "MIXERS",
    "NORMS",
    "Block",
    "BlockState",
    "ShortConvolution",
    "Stack",
    "SwiGLU",
    "build_mixer",
    "load_block_major",
    "map_state",
    "mixer_functions",
    "mixers_in_turn",
]
