"""Files of older NeoBERT code mean here what they meant there, or are refused key by key."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neobert.config import ConfigError, PretrainConfig, parse_yaml, validate
from neobert.config.legacy import is_legacy, translate
from neobert.config.legacy_keys import ANY, KEYS
from neobert.settings import from_command_line

DOCUMENT = Path(__file__).parents[3] / "docs/legacy.md"

OLDEST = """\
task: pretraining
model: {hidden_size: 256, num_hidden_layers: 4, num_attention_heads: 4, vocab_size: 30522, rope: true, rms_norm: true,
        hidden_act: swiglu, dropout_prob: 0.0, norm_eps: 1.0e-05, flash_attention: true, classifier_init_range: 0.02,
        embedding_init_range: 0.02, decoder_init_range: 0.02}
dataset: {name: some/text, path: "", streaming: true, cache_dir: null, max_seq_length: 256, num_workers: 2}
tokenizer: {name: some/tokenizer, path: null, max_length: 512, padding: max_length, truncation: true}
optimizer: {name: adamw, lr: 2.0e-04}
scheduler: {name: linear, warmup_steps: 100, total_steps: null, num_cycles: 0.5}
trainer: {max_steps: 5000, output_dir: ./output, overwrite_output_dir: true, fp16: false, bf16: true, seed: 7,
          max_ckpt: 5, per_device_train_batch_size: 8}
datacollator: {mlm_probability: 0.2, pad_to_multiple_of: null}
wandb: {project: neo-bert, entity: null, mode: online, log_interval: 50}
mixed_precision: bf16
use_deepspeed: true
"""

NEWER = """\
model: {attn_backend: flash_attn_varlen, kernel_backend: auto, ngpt: false, max_position_embeddings: 1024}
dataset: {name: some/text, config: en, train_split: train, eval_split: validation, eval_samples: 500,
          text_column: body, max_seq_length: 1024, shuffle_buffer_size: 500}
tokenizer: {path: here/tokenizer, name: ignored, revision: abc, max_length: 1024}
optimizer:
  {name: muonclip, lr: 1e-3, weight_decay: 0.1,
   muon_config: {muon_beta: 0.9, ns_steps: 4, enable_clipping: false, clipping_threshold: 50.0, muon_decay: 0.1,
                 orthogonalization: newton_schulz, norm_factor: muon_reference}}
scheduler: {warmup_percent: 5, warmup_steps: 99, decay_steps: 2000, final_lr_ratio: 0.05}
trainer: {max_steps: 2000, mixed_precision: no, gradient_clipping: 1.0, eval_steps: 100, tf32: false,
          torch_compile: true, resume_from_checkpoint: latest, masked_logits_only_loss: true}
datacollator: {mask_all: true, pack_sequences: true, max_length: 2048}
wandb: {enabled: false}
glue: {task_name: cola, num_labels: 2}
"""

LEAST = {"dataset": {"name": "some/text"}}


def understood(text: str) -> tuple[PretrainConfig, list[str]]:
    data = parse_yaml(text, "old.yaml").data
    assert is_legacy(data)
    new, notices = translate(data)
    return validate(PretrainConfig, new), notices


def old(**changes: Any) -> dict[str, Any]:
    """The least that an old file says, and `section__key=value`."""
    data: dict[str, Any] = {section: dict(keys) for section, keys in LEAST.items()}
    for name, value in changes.items():
        *sections, key = name.split("__")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value
    return data


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        translate(old(**changes))
    return "\n".join(map(str, caught.value.problems[1:]))


def test_a_file_of_the_oldest_code_is_understood() -> None:
    config, notices = understood(OLDEST)
    assert config == PretrainConfig.model_validate({
        "seed": 7,
        "model": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "norm_eps": 1e-5,
                  "max_position_embeddings": 512, "initializer_range": 0.011547},
        "tokenizer": {"name_or_path": "some/tokenizer"},
        "dataset": {"hub": "some/text", "streaming": True, "max_seq_length": 256, "num_workers": 2},
        "datacollator": {"mlm_probability": 0.2, "pack_sequences": False},
        "optimizer": {"lr": 2e-4, "weight_decay": 0.01, "betas": [0.9, 0.999]},
        "scheduler": {"name": "linear", "warmup_steps": 100},
        "trainer": {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 32, "max_steps": 5000,
                    "gradient_clipping": None, "mixed_precision": "bf16", "save_steps": 10_000, "logging_steps": 50,
                    "save_total_limit": 5},
    })  # fmt: skip
    assert "trainer.output_dir is left out: --output-dir says it" in notices
    assert "trainer.seed is seed: 7" in notices
    assert "model.flash_attention: True is model.attn_backend: 'auto' here" in notices
    assert "trainer.gradient_clipping is None, which was the default" in notices


def test_a_file_of_newer_code_is_understood() -> None:
    config, notices = understood(NEWER)
    assert config == PretrainConfig.model_validate({
        "seed": 0,
        "model": {"num_hidden_layers": 12, "attn_backend": "varlen", "initializer_range": 0.011547},
        "tokenizer": {"name_or_path": "here/tokenizer", "revision": "abc"},
        "dataset": {"hub": "some/text", "hub_config": "en", "text_column": "body", "streaming": True,
                    "eval_samples": 500, "shuffle_buffer_size": 500,
                    "validation": {"hub": "some/text", "hub_config": "en", "text_column": "body",
                                   "split": "validation"}},
        "datacollator": {"mlm_probability": 0.15, "mask_all": True, "max_tokens": 2048},
        "optimizer": {"name": "muon", "lr": 1e-3, "weight_decay": 0.1, "betas": [0.9, 0.999],
                      "muon": {"momentum": 0.9, "ns_steps": 4, "lr_scale": "original"}},
        "scheduler": {"warmup_ratio": 0.05, "final_lr_ratio": 0.05},
        "trainer": {"max_steps": 2000, "gradient_clipping": 1.0, "eval_steps": 100, "tf32": False,
                    "torch_compile": True, "resume_from_checkpoint": "latest", "per_device_eval_batch_size": 32,
                    "save_steps": 10_000, "logging_steps": 100, "save_total_limit": 3},
    })  # fmt: skip
    assert "scheduler.warmup_steps is left out: scheduler.warmup_percent comes first" in notices
    assert "tokenizer.name is left out: tokenizer.path comes first" in notices


def test_the_length_of_packed_rows_says_nothing_where_they_are_not_packed() -> None:
    new, notices = translate(old(datacollator__max_length=2048))
    assert "max_tokens" not in new["datacollator"]
    assert "datacollator.max_length is left out: it was for packed rows (datacollator.pack_sequences)" in notices
    new, _ = translate(old(datacollator__max_length=2048, datacollator__pack_sequences=True))
    assert new["datacollator"]["max_tokens"] == 2048


def test_every_key_that_is_not_simply_the_same_has_a_notice() -> None:
    for text in (OLDEST, NEWER):
        data = parse_yaml(text, "old.yaml").data
        said = " ".join(translate(data)[1])
        for section, keys in data.items():
            for key, value in keys.items() if isinstance(keys, dict) and section != "glue" else ():
                name = f"{section}.{key}"
                rule = KEYS[name]
                same = rule.to == name and (rule.values is None or rule.values[value] == value)
                assert same or name in said, name


@settings(deadline=None, max_examples=300)
@given(key=st.sampled_from([key for key, rule in KEYS.items() if rule.left_out is not ANY]),
       value=st.sampled_from(["odd", -17, {"odd": 1}, ["odd"]]))  # fmt: skip
def test_no_value_without_an_equivalent_is_dropped(key: str, value: Any) -> None:
    """Whatever it is, it is refused, or it is in what comes out (and validation will have its say)."""
    data = old(**{key.replace(".", "__"): value})
    if "muon_config." in key:
        data["optimizer"]["name"] = "muonclip"
        data["optimizer"]["muon_config"].setdefault("enable_clipping", False)
    try:
        new, _ = translate(data)
    except ConfigError as error:
        assert any(key in str(problem) for problem in error.problems)
    else:
        assert repr(value)[1:-1] in repr(new)


@pytest.mark.parametrize(
    "key", [key for key, rule in KEYS.items() if rule.left_out not in (ANY, ()) and not rule.alias]
)
def test_values_that_need_no_word_are_left_out_with_a_notice(key: str) -> None:
    for value in KEYS[key].left_out:
        _, notices = translate(old(**{key.replace(".", "__"): value}))
        assert any(notice.startswith(f"{key} is left out: ") for notice in notices), (key, value)


def test_all_keys_without_an_equivalent_are_named_at_once_with_what_to_do() -> None:
    found = refusal(model__ngpt=True, trainer__mixed_precision="fp16", dataset__path="tokens", wandb__enabled=True)
    assert found.splitlines() == [
        "dataset.path: is 'tokens', which has no equivalent: data sets on disk are not read. Make shards of the text "
        "with `neobert preprocess`, and name them on the command line: dataset.path=SHARDS; or name its files: "
        "dataset.path=null dataset.files=[...] dataset.streaming=true",
        "model.ngpt: is True, which has no equivalent: there is one architecture here: rotary positions, RMSNorm, "
        "SwiGLU, no dropout",
        "trainer.mixed_precision: is 'fp16', which has no equivalent: expected bf16 or no: the loss is not scaled "
        "here, which fp16 needs",
        "wandb.enabled: is True, which has no equivalent: nothing goes to W&B: figures are in metrics.jsonl and "
        "tensorboard/",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler__decay_steps": 500, "trainer__max_steps": 1000}, "scheduler.decay_steps: is 500, and the"),
        ({"scheduler__decay_percent": 80}, "scheduler.decay_percent: is 80"),
        ({"scheduler__total_steps": 10}, "trainer.max_steps, 1000000: set both alike"),
        ({"trainer__fp16": True}, "trainer.fp16: is True"),
        ({"mixed_precision": "fp16"}, "trainer.mixed_precision: is 'fp16'"),
        ({"trainer__bf16": True, "mixed_precision": "no"}, "which says the same, is"),
        ({"trainer__max_ckpt": 3, "trainer__save_total_limit": 4}, "trainer.max_ckpt: is 3, but"),
        ({"trainer__seed": 1, "seed": 2}, "trainer.seed: is 1, but seed"),
        ({"optimizer__hparams": {"lr": 1e-3}, "optimizer__lr": 1e-4}, "optimizer.hparams.lr: is 0.001, but"),
        ({"optimizer__name": "muonclip"}, "optimizer.name: clips attention by default"),
        ({"optimizer__name": "adam"}, "with weight_decay 0, adam is adamw"),
        ({"optimizer__name": "muonclip", "optimizer__muon_config": {"enable_clipping": False, "muon_decay": 0.0}},
         "optimizer.muon_config.muon_decay: is 0.0, and optimizer.weight_decay 0.01"),
        ({"optimizer__name": "muonclip",
          "optimizer__muon_config": {"enable_clipping": False, "orthogonalization": "polar_express"}},
         "expected newton_schulz"),
        ({"model__embedding_init_range": 0.1}, "model.embedding_init_range: embeddings and all other matrices"),
        ({"dataset__streaming": False}, "dataset.streaming: is False"),
        ({"dataset__pre_tokenize": True}, "run `neobert preprocess` first"),
        ({"dataset__load_all_from_disk": True}, "dataset.load_all_from_disk: is True"),
        ({"dataset__train_split": "train[:1%]"}, "name a whole split"),
        ({"dataset__eval_samples": 100}, "name a dataset.eval_split"),
        ({"tokenizer__max_length": 128}, "dataset.max_seq_length is what counts"),
        ({"trainer__resume_from_checkpoint": "runs/1/checkpoints/10"}, "begin from the weights"),
        ({"task": "glue"}, "only files of pretraining are read"),
        ({"variables": {"n": 3}}, "write each value"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_here_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


def test_true_is_not_one_and_zero_is_zero() -> None:
    assert "model.rope: is 1" in refusal(model__rope=1)
    translate(old(model__dropout_prob=0))


def test_both_ways_to_count_an_end_agree_with_the_last_step() -> None:
    new, _ = translate(old(scheduler__decay_steps=70, scheduler__total_steps=70, trainer__max_steps=70,
                           scheduler__decay_percent=100.0))  # fmt: skip
    assert set(new["scheduler"]) == {"warmup_steps"}


def test_precision_may_be_a_boolean_and_float32_is_none() -> None:
    for there, here in ((True, "bf16"), (False, "no"), ("fp32", "no"), ("bf16", "bf16")):
        new, _ = translate(old(trainer__mixed_precision=there))
        assert new["trainer"]["mixed_precision"] == here


def test_what_it_does_not_know_is_left_to_validation() -> None:
    new, _ = translate(old(trainer__max_stepps=3))
    with pytest.raises(ConfigError, match=r"trainer.max_stepps: unknown key; did you mean 'max_steps'"):
        validate(PretrainConfig, new)


def test_a_file_of_this_version_is_none_of_older_code() -> None:
    defaults = PretrainConfig.model_validate({"dataset": {"path": "shards"}, "trainer": {"max_steps": 10}})
    assert not is_legacy(defaults.model_dump())
    assert not is_legacy({})


@pytest.mark.parametrize(
    "data",
    [
        {"trainer": {"output_dir": "x"}},
        {"dataset": {"name": "x"}},
        {"use_deepspeed": False},
        {"model": {"flash_attention": True}},
        {"trainer": {"bf16": True}},
        {"mixed_precision": "bf16"},
        {"wandb": {"project": "x"}},
        {"glue": {}},
    ],
)
def test_one_old_key_makes_a_file_an_older_one(data: dict[str, Any]) -> None:
    assert is_legacy(data)


def test_a_mixture_is_refused_and_the_fewer_keys_are_named() -> None:
    new = {"dataset": {"files": ["a"], "streaming": True}, "trainer": {"max_tokens": 9, "output_dir": "x"}}
    with pytest.raises(ConfigError) as caught:
        translate(new)
    assert [problem.path for problem in caught.value.problems[1:]] == [("trainer", "output_dir")]
    assert "is of older code, unlike dataset.files" in str(caught.value)
    assert "model.rope_theta: is of this version, unlike dataset.name" in refusal(
        model__rope_theta=2.0, trainer__output_dir="x"
    )


def test_the_command_reads_an_old_file_and_says_what_it_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(OLDEST)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    heard = Listener()
    with heard:
        config = from_command_line("pretrain", file, ["optimizer.lr=3e-4", "trainer.max_tokens=null"]).config
    assert isinstance(config, PretrainConfig)
    assert (config.optimizer.lr, config.dataset.hub) == (3e-4, "some/text")
    assert heard.lines[0] == f"{file} is of older NeoBERT code, and is translated (docs/legacy.md)"
    assert "trainer.output_dir is left out: --output-dir says it" in heard.lines
    assert {record.levelno for record in heard.records} == {logging.WARNING}


def test_only_the_main_process_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(OLDEST)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                        "MASTER_ADDR": "localhost", "MASTER_PORT": "12345"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with Listener() as heard:
        from_command_line("pretrain", file, [])
    assert heard.lines == []


def test_the_command_line_takes_the_place_of_what_has_no_equivalent(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("dataset: {path: tokens, max_seq_length: 64}\ntrainer: {max_steps: 9, output_dir: x}\n")
    with pytest.raises(ConfigError, match=rf"{file}:1: dataset.path: is 'tokens', which has no equivalent"):
        from_command_line("pretrain", file, [])
    config = from_command_line("pretrain", file, ["dataset.path=shards"]).config
    assert isinstance(config, PretrainConfig)
    assert (config.dataset.path, config.dataset.max_seq_length, config.tokenizer) == ("shards", 64, None)


ON_DISK = """\
dataset: {path: ./tokenized, streaming: false, max_seq_length: 64, text_column: body}
trainer: {max_steps: 9, output_dir: x}
"""


def test_a_data_set_on_disk_can_be_replaced_as_the_messages_say(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(ON_DISK)
    with pytest.raises(ConfigError) as caught:
        from_command_line("pretrain", file, [])
    assert [problem.path for problem in caught.value.problems[1:]] == [("dataset", "path")], "streaming is plainly off"
    with Listener() as heard:
        config = from_command_line("pretrain", file, ["dataset.path=shards"]).config
    assert isinstance(config, PretrainConfig)
    assert (config.dataset.path, config.dataset.streaming, config.tokenizer) == ("shards", False, None)
    assert "dataset.streaming is left out: data at a dataset.path is not streamed" in heard.lines
    assert "dataset.text_column is left out: the data is dataset.path instead" in heard.lines
    for words in (["dataset.path=null", "dataset.files=[a.txt]", "dataset.streaming=true"],
                  ["dataset.files=[a.txt]", "dataset.streaming=true"]):  # fmt: skip
        config = from_command_line("pretrain", file, words).config
        assert isinstance(config, PretrainConfig)
        assert (config.dataset.files, config.dataset.streaming) == (["a.txt"], True)
        assert config.tokenizer is not None and config.tokenizer.name_or_path == "bert-base-uncased"
        assert config.dataset.text_column == "body"


@pytest.mark.parametrize(
    "place", ["path=shards", "files=[a.txt]", "hub=other/text", "sources=[{path: a}, {path: b}]", "generated=9"]
)
def test_where_the_data_is_on_the_command_line_it_is_not_in_the_file(tmp_path: Path, place: str) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(
        "dataset: {name: some/text, config: en, train_split: first, eval_split: second}\ntrainer: {output_dir: x}\n"
    )
    with Listener() as heard:
        config = from_command_line("pretrain", file, [f"dataset.{place}"]).config
    assert isinstance(config, PretrainConfig)
    name = place.partition("=")[0]
    section = config.dataset.model_dump(exclude_defaults=True)
    assert {"path", "files", "hub", "sources", "generated", "hub_config", "split", "validation"} & set(section) == {
        name
    }
    shards = name in ("path", "sources")
    assert (config.dataset.streaming, config.tokenizer is None) == (not shards, shards)
    for key in ("name", "config", "train_split", "eval_split"):
        assert f"dataset.{key} is left out: the data is dataset.{name} instead" in heard.lines


def test_a_default_of_before_is_not_told_where_the_command_line_says_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(OLDEST)
    with Listener() as heard:
        from_command_line("pretrain", file, ["seed=3", "optimizer.weight_decay=0.3"])
    assert not [line for line in heard.lines if line.startswith("optimizer.weight_decay is")]


def test_other_tasks_do_not_read_old_files(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("trainer: {output_dir: x}\n")
    with pytest.raises(ConfigError, match=r"trainer.output_dir: unknown key"):
        from_command_line("glue", file, ["task_name=rte", "data.generated=9"])


class Listener(logging.Handler):
    """What is logged about settings."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def __enter__(self) -> Listener:
        logging.getLogger("neobert.settings").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("neobert.settings").removeHandler(self)


def table() -> str:
    """The keys as the document shows them."""
    rows = ["| old key | here | otherwise |", "|---|---|---|"]
    for key, rule in KEYS.items():
        said = []
        if rule.alias:
            said.append(f"as `{rule.to}`")
        elif rule.to and rule.values is None:
            said.append("the same" if rule.to == key else f"`{rule.to}`")
        elif rule.to:
            pairs = ", ".join(f"{_show(there)} → {_show(here)}" for there, here in (rule.values or {}).items())
            said.append(f"`{rule.to}`: {pairs}")
        if rule.left_out is ANY:
            said.append(f"left out: {rule.why}")
        elif rule.left_out:
            said.append(f"{', '.join(map(_show, rule.left_out))}: left out, {rule.why}")
        if rule.default is not ...:
            said.append(f"default {_show(rule.default)}")
        rows.append(f"| `{key}` | {'; '.join(said)} | {rule.instead} |")
    return "\n".join(rows) + "\n"


def _show(value: Any) -> str:
    words = {True: "true", False: "false"} if isinstance(value, bool) else {None: "null"} if value is None else {}
    return f"`{words.get(value) if words else repr(value) if isinstance(value, str) and not value else value}`"


def test_the_document_has_the_table_as_it_is() -> None:
    assert table() in DOCUMENT.read_text(), "python -m tests.neobert.config.test_legacy writes it anew"


if __name__ == "__main__":
    before = DOCUMENT.read_text().partition("| old key")[0]
    DOCUMENT.write_text(before + table())
