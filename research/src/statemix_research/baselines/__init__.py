"""Layers that statemix is compared with: one file each, with the contract of a mixer (`statemix.nn.mixer`)."""

BASELINES = {
    "lstm": "statemix_research.baselines.lstm:LSTM",
    "lru": "statemix_research.baselines.lru:LRU",
    "mamba2": "statemix_research.baselines.mamba2:Mamba2",
    "deltanet": "statemix_research.baselines.deltanet:DeltaNet",
    "gated_deltanet": "statemix_research.baselines.deltanet:GatedDeltaNet",
    "gated_deltaproduct": "statemix_research.baselines.deltanet:GatedDeltaProduct",
    "rwkv7": "statemix_research.baselines.rwkv7:RWKV7",
    "mlstm": "statemix_research.baselines.mlstm:MLSTM",
    "slstm": "statemix_research.baselines.slstm:SLSTM",
    "attention": "statemix_research.baselines.attention:Attention",
    "pdssm": "statemix_research.baselines.pdssm:PDSSM",
}
"""The registry: name -> "module:Class", imported on first use. The entry point "statemix.mixers" names it."""
