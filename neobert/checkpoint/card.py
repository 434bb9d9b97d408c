"""The README of an exported model: what it is, where it came from, and how to load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neobert import __version__
from neobert.checkpoint.load import Loaded
from neobert.checkpoint.write import HUB
from neobert.config.export import ExportConfig
from neobert.training.files import TrialFiles, write_text

_KINDS = {
    "NeoBERT": ("AutoModel", "feature-extraction", "an encoder without a head"),
    "NeoBERTForMaskedLM": ("AutoModelForMaskedLM", "fill-mask", "an encoder under a head for masked words"),
    "NeoBERTForSequenceClassification": (
        "AutoModelForSequenceClassification", "text-classification", "an encoder under a head for whole texts"),
    "NeoBERTForTokenClassification": (
        "AutoModelForTokenClassification", "token-classification", "an encoder under a head for each token"),
}  # fmt: skip


def write_card(directory: Path, loaded: Loaded, tokenizer: Any, config: ExportConfig) -> None:
    """Writes README.md."""
    auto, pipeline, kind = _KINDS[type(loaded.model).__name__]
    shape = loaded.model.config
    size = sum(weight.numel() for weight in loaded.model.parameters())
    facts = {
        "weights": f"{size / 1e6:.1f} M, {config.dtype}",
        "blocks x hidden size": f"{shape.num_hidden_layers} x {shape.hidden_size}, {shape.num_attention_heads} heads",
        "longest text": f"{shape.max_position_embeddings} tokens",
        "vocabulary": f"{shape.vocab_size} embeddings, {len(tokenizer)} entries of the tokenizer",
        "came from": f"`{'/'.join(loaded.found.directory.parts[-2:])}`, in the layout {loaded.found.layout}",
        "exported by": f"neobert {__version__}",
        **_scores(loaded.found.directory),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    ways = [f"import neobert.model  # registers the class\nfrom transformers import {auto}, AutoTokenizer",
            f'model = {auto}.from_pretrained("PATH")',
            'tokenizer = AutoTokenizer.from_pretrained("PATH")']  # fmt: skip
    code = "\n".join(ways)
    text = (
        f"---\nlibrary_name: transformers\npipeline_tag: {pipeline}\ntags: [neobert]\n---\n\n"
        f"# A NeoBERT: {kind}\n\n| | |\n|---|---|\n{rows}\n\nWith neobert installed:\n\n```python\n{code}\n```\n"
    )
    if config.hub_code:
        text += (
            f"\nWithout it, by the published code of [{HUB}](https://huggingface.co/{HUB}):\n\n```python\n"
            f'{auto}.from_pretrained("PATH", trust_remote_code=True)\n```\n'
        )
    write_text(directory / "README.md", text)


def _scores(source: Path) -> dict[str, str]:
    """What the trial that the checkpoint lies in came to, if it is one of ours."""
    for directory in list(source.parents)[:2]:
        result = TrialFiles(directory).result
        if result.is_file():
            found = json.loads(result.read_text(encoding="utf-8"))
            return {f"{found['task']}: {found['metric']}": f"{found['score']:.4g}"}
    return {}
