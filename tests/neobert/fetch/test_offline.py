"""What was fetched serves tasks on a node that reaches no hub."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

from neobert.data.glue_tasks import TASKS
from neobert.data.grammar import generated_splits
from tests.neobert.conftest import REPOSITORY
from tests.neobert.fetch.conftest import TEXT, Fetch
from tests.neobert.fetch.hub import Hub

CARD = """---
configs:
- config_name: rte
  data_files:
  - {split: train, path: rte/train-*}
  - {split: validation, path: rte/validation-*}
dataset_info:
- config_name: rte
  features:
  - {name: sentence1, dtype: string}
  - {name: sentence2, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': entailment, '1': not_entailment}}}
---
"""
CODE = """from transformers import BertConfig

class OwnConfig(BertConfig):
    model_type = "own"
"""
WORK = """
import json, sys
from transformers import AutoConfig, AutoTokenizer
from neobert.cli import main
from neobert.data.text.documents import Reader, blocks
from neobert.data.text.finding import find_on_hub

print(type(AutoConfig.from_pretrained("tiny/own", trust_remote_code=True)).__name__)
print(len(AutoTokenizer.from_pretrained("tiny/words", revision=sys.argv[2])))
files = find_on_hub("tiny/text", None, "train", None)
print(json.dumps([files, [text for block in blocks(files, Reader()) for text in Reader().documents(block)]]))
sys.stdout.flush()
main(["glue", "model.name_or_path=tiny/bert", "data.hub=tiny/glue", "task_name=rte", "data.max_length=32",
      "trainer.max_steps=2", "trainer.use_cpu=true", "--output-dir", sys.argv[1]])
"""


def glue() -> dict[str, bytes]:
    """RTE of the built-in grammar, in the layout of nyu-mll/glue."""
    task = TASKS["rte"]
    splits = generated_splits(task, 64)
    files = {"README.md": CARD.encode()}
    for split, examples in (("train", splits.train), ("validation", splits.dev[""])):
        columns = dict(zip(task.sentences, zip(*examples.texts, strict=True), strict=True))
        table = pyarrow.table({**columns, "label": pyarrow.array(map(int, examples.labels), pyarrow.int64())})
        pyarrow.parquet.write_table(table, buffer := io.BytesIO())
        files[f"rte/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return files


def test_tasks_find_what_was_fetched(
    hub: Hub, fetch: Fetch, environ: dict[str, str], tiny_bert: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_bert.iterdir()}
    hub.add("models", "tiny/bert", files)
    words = hub.add("models", "tiny/words", {name: data for name, data in files.items() if "tokenizer" in name})
    own = {"model_type": "own", "auto_map": {"AutoConfig": "tiny/code--own.OwnConfig"}}
    hub.add("models", "tiny/own", {"config.json": json.dumps(own).encode(), "model.safetensors": b"weights"})
    hub.add("models", "tiny/code", {"own.py": CODE.encode(), "model.safetensors": b"weights"})
    hub.add("datasets", "tiny/text", TEXT)
    hub.add("datasets", "tiny/glue", glue())
    done = fetch("--model", "tiny/bert", "--model", "tiny/own", "--tokenizer", f"tiny/words@{words.commit}",
                 "--text", "tiny/text", "--dataset", "tiny/glue:rte")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" at ")[0] for line in done.stdout.splitlines()] == [
        "model tiny/bert", "model tiny/own", "code tiny/code", "tokenizer tiny/words", "text tiny/text (train)",
        "data set tiny/glue (rte)",
    ]  # fmt: skip

    hub.repos.clear()
    out = tmp_path / "out"
    environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    command = [sys.executable, "-c", WORK, str(out), words.commit]
    task = subprocess.run(command, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert task.returncode == 0, task.stderr
    lines = task.stdout.splitlines()
    assert (lines[0], int(lines[1]) > 100) == ("OwnConfig", True)
    addresses, texts = json.loads(lines[2])
    assert [address.partition("@")[0] for address in addresses] == ["hf://datasets/tiny/text"] * 2
    assert texts == ["train 0"] * 20 + ["train 1"] * 20
    assert json.loads((out / "result.json").read_text())["task"] == "glue"


def test_a_data_set_is_prepared_again_where_that_or_its_files_were_damaged(hub: Hub, fetch: Fetch, home: Path) -> None:
    hub.add("datasets", "tiny/glue", glue())
    done = fetch("--dataset", "tiny/glue:rte")
    assert done.returncode == 0, done.stderr
    (table,) = home.glob("datasets/tiny___glue/rte/*/*/glue-train.arrow")
    good = table.read_bytes()
    table.write_bytes(good[: len(good) // 2])
    done = fetch("--dataset", "tiny/glue:rte")
    assert done.returncode == 0, done.stderr
    assert "it is prepared again" in done.stderr
    assert table.read_bytes() == good

    before = table.stat().st_mtime_ns
    (rows,) = home.glob("hub/*/snapshots/*/rte/train-*.parquet")
    rows.resolve().write_bytes(b"damaged")
    done = fetch("--dataset", "tiny/glue:rte")
    assert done.returncode == 0, done.stderr
    assert "1 of them mended" in done.stdout
    assert table.stat().st_mtime_ns > before
    assert table.read_bytes() == good
