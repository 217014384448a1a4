"""Hugging Face models of Statemix's layers (extra `hf`).

Importing the module registers the models with AutoConfig, AutoModel and AutoModelForCausalLM.

import statemix.hf
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("folder")
"""

from statemix.extras import require

require("transformers")

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM  # noqa: E402

from statemix.hf.cache import Snapshot, StatemixCache  # noqa: E402
from statemix.hf.configuration import StatemixConfig  # noqa: E402
from statemix.hf.decoding import DECODERS  # noqa: E402
from statemix.hf.modeling import StatemixForCausalLM, StatemixModel, StatemixPreTrainedModel  # noqa: E402
from statemix.hf.runs import config_of, from_language_model, from_run, to_language_model  # noqa: E402

AutoConfig.register("statemix", StatemixConfig, exist_ok=True)
AutoModel.register(StatemixConfig, StatemixModel, exist_ok=True)
AutoModelForCausalLM.register(StatemixConfig, StatemixForCausalLM, exist_ok=True)

__all__ = [
    "DECODERS", "Snapshot", "StatemixCache", "StatemixConfig", "StatemixForCausalLM", "StatemixModel",
    "StatemixPreTrainedModel", "config_of", "from_language_model", "from_run", "to_language_model",
]  # fmt: skip
