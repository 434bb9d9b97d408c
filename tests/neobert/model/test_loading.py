"""A pretrained encoder is used as a whole or refused; only its head may be new."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from neobert.config import ConfigError
from neobert.config.sections import ModelConfig
from neobert.data.examples import Splits
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from neobert.model import NeoBERTForSequenceClassification, verify
from neobert.model.loading import Classifier, build_classifier
from neobert.training.best_trial import NoBestTrial, best_trial
from tests.neobert.checkpoint.models import made, plain, split, wrapped, write_settings
from tests.neobert.conftest import as_if_trained


def build(path: Path, task: str = "rte", max_length: int = 32, **settings: object) -> Classifier:
    config = ModelConfig(name_or_path=str(path), **settings)  # type: ignore[arg-type]
    return build_classifier(config, splits(task), max_length, None)


def splits(task: str) -> Splits:
    return generated_splits(TASKS[task], 40)


@pytest.fixture
def own_copy(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def change_weights(path: Path, change: object) -> None:
    weights = load_file(path / "model.safetensors")
    changed = change(weights)  # type: ignore[operator]
    save_file(changed, path / "model.safetensors", metadata={"format": "pt"})


def test_an_encoder_under_a_new_head_keeps_every_weight(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = build(tiny_bert, "mnli").model
    saved = load_file(tiny_bert / "model.safetensors")
    loaded = model.state_dict()
    encoder = [name for name in saved if name.startswith("bert.")]
    assert len(encoder) > 30
    assert all(torch.equal(saved[name], loaded[name]) for name in encoder)
    # A model pretrained on masked words has no pooler; it is part of the head.
    told = "4 new (bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias, classifier.weight), "
    assert f"weights of {tiny_bert}: {len(encoder)} loaded, {told}" in caplog.text
    assert "not used (cls.predictions.bias" in caplog.text


def test_the_model_knows_the_tasks_classes_in_our_order(tiny_bert: Path) -> None:
    config = build(tiny_bert, "mnli").model.config
    assert config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert config.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert (config.num_labels, config.problem_type) == (3, "single_label_classification")
    regression = build(tiny_bert, "stsb").model.config
    assert (regression.num_labels, regression.problem_type) == (1, "regression")


def test_a_real_encoder_is_loaded_whole(minilm: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        classifier = build(minilm, max_length=128)
    (message,) = caplog.messages
    assert message.startswith(f"weights of {minilm}: 103 loaded, 2 new (classifier.bias, classifier.weight)")
    assert classifier.inputs == ["input_ids", "token_type_ids", "attention_mask"]
    assert sum(weight.numel() for weight in classifier.model.parameters()) > 22e6


def test_weights_of_half_precision_are_trained_in_full(own_copy: Path) -> None:
    change_weights(own_copy, lambda weights: {name: weight.half() for name, weight in weights.items()})
    assert {weight.dtype for weight in build(own_copy).model.parameters()} == {torch.float32}


LAYER = "bert.encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {k: v for k, v in weights.items() if k != LAYER}, rf"1 not in the checkpoint \({LAYER}"),
        (
            lambda weights: {f"module.{k}": v for k, v in weights.items() if k != LAYER},
            rf"1 not in the checkpoint \({LAYER}",
        ),
        (
            lambda weights: weights | {LAYER: torch.zeros(16, 48)},
            rf"1 of another shape \({LAYER} \(16, 48\) instead of \(16, 32\)",
        ),
        (lambda weights: weights | {LAYER: torch.full((16, 32), torch.nan)}, rf"1 not finite \({LAYER}"),
        (lambda weights: weights | {LAYER: torch.full((16, 32), -torch.inf)}, rf"1 not finite \({LAYER}"),
        (lambda weights: weights | {LAYER.replace("1", "2"): torch.zeros(16, 32)}, r"1 not in the model \(bert.encod"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(own_copy: Path, change: object, message: str) -> None:
    change_weights(own_copy, change)
    with pytest.raises(ConfigError, match=rf"model.name_or_path: .*/model' does not fit its config.json.*{message}"):
        build(own_copy)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.module."])
def test_names_that_a_wrapper_has_prefixed_are_unwrapped(tiny_bert: Path, own_copy: Path, wrapper: str) -> None:
    change_weights(own_copy, lambda weights: {f"{wrapper}{name}": weight for name, weight in weights.items()})
    model = build(own_copy).model
    for name, weight in load_file(tiny_bert / "model.safetensors").items():
        assert name not in model.state_dict() or torch.equal(model.state_dict()[name], weight)
    model.save_pretrained(own_copy / "again")
    assert LAYER in load_file(own_copy / "again" / "model.safetensors")


def test_weights_of_a_wrong_value_are_refused_in_a_head_that_is_kept(tiny_bert: Path, tmp_path: Path) -> None:
    trained = build(tiny_bert)
    trained.model.classifier.bias.data[1] = torch.nan
    trained.model.save_pretrained(tmp_path)
    trained.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"weights: 1 not finite \(classifier.bias"):
        build(tmp_path)


@pytest.mark.parametrize("kind", ["BERT", "NeoBERT"])
def test_what_a_model_says_of_its_outputs_is_overridden(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    a_head_for("entailment not_entailment", kind, tiny_bert, tmp_path, ("id2label",))
    shape = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(shape | {"return_dict": False, "output_attentions": True}))
    model = build(tmp_path).model
    assert "logits" in model(torch.tensor([[5, 6, 7]]))
    model.save_pretrained(tmp_path / "saved")


def test_a_head_of_another_size_is_made_anew_and_one_of_other_classes_is_told(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = build(tiny_bert, "rte")
    trained.model.save_pretrained(tmp_path)
    trained.tokenizer.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        assert build(tmp_path, "mnli").model.classifier.weight.shape == (3, 16)
    assert "2 new (classifier.bias, classifier.weight)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        other = build(tmp_path, "sst2").model
    assert torch.equal(other.classifier.weight, trained.model.classifier.weight)
    assert (
        "has a head for the classes entailment, not_entailment; it is trained on as a head for negative, positive"
        in (caplog.text)
    )
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build(tmp_path, "rte")
    assert " new " not in caplog.text
    assert "has a head" not in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "holds no checkpoint: no model.safetensors, state_dict.pt, or DeepSpeed's"),
        (lambda path: path.touch(), "is a file; name the directory that it lies in"),
        (lambda path: path, "there is no directory '/"),
        (
            lambda path: (path.mkdir(), (path / "config.json").write_text("{}"), (path / "model.safetensors").touch()),
            "but no model can be loaded from it: ",
        ),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "model")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=rf"^model.name_or_path: .*{message}") as caught:
        build(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_truncated_weight_file_is_refused_with_the_reason(own_copy: Path) -> None:
    weights = own_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    reason = r"model.safetensors cannot be read: it is cut short .*\. Fetch or copy it again$"
    with pytest.raises(ConfigError, match=f"is a directory, but no model can be loaded from it: .*{reason}"):
        build(own_copy)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", LFS, "model.safetensors cannot be read: it is a pointer of Git LFS"),
        ("model.safetensors", bytes(5000), "model.safetensors cannot be read: it holds zeros"),
        ("pytorch_model.bin", LFS, "pytorch_model.bin cannot be read: it is a pointer of Git LFS"),
        ("pytorch_model.bin", b"what is this", "pytorch_model.bin cannot be read: it is cut short or damaged"),
        (
            "pytorch_model.bin",
            pickle.dumps({"a": 1}, 2),
            "pytorch_model.bin cannot be read: it is cut short or damaged",
        ),
        ("config.json", b"[]", r"config.json cannot be read: it is damaged \(expected a mapping"),
        ("config.json", b'{"model_ty', r"config.json cannot be read: it is damaged"),
        ("tokenizer.json", LFS, "tokenizer.json cannot be read: it is a pointer of Git LFS"),
    ],
)
def test_a_damaged_file_is_named_and_what_to_do(own_copy: Path, name: str, content: bytes, message: str) -> None:
    if name == "pytorch_model.bin":
        (own_copy / "model.safetensors").unlink()
    (own_copy / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"^model.name_or_path: .*{message}.*Fetch or copy it again$") as caught:
        build(own_copy)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size 24 is no multiple of 2 x num_attention_heads 5"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; expected a whole number above 0"),
        ({"intermediate_size": None}, "intermediate_size.* None"),
        ({"hidden_size": "24"}, "hidden_size.*24"),
        ({"pad_token_id": 9999}, r"pad_token_id is 9999, and there are \d+ embeddings"),
    ],
)
def test_a_configuration_of_ours_that_cannot_be_built_is_told_why(
    tiny_bert: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = saved(tiny_bert, tmp_path / "ours", made(vocab_size=entries_of(tiny_bert)))
    (path / "config.json").write_text(json.dumps(json.loads((path / "config.json").read_text()) | change))
    with pytest.raises(ConfigError, match=rf"^model.name_or_path: .*{message}") as caught:
        build(path)
    assert "\n" not in str(caught.value)


def test_a_hub_name_without_a_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"(?s)did not give such a model.*`recipe fetch RE.*fetch --model no-such/model`"
    ):
        build(Path("no-such/model"))


def test_examples_longer_than_the_model_takes_are_refused_before_training(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data.max_length: is 65, but the model takes at most 64"):
        build(tiny_bert, max_length=65)


def test_a_tokenizer_of_another_vocabulary_is_refused(tiny_bert: Path, own_copy: Path) -> None:
    settings = json.loads((own_copy / "config.json").read_text()) | {"vocab_size": 50}
    (own_copy / "config.json").write_text(json.dumps(settings))
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        change_weights(own_copy, lambda weights, name=name: weights | {name: weights[name][:50].clone()})
    with pytest.raises(ConfigError, match=r"^model.tokenizer: has \d+ entries, but the model only 50 embeddings"):
        build(own_copy, tokenizer=str(tiny_bert))


def vocabulary_of(path: Path, words: int) -> None:
    """Leaves so many entries of a tokenizer."""
    file = path / "tokenizer.json"
    settings = json.loads(file.read_text())
    vocabulary = settings["model"]["vocab"]
    settings["model"]["vocab"] = {word: number for word, number in vocabulary.items() if number < words}
    file.write_text(json.dumps(settings))


@pytest.mark.parametrize("left", [0, 5])
def test_a_directory_without_its_vocabulary_is_refused(own_copy: Path, left: int) -> None:
    if left:
        vocabulary_of(own_copy, left)
    else:
        for file in own_copy.glob("token*"):
            file.unlink()
    with pytest.raises(
        ConfigError, match=r"model.name_or_path: .*/model' holds a tokenizer of 5 entries, which knows no"
    ):
        build(own_copy)


def test_a_vocabulary_that_is_cut_short_is_warned_of(own_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    vocabulary_of(own_copy, 45)
    build(own_copy)
    assert f"the tokenizer of {own_copy} has 45 entries, and the model " in caplog.text
    assert re.search(rf"\d\d % of the training texts are unknown to the tokenizer of {own_copy}", caplog.text)


def test_a_look_at_the_vocabulary_does_not_complain_of_long_texts(tiny_bert: Path) -> None:
    """They are cut when they are tokenised in earnest."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert, model_max_length=4)
    verify.check_vocabulary("x", "name_or_path", tokenizer, [("the film is good and it is long",)])
    assert not tokenizer.deprecation_warnings.get("sequence-length-is-longer-than-the-specified-maximum")


REMOTE = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

class Config(PreTrainedConfig):
    model_type = "strange"

class Classifier(PreTrainedModel):
    config_class = Config
    base_model_prefix = {prefix!r}
    def __init__(self, config):
        super().__init__(config)
        self.backbone = torch.nn.Sequential(torch.nn.Embedding(config.vocab_size, 16), torch.nn.Linear(16, 16))
        self.head = torch.nn.Linear(16, config.num_labels)
        self.post_init()
    def _init_weights(self, module):
        pass
    def forward(self, input_ids, attention_mask=None):
        return SequenceClassifierOutput(logits=self.head(self.backbone(input_ids).mean(1)))
"""


@pytest.mark.parametrize("prefix", ["", "model"])
def test_an_encoder_that_does_not_say_where_it_is_is_verified_too(own_copy: Path, prefix: str) -> None:
    """As in code that comes with a model. Its largest part is what must have been loaded."""
    (own_copy / "strange.py").write_text(REMOTE.format(prefix=prefix))
    entries = json.loads((own_copy / "config.json").read_text())["vocab_size"]
    code = {"AutoConfig": "strange.Config", "AutoModelForSequenceClassification": "strange.Classifier"}
    (own_copy / "config.json").write_text(
        json.dumps({"model_type": "strange", "vocab_size": entries, "auto_map": code})
    )
    backbone = {"0.weight": torch.zeros(entries, 16), "1.weight": torch.zeros(16, 16), "1.bias": torch.zeros(16)}
    change_weights(own_copy, lambda _: {f"backbone.{name}": weight for name, weight in backbone.items()})
    build(own_copy, trust_remote_code=True)
    change_weights(own_copy, lambda _: {"other.weight": torch.zeros(3)})
    with pytest.raises(ConfigError, match=r"3 not in the checkpoint \(backbone.0.weight, backbone.1.bias, "):
        build(own_copy, trust_remote_code=True)


def test_no_layer_of_a_bare_encoder_is_left_over(own_copy: Path) -> None:
    """Its checkpoint does not name the encoder."""
    change_weights(own_copy, lambda weights: {
        name.removeprefix("bert."): weight for name, weight in weights.items() if name.startswith("bert.")
    })  # fmt: skip
    build(own_copy)
    settings = json.loads((own_copy / "config.json").read_text()) | {"num_hidden_layers": 1}
    (own_copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"16 not in the model \(encoder.layer.1.attention"):
        build(own_copy)


def saved(tokens_of: Path, path: Path, model: transformers.PreTrainedModel) -> Path:
    as_if_trained(model).save_pretrained(path)
    for file in tokens_of.glob("token*"):
        shutil.copy(file, path)
    return path


SIZE: dict[str, int] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def entries_of(tiny_bert: Path) -> int:
    """How many the tokenizer of a directory has."""
    return len(json.loads((tiny_bert / "tokenizer.json").read_text())["model"]["vocab"])


def test_classifier_dropout_has_another_name_in_other_models(tiny_bert: Path, tmp_path: Path) -> None:
    entries = entries_of(tiny_bert)
    shape = transformers.DistilBertConfig(vocab_size=entries, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    distil = transformers.DistilBertModel(shape)
    deberta = transformers.DebertaV2Model(transformers.DebertaV2Config(vocab_size=entries, **SIZE))
    for name, model in (("distil", distil), ("deberta", deberta)):
        path = saved(tiny_bert, tmp_path / name, model)
        assert build(path, classifier_dropout=0.37).model.dropout.p == 0.37
    mpnet = transformers.MPNetModel(transformers.MPNetConfig(vocab_size=entries, **SIZE))
    path = saved(tiny_bert, tmp_path / "mpnet", mpnet)
    with pytest.raises(ConfigError, match=r"model.classifier_dropout: cannot be set for .*: the head of mpnet models"):
        build(path, classifier_dropout=0.37)


def test_the_head_looks_at_what_was_asked_for_where_it_has_the_choice(tiny_bert: Path, tmp_path: Path) -> None:
    def asked_of(path: Path, **settings: object) -> str:
        return str(build(path, **settings).model.config.classifier_pooling)

    shape = transformers.ModernBertConfig(vocab_size=entries_of(tiny_bert), pad_token_id=0, **SIZE)
    modern = saved(tiny_bert, tmp_path / "modern", transformers.ModernBertModel(shape))
    own = saved(tiny_bert, tmp_path / "own", made(vocab_size=entries_of(tiny_bert)))
    for path in (modern, own):
        assert asked_of(path) == "cls"
        assert asked_of(path, classifier_pooling="mean") == "mean"
    trained = saved(tiny_bert, tmp_path / "trained", made(
        NeoBERTForSequenceClassification, vocab_size=entries_of(tiny_bert), classifier_pooling="mean"
    ))  # fmt: skip
    assert asked_of(trained) == "mean"  # as it was trained
    assert asked_of(trained, classifier_pooling="cls") == "cls"
    with pytest.raises(ConfigError, match=r"model.classifier_pooling: cannot be set for .*: the head of bert models"):
        build(tiny_bert, classifier_pooling="mean")
    new = ModelConfig(
        allow_random_weights=True, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=200,
        classifier_pooling="mean",
    )  # fmt: skip
    assert build_classifier(new, splits("rte"), 32, None).model.config.classifier_pooling == "mean"


def test_a_model_without_a_vocabulary_has_an_embedding_for_every_character(tmp_path: Path) -> None:
    shape = transformers.CanineConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                      num_hash_buckets=64)  # fmt: skip
    as_if_trained(transformers.CanineModel(shape)).save_pretrained(tmp_path)
    transformers.CanineTokenizer().save_pretrained(tmp_path)
    assert build(tmp_path).model.config.model_type == "canine"


def test_positions_that_begin_behind_that_of_padding_are_fewer(tiny_bert: Path, tmp_path: Path) -> None:
    shape = transformers.RobertaConfig(
        vocab_size=entries_of(tiny_bert), max_position_embeddings=34, pad_token_id=1, **SIZE
    )
    path = saved(tiny_bert, tmp_path / "roberta", transformers.RobertaModel(shape))
    build(path, max_length=32)
    with pytest.raises(ConfigError, match=r"^data.max_length: is 33, but the model takes at most 32"):
        build(path, max_length=33)


def test_a_model_may_have_no_limit(tiny_bert: Path, tmp_path: Path) -> None:
    shape = transformers.XLNetConfig(vocab_size=entries_of(tiny_bert), d_model=16, n_layer=1, n_head=2, d_inner=32)
    build(saved(tiny_bert, tmp_path / "xlnet", transformers.XLNetModel(shape)), max_length=60)


def test_the_published_configuration_names_its_length_differently(tmp_path: Path) -> None:
    settings = {"model_type": "neobert", "max_length": 4096, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert transformers.AutoConfig.from_pretrained(tmp_path).max_position_embeddings == 4096
    (tmp_path / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 512}))
    assert transformers.AutoConfig.from_pretrained(tmp_path).max_position_embeddings == 512


def test_classifier_dropout_reaches_a_pretrained_model_only_when_set(tiny_bert: Path) -> None:
    assert build(tiny_bert).model.dropout.p == 0.0
    assert build(tiny_bert, classifier_dropout=0.4).model.dropout.p == 0.4


def test_a_new_neobert_has_the_size_of_the_settings_and_the_vocabulary_of_the_data() -> None:
    config = ModelConfig(
        allow_random_weights=True, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40, vocab_size=200, classifier_dropout=0.25,
    )  # fmt: skip
    classifier = build_classifier(config, splits("rte"), 32, None)
    shape = classifier.model.config
    assert (shape.hidden_size, shape.num_hidden_layers, shape.classifier_dropout) == (16, 3, 0.25)
    assert shape.vocab_size == len(classifier.tokenizer) <= 200
    assert classifier.tokenizer.model_max_length == 40
    assert classifier.inputs == ["input_ids", "attention_mask"]


def test_a_new_neobert_may_use_a_tokenizer_that_exists(tiny_bert: Path) -> None:
    config = ModelConfig(allow_random_weights=True, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=48, tokenizer=str(tiny_bert))  # fmt: skip
    classifier = build_classifier(config, splits("sst2"), 32, None)
    assert classifier.model.config.vocab_size == len(classifier.tokenizer)
    assert classifier.tokenizer.tokenize("entirely") != []


# -- checkpoints of trainings ---------------------------------------------------------------------------------------


@pytest.fixture
def training(tiny_bert: Path, tmp_path: Path) -> Path:
    """Of older code: two steps with wrapped names, and a tokenizer."""
    entries = entries_of(tiny_bert)
    for step, settings in (
        ("100", {"vocab_size": entries}),
        ("200", {"vocab_size": entries, "initializer_range": 0.3}),
    ):
        place = tmp_path / "old" / "model_checkpoints" / step
        write_settings(place / "config.yaml", vocab_size=entries)
        torch.save(split(wrapped(plain(made(**settings)))), place / "state_dict.pt")
    shutil.copytree(
        tiny_bert, tmp_path / "old" / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors", "config*")
    )
    return tmp_path / "old"


def encoder(classifier: Classifier) -> torch.Tensor:
    return classifier.model.model.transformer_encoder[1].qkv.weight


@pytest.mark.parametrize(
    ("named", "step"),
    [
        ({"name_or_path": ""}, 200),
        ({"pretrained_checkpoint_dir": ""}, 200),
        ({"pretrained_checkpoint_dir": "", "pretrained_checkpoint": "latest"}, 200),
        ({"pretrained_checkpoint_dir": "", "pretrained_checkpoint": 100}, 100),
        ({"pretrained_checkpoint": "model_checkpoints/100"}, 100),
        ({"name_or_path": "model_checkpoints/100"}, 100),
    ],
)
def test_a_checkpoint_of_a_training_is_named_by_directory_and_step(
    training: Path, named: dict[str, object], step: int, caplog: pytest.LogCaptureFixture
) -> None:
    paths = {key: str(training / value) if isinstance(value, str) and value != "latest" else value
             for key, value in named.items()}  # fmt: skip
    with caplog.at_level(logging.INFO):
        classifier = build_classifier(ModelConfig(**paths), splits("rte"), 32, None)  # type: ignore[arg-type]
    settings = {"vocab_size": classifier.model.config.vocab_size}
    expected = made(**settings | ({"initializer_range": 0.3} if step == 200 else {}))
    assert torch.equal(encoder(classifier), expected.model.transformer_encoder[1].qkv.weight)
    assert "14 loaded, 4 new (classifier.bias, classifier.weight, dense.bias, dense.weight), 2 not used" in caplog.text


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"pretrained_checkpoint_dir": "", "pretrained_checkpoint": 300},
         r"^model.pretrained_checkpoint_dir: .*/old holds no checkpoint of step 300; steps there: 100, 200"),
        ({"pretrained_checkpoint": "nowhere"}, r"^model.pretrained_checkpoint: .*/nowhere does not exist"),
    ],
)  # fmt: skip
def test_a_step_that_is_not_there_is_told_with_those_that_are(
    training: Path, named: dict[str, object], message: str
) -> None:
    paths = {key: str(training / value) if isinstance(value, str) else value for key, value in named.items()}
    with pytest.raises(ConfigError, match=message):
        build_classifier(ModelConfig(**paths), splits("rte"), 32, None)  # type: ignore[arg-type]


def test_a_configuration_that_lies_elsewhere_is_named(training: Path, tmp_path: Path) -> None:
    for step in (100, 200):
        (training / f"model_checkpoints/{step}/config.yaml").rename(tmp_path / "elsewhere.yaml")
    config = {"pretrained_checkpoint_dir": str(training)}
    with pytest.raises(ConfigError, match=r"hold a config.yaml .*, which tells the number of heads"):
        build_classifier(ModelConfig(**config), splits("rte"), 32, None)
    config |= {"pretrained_config_path": str(tmp_path / "elsewhere.yaml")}
    assert build_classifier(ModelConfig(**config), splits("rte"), 32, None)


@pytest.mark.parametrize("section", ["training", "Hugging Face"])
def test_the_configuration_of_bare_weights_may_be_of_either_kind(training: Path, tmp_path: Path, section: str) -> None:
    """What it says tells which it is, not its name alone."""
    step = training / "model_checkpoints/200"
    expected = made(vocab_size=entries_of(training / "tokenizer"), initializer_range=0.3)
    shape = expected.config.to_dict()
    (step / "config.yaml").unlink()
    write_settings(tmp_path / "config.json", vocab_size=shape["vocab_size"])
    settings = yaml.safe_load((tmp_path / "config.json").read_text()) if section == "training" else shape
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = ModelConfig(pretrained_checkpoint=str(step), pretrained_config_path=str(tmp_path / "config.json"))
    found = build_classifier(config, splits("rte"), 32, None)
    assert torch.equal(encoder(found), expected.model.transformer_encoder[1].qkv.weight)


def test_a_configuration_that_would_not_be_used_or_is_not_there_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model.pretrained_config_path: there is no file '/nowhere/config.json'"):
        build(tiny_bert, pretrained_config_path="/nowhere/config.json")
    own = str(tiny_bert / "config.json")
    with pytest.raises(ConfigError, match=r"pretrained_config_path: would not be used: .*tiny-bert has a config.json"):
        build(tiny_bert, pretrained_config_path=own)
    new = ModelConfig(allow_random_weights=True, hidden_size=16, num_attention_heads=2, pretrained_config_path=own)
    with pytest.raises(ConfigError, match=r"pretrained_config_path: would not be used: there is no checkpoint"):
        build_classifier(new, splits("rte"), 32, None)


def test_of_several_trials_the_one_with_the_best_result_is_taken(tiny_bert: Path, tmp_path: Path) -> None:
    trials = []
    for number, score in enumerate((0.5, 0.75, 0.6)):
        trials.append(tmp_path / f"trial-{number}")
        saved(tiny_bert, trials[-1] / "model", made(vocab_size=entries_of(tiny_bert), initializer_range=0.1 + number))
        (trials[-1] / "result.json").write_text(json.dumps({"metric": "accuracy+accuracy_mm", "score": score}))
    config = ModelConfig(pretrained_checkpoint_dir=[str(trial) for trial in trials])
    found = encoder(build_classifier(config, splits("rte"), 32, None))
    assert torch.equal(
        found, load_file(trials[1] / "model/model.safetensors")["model.transformer_encoder.1.qkv.weight"]
    )
    (trials[2] / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"trial-2 has no result.json: the best of several trials is chosen when all"):
        build_classifier(config, splits("rte"), 32, None)


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("loss", [2.0, 1.0, 3.0], 1),
        ("eval_loss", [0.5, 0.4, 0.4], 1),
        ("test_loss", [0.5, 0.4, 0.4], 1),
        ("accuracy", [0.5, 0.7, 0.7], 1),
        ("predictions", [20.0, 30.0, 10.0], "have made predictions alone"),
        ("accuracy", [float("nan"), 0.5, 0.6], "the score of .*trial-0 is no finite number"),
        ("accuracy", [0.5, None, 0.6], "the score of .*trial-1 is no finite number"),
    ],
)
def test_the_best_of_several_losses_is_the_smallest_and_what_is_no_score_is_refused(
    tmp_path: Path, metric: str, scores: list[float], best: int | str
) -> None:
    trials = [tmp_path / f"trial-{number}" for number in range(3)]
    for trial, score in zip(trials, scores, strict=True):
        trial.mkdir()
        (trial / "result.json").write_text(json.dumps({"metric": metric, "score": score}))
    if isinstance(best, int):
        assert best_trial(trials) == trials[best]
    else:
        with pytest.raises(NoBestTrial, match=best):
            best_trial(trials)


def test_trials_that_are_scored_by_different_metrics_have_no_best(tmp_path: Path) -> None:
    """As those of a version that scored all by accuracy, and of one that scores by what the settings name."""
    trials = [tmp_path / f"trial-{number}" for number in range(3)]
    for trial, metric in zip(trials, ("accuracy", "f1", "accuracy"), strict=True):
        trial.mkdir()
        (trial / "result.json").write_text(json.dumps({"metric": metric, "score": 0.5}))
    with pytest.raises(NoBestTrial) as refused:
        best_trial(trials)
    assert str(refused.value).startswith(
        f"the trials are scored by different metrics, so that none is the best: accuracy (as {trials[0]}), f1 (as "
        f"{trials[1]}). Name one trial, or train again"
    )
    assert best_trial([trials[0], trials[2]]) == trials[0]


def test_weights_as_at_the_beginning_need_the_permission(tiny_bert: Path, own_copy: Path) -> None:
    change_weights(own_copy, lambda weights: {
        name: torch.full_like(weight, float(name.endswith("weight"))) if "LayerNorm" in name else weight
        for name, weight in weights.items()
    })  # fmt: skip
    with pytest.raises(ConfigError, match=r"^model.name_or_path: .* holds random weights: every norm is as before"):
        build(own_copy)
    build(own_copy, allow_random_weights=True)


def test_norms_are_known_by_their_kind_whatever_they_are_called(tiny_bert: Path, tmp_path: Path) -> None:
    shape = transformers.GPT2Config(vocab_size=entries_of(tiny_bert), n_embd=16, n_layer=1, n_head=2, pad_token_id=0)
    model = transformers.GPT2Model(shape)
    model.save_pretrained(saved(tiny_bert, tmp_path, model))
    assert not any("norm" in name for name, _ in model.named_modules())
    with pytest.raises(ConfigError, match="holds random weights: every norm is as before"):
        build(tmp_path)
    with torch.no_grad():
        model.ln_f.weight.add_(0.01)
    model.save_pretrained(tmp_path)
    build(tmp_path)


@pytest.mark.parametrize("kept", [("id2label",), ("label2id",), ("id2label", "label2id")])
@pytest.mark.parametrize("kind", ["BERT", "NeoBERT"])
def test_either_map_of_the_classes_is_enough(tiny_bert: Path, tmp_path: Path, kind: str, kept: tuple[str, ...]) -> None:
    """Hugging Face's own configuration replaces or leaves out the one that is missing."""
    other = a_head_for("CONTRADICTION NEUTRAL ENTAILMENT", kind, tiny_bert, tmp_path, kept)
    assert torch.equal(build(tmp_path, "mnli").model.classifier.weight, other[[2, 1, 0]])


@pytest.mark.parametrize("kind", ["BERT", "NeoBERT"])
def test_maps_of_the_classes_that_contradict_each_other_are_refused(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    a_head_for("contradiction neutral entailment", kind, tiny_bert, tmp_path, ("id2label", "label2id"))
    shape = json.loads((tmp_path / "config.json").read_text())
    shape["label2id"] = {"entailment": 0, "neutral": 1, "contradiction": 2}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    with pytest.raises(ConfigError, match=r"^model.name_or_path: .*label2id .* and id2label .* contradict each other"):
        build(tmp_path, "mnli")
    for name, message in (
        ("label2id", "its config.json has a label2id or id2label that maps no names to numbers"),
        ("id2label", "config.json.* its id2label is no mapping of classes"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**shape, name: ["entailment"]}))
        with pytest.raises(ConfigError, match=message):
            build(tmp_path, "mnli")
    twice = {"0": "neutral", "1": "neutral", "2": "entailment"}
    (tmp_path / "config.json").write_text(json.dumps({**shape, "id2label": twice}))
    with pytest.raises(ConfigError, match=r"id2label of its config.json gives two classes one name"):
        build(tmp_path, "mnli")


@pytest.mark.parametrize("kind", ["BERT", "NeoBERT"])
def test_a_head_without_names_is_taken_as_it_is(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    other = a_head_for("contradiction neutral entailment", kind, tiny_bert, tmp_path, ())
    assert torch.equal(build(tmp_path, "mnli").model.classifier.weight, other)


def test_codes_of_a_task_are_names_of_its_classes(tiny_bert: Path, tmp_path: Path) -> None:
    other = a_head_for("1 0", "BERT", tiny_bert, tmp_path, ("id2label",))
    assert torch.equal(build(tmp_path, "sst2").model.classifier.weight, other[[1, 0]])


def test_a_head_of_other_classes_is_not_looked_at(tiny_bert: Path, tmp_path: Path) -> None:
    a_head_for("yes no", "BERT", tiny_bert, tmp_path, ("id2label",))
    build(tmp_path, "rte")
    config = ModelConfig(name_or_path=str(tmp_path))
    message = r"has a head for the classes yes, no, and not for entailment, not_entailment: it must be trained first"
    with pytest.raises(ConfigError, match=message):
        build_classifier(config, splits("rte"), 32, None, with_head=True)


def a_head_for(names: str, kind: str, tiny_bert: Path, path: Path, kept: tuple[str, ...]) -> torch.Tensor:
    """Saves a classifier whose config.json has only some maps of its classes; returns the weights of its last layer."""
    classes = names.split()
    maps = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    entries = entries_of(tiny_bert)
    if kind == "BERT":
        shape = transformers.BertConfig(vocab_size=entries, num_labels=len(classes), **SIZE)
        model = transformers.BertForSequenceClassification(shape)
    else:
        model = made(NeoBERTForSequenceClassification, vocab_size=entries, num_labels=len(classes))
    saved(tiny_bert, path, model)
    config = json.loads((path / "config.json").read_text())
    config = {name: value for name, value in config.items() if name not in maps}
    (path / "config.json").write_text(json.dumps(config | {name: maps[name] for name in kept}))
    return model.classifier.weight.detach()


@pytest.mark.parametrize("names", ["CONTRADICTION Entailment neutral", "neutral entailment contradiction"])
def test_a_head_that_counts_the_classes_in_another_order_is_put_into_ours(
    tiny_bert: Path, tmp_path: Path, names: str
) -> None:
    """In whatever order a model has them: what it says of a text stays what it says."""
    trained = build(tiny_bert, "mnli")
    model, ids = trained.model.eval(), torch.arange(5, 25)[None]
    expected = dict(zip(TASKS["mnli"].labels, model(ids).logits[0].tolist(), strict=True))
    order = [TASKS["mnli"].labels.index(name.lower()) for name in names.split()]
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order])
        model.classifier.bias.copy_(model.classifier.bias[order])
    model.config.id2label = dict(enumerate(names.split()))
    model.config.label2id = {name: number for number, name in enumerate(names.split())}
    model.save_pretrained(tmp_path)
    trained.tokenizer.save_pretrained(tmp_path)
    again = build(tmp_path, "mnli").model.eval()
    assert again.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    found = dict(zip(TASKS["mnli"].labels, again(ids).logits[0].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
