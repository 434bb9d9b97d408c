"""NeoBERT as a Hugging Face model; importing this registers it under the model type `neobert`."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from neobert.model.configuration import NeoBERTConfig
from neobert.model.modeling import NeoBERT, NeoBERTForSequenceClassification

AutoConfig.register(NeoBERTConfig.model_type, NeoBERTConfig)
AutoModel.register(NeoBERTConfig, NeoBERT)
AutoModelForSequenceClassification.register(NeoBERTConfig, NeoBERTForSequenceClassification)

__all__ = ["NeoBERT", "NeoBERTConfig", "NeoBERTForSequenceClassification"]
