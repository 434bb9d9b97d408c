"""What Hugging Face's run_glue.py does, on files: the peer of `benchmarks/glue.py`, which starts it.

datasets reads and tokenises, Trainer trains with its defaults and evaluates at the end. Writes a JSON file: when the
first step was done, the seconds of the training, and the dev set's logits.
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
    """Notes when the training begins, has done its first step, and ends."""

    def __init__(self) -> None:
        self.moments: dict[str, float] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.moments["begin"] = time.time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.moments.setdefault("first step", time.time())

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.moments["end"] = time.time()


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
    trainer = Trainer(
        model=model, args=arguments, train_dataset=data["train"], eval_dataset=data["validation"],
        processing_class=tokenizer, callbacks=[clock],
        data_collator=default_data_collator if options.pad else DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.train()
    result: dict[str, Any] = {
        "first_step": clock.moments["first step"],
        "samples": trainer.state.global_step * options.batch_size if options.max_steps > 0
        else len(data["train"]) * options.epochs,
        "seconds": clock.moments["end"] - clock.moments["begin"],
    }  # fmt: skip
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
