"""Pretraining on a CPU: packed against padded, and NeoBERT against Hugging Face's BERT and ModernBERT.

    python -m benchmarks.pretrain CORPUS_DIRECTORY [--bf16] [--leave-out FILE ...] [--json FILE]
    python -m benchmarks.pretrain CORPUS_DIRECTORY --profile       where the time of the packed path goes
    python -m benchmarks.pretrain --memory [--tokens 8192] [--bf16]    peak memory of the published size

All train on the same pieces of text, masked alike, one step of each in a turn, in random order (what one has left in
caches and memory speeds up or slows down the next), with the same optimiser.
The models have the same hidden size, blocks, heads and vocabulary, tied embeddings, and weights that differ by a few
percent (printed). Rates count real tokens alone. Ratios are medians of those of single turns, so that whatever else the
machine does hits all alike. With one thread, as by default, seconds are those in which the process computed.

Ways of padding: `padded` is one batch, padded to its longest piece; `sorted` are several batches of pieces of like
length, each padded to its longest, whose gradients add up. NeoBERT itself takes padding out before it computes
anything; `NeoBERT computing padding` shows what that saves. Of the peers' ways, the best is measured more than once.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from neobert.data.text.masking import masking
from neobert.data.text.packing import bucket
from neobert.data.tokenizing import train_wordpiece
from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM

HIDDEN, BLOCKS, HEADS, INNER = 256, 6, 4, 1024
VOCABULARY, LONGEST, TOKENS = 8192, 512, 1536
"""Entries of the tokenizer, tokens of the longest piece, and about how many a step has."""

PACKED, PEERS = "NeoBERT packed", ("BERT", "ModernBERT")

Piece = tuple[Tensor, Tensor]
"""What the model sees, and what it is to guess: both (length,)."""


@dataclass(frozen=True)
class Way:
    """A model and how it is given the pieces of a step; `inputs` makes one or more batches of them."""

    name: str
    model: Any
    optimizer: torch.optim.Optimizer
    inputs: Callable[[Sequence[Piece]], list[dict[str, Any]]]


# -- text ---------------------------------------------------------------------------------------------------------


class Text:
    """Documents of a directory (one a line), as pieces of tokens."""

    def __init__(self, directory: Path, leave_out: Sequence[str]):
        files = [path for path in sorted(directory.glob("*.txt")) if path.name not in leave_out]
        lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not lines:
            sys.exit(f"{directory} holds no *.txt with text, one document a line")
        order = np.random.default_rng(0).permutation(len(lines))
        documents = [lines[number] for number in order[:20_000]]
        tokenizer = train_wordpiece(((line,) for line in documents), VOCABULARY, LONGEST)
        self._mask = masking(tokenizer, 0.2)
        self.size = len(tokenizer)
        self._ids = [np.array(ids) for ids in tokenizer(documents, truncation=True, max_length=LONGEST)["input_ids"]]
        self._random = np.random.default_rng(1)

    def own_lengths(self) -> list[Piece]:
        """Pieces of a step, as they come."""
        pieces: list[Piece] = []
        while sum(len(ids) for ids, _ in pieces) < TOKENS:
            pieces.append(self._masked(self._ids[self._random.integers(len(self._ids))]))
        return pieces

    def filling(self, share: float, longest: int = 256) -> list[Piece]:
        """Pieces of a step with even lengths around `share` of the longest: that much of a padded batch is text."""
        count = round(TOKENS / share / longest)
        lengths = np.linspace(2 * share - 1, 1, count) * longest
        stream = np.concatenate([self._ids[number] for number in self._random.integers(len(self._ids), size=200)])
        starts = self._random.integers(len(stream) - longest, size=count)
        cut = [stream[start : start + max(8, int(size))] for start, size in zip(starts, lengths, strict=True)]
        return [self._masked(cut[number]) for number in self._random.permutation(count)]

    def _masked(self, ids: Any) -> Piece:
        seen, labels = self._mask(ids, [len(ids)], [int(self._random.integers(2**63))])
        return torch.from_numpy(seen), torch.from_numpy(labels)


# -- ways to feed a model -------------------------------------------------------------------------------------------


def packed(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    ordered = sorted(pieces, key=lambda piece: len(piece[0]))
    lengths = [len(ids) for ids, _ in ordered]
    ids, labels = (torch.cat([piece[which] for piece in ordered])[None] for which in (0, 1))
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return [{"input_ids": ids, "labels": labels, "cu_seqlens": cu_seqlens, "lengths": lengths}]


def padded(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([ids for ids, _ in pieces], batch_first=True)
    mask = pad([torch.ones_like(ids) for ids, _ in pieces], batch_first=True)
    return [{"input_ids": ids, "attention_mask": mask,
             "labels": pad([labels for _, labels in pieces], batch_first=True, padding_value=-100)}]  # fmt: skip


def computing_padding(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Padding as if it were text, and so the same arithmetic as for a model that masks it: the results are wrong."""
    return [{**padded(pieces)[0], "attention_mask": None}]


def in_buckets(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    rows = bucket(np.array([len(ids) for ids, _ in pieces]), LONGEST)
    return [batch for row in rows for batch in padded([pieces[number] for number in row])]


# -- models -------------------------------------------------------------------------------------------------------


def ways(vocabulary: int) -> list[Way]:
    """Ours first, then those of the peers."""
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS,
        "max_position_embeddings": LONGEST, "pad_token_id": 0,
    }  # fmt: skip
    own = NeoBERTConfig(**sizes, intermediate_size=INNER, tie_word_embeddings=True)
    bert = BertConfig(**sizes, intermediate_size=INNER)
    modern = ModernBertConfig(**sizes, intermediate_size=own.gated_size, sparse_prediction=True, bos_token_id=None,
                              eos_token_id=None, cls_token_id=None, sep_token_id=None)  # fmt: skip
    found = [_way(PACKED, NeoBERTForMaskedLM(own), packed),
             _way("NeoBERT padded", NeoBERTForMaskedLM(own), padded),
             _way("NeoBERT computing padding", NeoBERTForMaskedLM(own), computing_padding)]  # fmt: skip
    for name, kind, config in zip(PEERS, (BertForMaskedLM, ModernBertForMaskedLM), (bert, modern), strict=True):
        for attention in ("sdpa", "eager"):
            for order, inputs in (("padded", padded), ("sorted", in_buckets)):
                model = kind._from_config(config, attn_implementation=attention)
                found.append(_way(f"{name} {attention} {order}", model, inputs))
    return found


def _way(name: str, model: Any, inputs: Callable[[Sequence[Piece]], list[dict[str, Any]]]) -> Way:
    return Way(name, model.train(), torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), inputs)


def step(way: Way, pieces: Sequence[Piece], bf16: bool) -> float:
    """Seconds of a training step."""
    batches = way.inputs(pieces)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = way.model(**batch).loss / len(batches)
        loss.backward()
    way.optimizer.step()
    way.optimizer.zero_grad()
    return clock() - start


# -- figures ------------------------------------------------------------------------------------------------------


def compare(text: Text, pieces_of_step: Callable[[], list[Piece]], turns: int, bf16: bool) -> dict[str, Any]:
    """Rates, and by how much the packed way is faster.

    After a turn to warm up comes one in which all ways are tried; from then on, only ours and the best of each peer.
    """
    taking_part = ways(text.size)
    seconds: dict[str, list[float]] = {way.name: [] for way in taking_part}
    weights = {way.name: sum(weight.numel() for weight in way.model.parameters()) for way in taking_part}
    tokens, fills = [], []
    for turn in range(turns + 1):
        print(f"turn {turn} of {turns}, {len(taking_part)} ways", file=sys.stderr)
        pieces = pieces_of_step()
        for number in np.random.default_rng(turn).permutation(len(taking_part)):
            way = taking_part[number]
            taken = step(way, pieces, bf16)
            if turn:
                seconds[way.name].append(taken)
        if turn:
            lengths = [len(ids) for ids, _ in pieces]
            tokens.append(sum(lengths))
            fills.append(sum(lengths) / len(lengths) / max(lengths))
        if turn == 1:
            best = {min((name for name in seconds if name.startswith(peer)), key=seconds.__getitem__) for peer in PEERS}
            taking_part = [way for way in taking_part if way.name.startswith("NeoBERT") or way.name in best]
    packed_seconds = seconds[PACKED]
    return {
        "fill": statistics.mean(fills),
        "weights": weights,
        "turns": {name: len(times) for name, times in seconds.items()},
        "tokens_per_second": {
            name: statistics.median(count / taken for count, taken in zip(tokens, times, strict=False))
            for name, times in seconds.items()
        },
        "packed_is_faster_by": {
            name: statistics.median(other / own for other, own in zip(times, packed_seconds, strict=False))
            for name, times in seconds.items()
        },
    }


def show(title: str, found: dict[str, Any]) -> None:
    print(f"\n{title}: {found['fill']:.0%} of a padded batch is text\n")
    print(f"{'':28} {'weights':>9} {'turns':>6} {'tokens/s':>9} {'packed is faster by':>20}")
    for name, rate in found["tokens_per_second"].items():
        size, turns = found["weights"][name] / 1e6, found["turns"][name]
        print(f"{name:28} {size:7.2f} M {turns:6} {rate:9.0f} {found['packed_is_faster_by'][name]:19.2f}x")


def profile(text: Text, bf16: bool, steps: int = 5) -> None:
    """Prints the operators that take the most time of the packed path."""
    way = ways(text.size)[0]
    step(way, text.own_lengths(), bf16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            step(way, text.own_lengths(), bf16)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=50))


def peak_memory(tokens: int, checkpointing: bool, bf16: bool) -> None:
    """Prints what a step of the published size adds to the memory of this process, in bytes: run it in its own."""
    model = NeoBERTForMaskedLM(NeoBERTConfig()).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ids = torch.randint(5, 30000, (1, tokens))
    labels = torch.where(torch.rand(1, tokens) < 0.2, ids, -100)
    lengths = [512] * (tokens // 512)
    batch = {"cu_seqlens": torch.arange(0, tokens + 1, 512, dtype=torch.int32), "lengths": lengths}
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(ids, labels=labels, **batch).loss
    loss.backward()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def memory(tokens: int, bf16: bool) -> dict[str, float]:
    found = {}
    for checkpointing in (False, True):
        code = f"from benchmarks.pretrain import peak_memory; peak_memory({tokens}, {checkpointing}, {bf16})"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"a step of {tokens} tokens ended with {done.returncode}:\n{done.stderr[-1000:]}")
        name = "with gradient checkpointing" if checkpointing else "without gradient checkpointing"
        found[name] = float(done.stdout.split()[-1]) / 1e9
        kind = "bf16" if bf16 else "float32"
        print(f"{tokens} tokens, published size, {kind}, {name}: {found[name]:.2f} GB for activations and gradients")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", help="directory of *.txt, one document a line")
    parser.add_argument("--leave-out", nargs="*", default=["glue_train_text.txt"], metavar="FILE")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="more are faster on a quiet machine, and less steady")
    parser.add_argument("--bf16", action="store_true", help="with autocast; otherwise all in float32")
    parser.add_argument("--profile", action="store_true", help="where the time of the packed path goes, nothing else")
    parser.add_argument("--memory", action="store_true", help="peak memory of the published size, nothing else")
    parser.add_argument("--tokens", type=int, default=8192, help="for --memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.memory:
        found: dict[str, Any] = {"memory_gb": memory(options.tokens, options.bf16)}
    elif options.corpus is None:
        parser.error("CORPUS_DIRECTORY is needed")
    else:
        text = Text(options.corpus, options.leave_out)
        if options.profile:
            profile(text, options.bf16)
            return
        found = {
            "the corpus's own lengths": compare(text, text.own_lengths, options.turns, options.bf16),
            "60 % fill": compare(text, lambda: text.filling(0.6), options.turns, options.bf16),
        }
        for title, figures in found.items():
            show(title, figures)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
