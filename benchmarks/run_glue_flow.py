"""What Hugging Face's run_glue.py does, on files: the peer of `benchmarks/glue.py`, which starts it.

datasets reads and tokenises, Trainer trains with its defaults and evaluates at the end. Writes a JSON file: when the
first step was done, how many examples and real tokens came after it in how many seconds, and the dev set's logits.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)


class Clock(TrainerCallback):
    """Notes when the first step and the training were done, and what was done between."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last = 0.0
        self.samples = 0
        self.tokens: Any = 0

    def add(self, attention_mask: torch.Tensor) -> None:
        if self.first is not None:
            self.samples += len(attention_mask)
            self.tokens = self.tokens + attention_mask.sum()  # not read yet, so that no step waits for it

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.first is None:
            self.first = _now()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.last = _now()

    def told(self) -> dict[str, float | None]:
        assert self.first is not None
        tokens = int(self.tokens)
        return {"first_step": self.first, "samples": self.samples, "tokens": tokens, "seconds": self.last - self.first}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.time()


class CountingTrainer(Trainer):
    """Trainer, and nothing else, but that the clock sees each batch."""

    clock: Clock

    def training_step(self, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> torch.Tensor:
        self.clock.add(inputs["attention_mask"])
        return super().training_step(model, inputs, *more, **named)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    set_seed(options.seed)
    files = {"train": str(options.files / "train.csv"), "validation": str(options.files / "dev.csv")}
    raw = load_dataset("csv", data_files=files)
    sentences = [name for name in raw["train"].column_names if name.startswith("sentence")]
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    padding = "max_length" if options.pad else False

    def preprocess(examples: dict[str, Any]) -> Any:
        texts = [examples[name] for name in sentences]
        return {**tokenizer(*texts, padding=padding, max_length=128, truncation=True), "label": examples["label"]}

    data = raw.map(preprocess, batched=True)
    arguments = TrainingArguments(
        output_dir=str(options.out / "model"), seed=options.seed, num_train_epochs=options.epochs,
        max_steps=options.max_steps, per_device_train_batch_size=options.batch_size, learning_rate=options.lr,
        train_sampling_strategy="group_by_length" if options.group else "random", bf16=options.bf16,
        use_cpu=not torch.cuda.is_available(), report_to=[], disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    clock = Clock()
    trainer = CountingTrainer(
        model=model, args=arguments, train_dataset=data["train"], eval_dataset=data["validation"],
        processing_class=tokenizer, callbacks=[clock],
        data_collator=default_data_collator if options.pad else DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.clock = clock
    trainer.train()
    result: dict[str, Any] = dict(clock.told())
    if options.max_steps < 0:
        found = trainer.predict(data["validation"])
        result |= {"logits": found.predictions.tolist(), "labels": found.label_ids.tolist()}
    (options.out / "flow.json").write_text(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, help="directory of train.csv and dev.csv")
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--epochs", type=float, required=True)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--pad", action="store_true", help="to 128, which is run_glue's default")
    parser.add_argument("--group", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
