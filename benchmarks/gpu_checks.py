"""Whether each attention backend is exact on this machine's GPU, and how fast and large a training is.

    python -m benchmarks.gpu_checks [--json FILE] [--backend auto] [--tokens 32768]

First, for each backend and precision: a batch that is packed, the same padded, and each text by itself must give the
same outputs and gradients, and those of float32 on the CPU. Then training steps of the published size (28 x 768, bf16
autocast, fused AdamW, 20 % masked): tokens/s, MFU and peak memory at several lengths, with and without gradient
checkpointing and compiled blocks; and the peak memory of a step of 8,192 tokens. Ends with 1 if a backend is not exact.

Without a GPU, the checks of what a CPU can do are run, and what was not run is listed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from neobert.model import NeoBERTConfig, NeoBERTForMaskedLM
from neobert.model.attention import BACKENDS, fault
from neobert.training import metering

CPU = torch.device("cpu")
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROUNDING = {torch.float32: 2e-4, torch.bfloat16: 3e-2}
"""How far outputs and gradients may differ, as a share of their size (2-norm): float32 may come from TF32-free kernels
that add up in another order, and bf16 has 8 bits."""
TEXT_LENGTHS = [3, 64, 64, 100, 257, 511]
SPEED_LENGTHS = (512, 1024, 4096, 8192)
MEMORY_TOKENS = 8192


# -- exactness ------------------------------------------------------------------------------------------------------


def exactness(device: torch.device) -> Iterator[dict[str, Any]]:
    """A row for each backend and precision: the largest difference, or why it was not run."""
    reference = outputs_and_gradients(small_model(CPU, "sdpa"), "packed", None)
    for backend, (name, kind) in itertools.product(BACKENDS[1:], KINDS.items()):
        row = {"backend": backend, "precision": name}
        reason = fault(backend, device, kind, head_size=64)
        if reason:
            yield row | {"not_run": reason}
            continue
        try:
            differences = differences_of(device, backend, kind, reference)
        except Exception as error:  # noqa: BLE001  # one backend that breaks must not hide the others
            yield row | {"fault": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
            continue
        yield row | {"differences": differences, "exact": max(differences.values()) <= ROUNDING[kind]}


def differences_of(
    device: torch.device, backend: str, kind: torch.dtype, reference: Sequence[Tensor]
) -> dict[str, float]:
    """Of outputs and gradients, as shares of their size: between the ways to give the texts, and from the reference."""
    model = small_model(device, backend)
    precision = None if kind is torch.float32 else kind
    found = {way: outputs_and_gradients(model, way, precision) for way in ("packed", "padded", "alone")}

    def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
        return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True))

    return {
        "packed from padded": apart(found["packed"], found["padded"]),
        "packed from alone": apart(found["packed"], found["alone"]),
        "packed from float32 on the CPU": apart(found["packed"], reference),
    }


def small_model(device: torch.device, backend: str) -> NeoBERTForMaskedLM:
    """The same weights wherever it is; two blocks with heads of the published size."""
    torch.manual_seed(0)
    shape = NeoBERTConfig(vocab_size=1000, hidden_size=256, num_hidden_layers=2, num_attention_heads=4,
                          intermediate_size=768, initializer_range=0.05)  # fmt: skip
    model = NeoBERTForMaskedLM(shape)
    model.model.attn_backend = backend
    return model.to(device).train()


def outputs_and_gradients(model: NeoBERTForMaskedLM, way: str, autocast: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Logits of all tokens, text by text, and the gradients of the loss, on the CPU; `autocast` to this precision."""
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(1)
    texts = [torch.randint(1, 1000, (length,), generator=random).to(device) for length in TEXT_LENGTHS]
    answers = [torch.where(torch.arange(len(text), device=device) % 5 == 0, text, -100) for text in texts]
    if way == "packed":
        cu_seqlens = torch.tensor([0, *TEXT_LENGTHS]).cumsum(0, dtype=torch.int32).to(device)
        packing = {"cu_seqlens": cu_seqlens, "lengths": TEXT_LENGTHS}
        batches = [({"input_ids": torch.cat(texts)[None], **packing}, torch.cat(answers)[None])]
    elif way == "padded":
        mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        padded = {"input_ids": pad_sequence(texts, batch_first=True), "attention_mask": mask}
        batches = [(padded, pad_sequence(answers, batch_first=True, padding_value=-100))]
    else:
        batches = [({"input_ids": text[None]}, answer[None]) for text, answer in zip(texts, answers, strict=True)]
    model.zero_grad()
    logits = []
    for inputs, labels in batches:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            model(**inputs, labels=labels).loss_sum.backward()
            with torch.no_grad():
                found = model(**inputs).logits
        mask = inputs.get("attention_mask")
        logits.append(found[0] if mask is None else found[mask.bool()])
    gradients = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    return torch.cat(logits).float().cpu(), gradients.float().cpu()


# -- speed and memory -----------------------------------------------------------------------------------------------


def base_model(device: torch.device, backend: str, checkpointing: bool, compiled: bool) -> NeoBERTForMaskedLM:
    torch.manual_seed(0)
    model = NeoBERTForMaskedLM(NeoBERTConfig(max_position_embeddings=max(SPEED_LENGTHS))).to(device).train()
    model.model.attn_backend = backend
    if checkpointing:
        model.gradient_checkpointing_enable()
    if compiled:
        model.compile_blocks()
    return model


def batch(device: torch.device, tokens: int, length: int) -> dict[str, Any]:
    """Texts of `length` tokens each, `tokens` in all."""
    ids = torch.randint(5, 30000, (1, tokens), device=device)
    labels = torch.where(torch.rand(1, tokens, device=device) < 0.2, ids, -100)
    cu_seqlens = torch.arange(0, tokens + 1, length, dtype=torch.int32, device=device)
    return {"input_ids": ids, "labels": labels, "cu_seqlens": cu_seqlens, "lengths": [length] * (tokens // length),
            "max_seqlen": length}  # fmt: skip


def train_step(model: NeoBERTForMaskedLM, optimizer: torch.optim.Optimizer, inputs: dict[str, Any]) -> None:
    with torch.autocast(inputs["input_ids"].device.type, torch.bfloat16):
        loss = model(**inputs).loss
    assert loss is not None
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def speed(device: torch.device, backend: str, tokens: int, steps: int = 8) -> Iterator[dict[str, Any]]:
    """A row for each way to train and each length."""
    peak = metering.peak_flops(device, None)
    for compiled, checkpointing in itertools.product((False, True), (False, True)):
        model = base_model(device, backend, checkpointing, compiled)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        for length in SPEED_LENGTHS:
            row = {"length": length, "checkpointing": checkpointing, "compiled": compiled}
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            try:
                rates = _rates(model, optimizer, batch(device, tokens // length * length, length), steps)
            except torch.OutOfMemoryError:
                optimizer.zero_grad()
                yield row | {"not_run": f"{tokens} tokens do not fit into its memory"}
                continue
            rate = statistics.median(rates)
            masked = 0.2 * tokens
            work = metering.flops(model.config, tokens, tokens * length, masked) / tokens
            yield row | {
                "tokens_per_second": rate,
                "mfu": rate * work / peak if peak else None,
                "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9,
            }


def _rates(
    model: NeoBERTForMaskedLM, optimizer: torch.optim.Optimizer, inputs: dict[str, Any], steps: int
) -> list[float]:
    device = inputs["input_ids"].device
    rates = []
    for number in range(steps + 3):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        train_step(model, optimizer, inputs)
        torch.cuda.synchronize(device)
        if number >= 3:  # kernels are chosen and compiled in the first ones
            rates.append(inputs["input_ids"].numel() / (time.perf_counter() - start))
    return rates


def memory(device: torch.device, backend: str) -> Iterator[dict[str, Any]]:
    """Peak memory of a step of 8,192 tokens, weights and optimizer included."""
    for checkpointing in (False, True):
        model = base_model(device, backend, checkpointing, compiled=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        inputs = batch(device, MEMORY_TOKENS, 1024)
        train_step(model, optimizer, inputs)
        torch.cuda.reset_peak_memory_stats(device)
        train_step(model, optimizer, inputs)
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        yield {"tokens": MEMORY_TOKENS, "checkpointing": checkpointing, "peak_memory_gb": peak}


# -- report ---------------------------------------------------------------------------------------------------------


def show_exactness(row: dict[str, Any]) -> None:
    name = f"{row['backend']:9} {row['precision']:9}"
    if "not_run" in row:
        print(f"{name} not run: {row['not_run']}")
    elif "fault" in row:
        print(f"{name} FAILED: {row['fault']}")
    else:
        said = ", ".join(f"{what} {share:.1e}" for what, share in row["differences"].items())
        print(f"{name} {'exact' if row['exact'] else 'NOT EXACT'}: {said}")


def show_speed(row: dict[str, Any]) -> None:
    name = f"{row['length']:6} {_yes(row['checkpointing']):>13} {_yes(row['compiled']):>8}"
    if "not_run" in row:
        print(f"{name} not run: {row['not_run']}")
        return
    mfu = "unknown" if row["mfu"] is None else f"{row['mfu']:.1%}"
    print(f"{name} {row['tokens_per_second']:9.0f} {mfu:>8} {row['peak_memory_gb']:8.1f}")


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", choices=BACKENDS, help="for speed and memory")
    parser.add_argument("--tokens", type=int, default=32768, help="in a step, for speed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if options.tokens < max(SPEED_LENGTHS):
        parser.error(f"--tokens must be at least {max(SPEED_LENGTHS)}, the longest text")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "exactness": []}

    print(f"{name}, torch {torch.__version__}\n\nPacked = padded = one at a time, outputs and gradients:")
    for row in exactness(device):
        show_exactness(row)
        found["exactness"].append(row)
    if device.type == "cuda":
        found |= {"speed": [], "memory": []}
        print(f"\nTraining of the base size, {options.tokens} tokens a step, bf16, attention {options.backend}:")
        print(f"{'length':>6} {'checkpointing':>13} {'compiled':>8} {'tokens/s':>9} {'MFU':>8} {'GB':>8}")
        for row in speed(device, options.backend, options.tokens):
            show_speed(row)
            found["speed"].append(row)
        for row in memory(device, options.backend):
            print(f"peak memory of {row['tokens']} tokens, checkpointing {_yes(row['checkpointing'])}: "
                  f"{row['peak_memory_gb']:.1f} GB")  # fmt: skip
            found["memory"].append(row)
    else:
        print("\nNot run, for want of a GPU: tokens/s, MFU and peak memory of the base size, and the backends above")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(any("fault" in row or row.get("exact") is False for row in found["exactness"]))


if __name__ == "__main__":
    main()
