"""The two backbones of the paper, for any mixer."""

from statemix.models.autoencoder import Autoencoder
from statemix.models.language_model import Backbone, LanguageModel
from statemix.nn.block import NORMS, SwiGLU

MODELS: dict[str, type[Backbone]] = {"language_model": LanguageModel, "autoencoder": Autoencoder}
"""Every model by name; a task says which it wants (`task.backbone`)."""

__all__ = ["MODELS", "NORMS", "Autoencoder", "Backbone", "LanguageModel", "SwiGLU"]
