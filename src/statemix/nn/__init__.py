"""The two layers, and mixers by name."""

from statemix.nn.bdlru import BDLRU
from statemix.nn.hlru import HLRU
from statemix.nn.registry import MIXERS, build_mixer
from statemix.nn.weights import load_block_major

__all__ = ["BDLRU", "HLRU", "MIXERS", "build_mixer", "load_block_major"]
