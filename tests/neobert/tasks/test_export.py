"""`neobert export` writes what Hugging Face's libraries load, and computes what the source does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from neobert.config import ConfigError, validate
from neobert.config.export import ExportConfig
from neobert.data.tokenizing import train_wordpiece
from neobert.model import NeoBERT, NeoBERTForMaskedLM, NeoBERTForSequenceClassification, NeoBERTForTokenClassification
from neobert.tasks import export
from neobert.training.distributed import Ranks
from neobert.training.files import TrialFiles
from neobert.training.preemption import Preemption
from tests.neobert.checkpoint.models import logits, made, plain, split, write_settings


def run(source: Path, output: Path, **settings: Any) -> Path:
    """The exported directory."""
    output.mkdir(exist_ok=True)
    config = validate(ExportConfig, {"source": str(source), **settings})
    assert export.run(config, TrialFiles(output), Ranks(), Preemption()) == 0
    return output / "model"


@pytest.fixture(scope="session")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_wordpiece([("some words to know",)], 60, 32).save_pretrained(path)
    return path


def save(model: Any, path: Path, tokenizer: Path) -> Path:
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("kind", "auto", "name"),
    [
        (NeoBERTForMaskedLM, AutoModelForMaskedLM, "NeoBERTLMHead"),
        (NeoBERTForSequenceClassification, AutoModelForSequenceClassification, "NeoBERTForSequenceClassification"),
        (NeoBERT, AutoModel, "NeoBERT"),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True, "decoder_bias": False}])
def test_it_loads_through_the_auto_class_and_names_the_published_code(
    kind: Any, auto: Any, name: str, settings: dict[str, Any], tokenizer_of: Path, tmp_path: Path
) -> None:
    model = made(kind, **settings)
    written = run(save(model, tmp_path / "source", tokenizer_of), tmp_path / "out")
    loaded = auto.from_pretrained(written)
    assert type(loaded) is kind
    assert torch.equal(logits(loaded.eval()), logits(model))
    config = json.loads((written / "config.json").read_text())
    assert config["auto_map"][auto.__name__] == f"chandar-lab/NeoBERT--model.{name}"
    assert (config["model_type"], config["max_length"], config["architectures"]) == ("neobert", 32, [name])
    assert AutoTokenizer.from_pretrained(written).model_max_length == 32


def test_the_published_code_finds_a_decoder_of_its_own_with_a_bias(tokenizer_of: Path, tmp_path: Path) -> None:
    tied = made(tie_word_embeddings=True, decoder_bias=False)
    weights = load_file(run(save(tied, tmp_path / "source", tokenizer_of), tmp_path / "out") / "model.safetensors")
    assert torch.equal(weights["decoder.weight"], weights["model.encoder.weight"])
    assert not weights["decoder.bias"].any()
    assert set(weights) == set(made().state_dict())


def test_an_older_training_becomes_a_model_with_its_tokenizer(tokenizer_of: Path, tmp_path: Path) -> None:
    model, step = made(), tmp_path / "old" / "checkpoints" / "700"
    write_settings(step / "config.yaml")
    save_file(split(plain(model)), step / "model.safetensors")
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(step / "tokenizer")
    written = run(tmp_path / "old", tmp_path / "out")
    assert torch.equal(logits(AutoModelForMaskedLM.from_pretrained(written).eval()), logits(model))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["layout"], result["metric"]) == ("safetensors", "weights")
    assert result["score"] == result["metrics"]["weights"] == sum(each.numel() for each in model.parameters())
    assert result["metrics"]["largest_difference"] == 0.0
    card = (written / "README.md").read_text()
    assert "| came from | `checkpoints/700`, in the layout safetensors |" in card
    assert "trust_remote_code=True" in card


def test_a_tokenizer_of_bert_is_exported_without_token_types(minilm: Path, tmp_path: Path) -> None:
    made(vocab_size=30522).save_pretrained(tmp_path / "source")
    assert "token_type_ids" in AutoTokenizer.from_pretrained(minilm)("a")
    written = run(tmp_path / "source", tmp_path / "out", tokenizer=str(minilm))
    encoded = AutoTokenizer.from_pretrained(written)("some words", return_tensors="pt")
    assert AutoModelForMaskedLM.from_pretrained(written)(**encoded).logits.shape == (1, 4, 30522)


def test_the_readme_tells_the_score_of_the_trial(tokenizer_of: Path, tmp_path: Path) -> None:
    save(made(), tmp_path / "trial" / "model", tokenizer_of)
    score = {"task": "pretrain", "metric": "masked_accuracy", "score": 0.51234}
    (tmp_path / "trial" / "result.json").write_text(json.dumps(score))
    written = run(tmp_path / "trial", tmp_path / "out")
    assert "| pretrain: masked_accuracy | 0.5123 |" in (written / "README.md").read_text()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_the_precision_is_half_the_size(dtype: str, tokenizer_of: Path, tmp_path: Path) -> None:
    written = run(save(made(), tmp_path / "source", tokenizer_of), tmp_path / "out", dtype=dtype)
    weights = load_file(written / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {getattr(torch, dtype)}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert 0 < result["metrics"]["largest_difference"] < 0.1


def test_what_the_published_code_cannot_compute_is_exported_for_neobert_alone(
    tokenizer_of: Path, tmp_path: Path
) -> None:
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16}
    for name, model, reason in [
        ("stretched", made(rope_parameters=stretched), "it knows no stretched RoPE, and this is a linear one"),
        ("base", made(rope_theta=50000.0), "its RoPE has the base 10000, and this one 50000"),
        (
            "mean",
            made(NeoBERTForSequenceClassification, classifier_pooling="mean"),
            "its head looks at the first token alone, and this one at the mean",
        ),
        ("tokens", made(NeoBERTForTokenClassification), "it has nothing like NeoBERTForTokenClassification"),
    ]:
        source = save(model, tmp_path / name, tokenizer_of)
        with pytest.raises(ConfigError, match=f"hub_code: the code of .*: {reason}. Set hub_code: false"):
            run(source, tmp_path / f"{name}-out")
        written = run(source, tmp_path / f"{name}-out", hub_code=False)
        loaded = type(model).from_pretrained(written).eval()
        assert torch.equal(logits(loaded), logits(model))
        assert "auto_map" not in json.loads((written / "config.json").read_text())


def test_an_interrupted_export_is_written_anew(tokenizer_of: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "half.safetensors").touch()
    written = run(save(made(), tmp_path / "source", tokenizer_of), tmp_path / "out")
    assert not (written / "half.safetensors").exists()


def test_all_files_of_an_export_may_be_read_by_whom_the_umask_allows(tokenizer_of: Path, tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        written = run(save(made(), tmp_path / "source", tokenizer_of), tmp_path / "out")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in written.iterdir()} == {0o664}


@pytest.mark.parametrize(
    ("source", "output"), [("model", "."), ("model/inner", "."), ("model", "model"), ("model", "model/sub")]
)
def test_the_source_is_never_overwritten(tokenizer_of: Path, tmp_path: Path, source: str, output: str) -> None:
    found = save(made(), tmp_path / source, tokenizer_of)
    before = {path: path.read_bytes() for path in found.iterdir()}
    with pytest.raises(ConfigError, match=r"^source: .* are in one another. Choose another --output-dir"):
        run(found, tmp_path / output)
    assert {path: path.read_bytes() for path in found.iterdir() if path.is_file()} == before


def test_mistakes_are_told_at_their_setting(tokenizer_of: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source: .*none does not exist"):
        run(tmp_path / "none", tmp_path / "out")
    made().save_pretrained(tmp_path / "source")
    with pytest.raises(ConfigError, match="tokenizer: is needed: none lies with"):
        run(tmp_path / "source", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"tokenizer.name_or_path: .*no tokenizer can be loaded"):
        run(tmp_path / "source", tmp_path / "out", tokenizer=str(tmp_path / "nothing"))
    save(made(vocab_size=10), tmp_path / "source", tokenizer_of)
    with pytest.raises(ConfigError, match=r"tokenizer: .* has \d+ entries, but the model only 10 embeddings"):
        run(tmp_path / "source", tmp_path / "out")


def test_the_settings_need_no_torch() -> None:
    code = "import sys, neobert.config.export; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
