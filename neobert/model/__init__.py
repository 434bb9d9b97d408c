"""NeoBERT as a Hugging Face model; importing this registers it under the model type `neobert`."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from neobert.model.configuration import NeoBERTConfig
from neobert.model.modeling import (
    NeoBERT,
    NeoBERTForMaskedLM,
    NeoBERTForSequenceClassification,
    NeoBERTForTokenClassification,
)

AutoConfig.register(NeoBERTConfig.model_type, NeoBERTConfig)
AutoModel.register(NeoBERTConfig, NeoBERT)
AutoModelForMaskedLM.register(NeoBERTConfig, NeoBERTForMaskedLM)
AutoModelForSequenceClassification.register(NeoBERTConfig, NeoBERTForSequenceClassification)
AutoModelForTokenClassification.register(NeoBERTConfig, NeoBERTForTokenClassification)

__all__ = [
    "NeoBERT",
    "NeoBERTConfig",
    "NeoBERTForMaskedLM",
    "NeoBERTForSequenceClassification",
    "NeoBERTForTokenClassification",
]
