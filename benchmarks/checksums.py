"""What the checksums of checkpoints cost: beside saving one, beside reading one, and beside other hashes.

    python -m benchmarks.checksums [DIRECTORY]

DIRECTORY lies on the file system to measure; the system's temporary one by default. Needs 2 GB there. Times are medians
of runs in turn; on a busy machine only the ratios say something.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from neobert.training import checkpoints, checksums

PARAMETERS = 85_000_000
"""Of BERT's encoder; with the two moments of each, a checkpoint has 1 GB."""
RUNS = 7


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        hashes()
        saving(Path(directory))


def hashes() -> None:
    data = torch.rand(64 << 20).numpy().view("uint8").data
    pieces = [data[start : start + checksums.CHUNK] for start in range(0, len(data), checksums.CHUNK)]
    peers = {
        "xxh3_128": _by_digest(checksums.xxhash.xxh3_128),
        "crc32 (zlib)": lambda pieces: [zlib.crc32(piece) for piece in pieces],
        "sha256": _by_digest(hashlib.sha256),
        "blake2b": _by_digest(hashlib.blake2b),
    }
    for name, digest in peers.items():
        print(f"{name:14} {len(data) / _median(lambda digest=digest: digest(pieces)) / 1e9:5.1f} GB/s")


def _by_digest(make: Callable[[], object]) -> Callable[[Iterable[memoryview]], object]:
    def digest(pieces: Iterable[memoryview]) -> None:
        state = make()
        for piece in pieces:
            state.update(piece)

    return digest


def saving(directory: Path) -> None:
    """A checkpoint as Trainer writes it, on the disk for good: with checksums, and without."""
    weights = torch.rand(PARAMETERS)
    moments = {name: torch.rand(PARAMETERS) for name in ("exp_avg", "exp_avg_sq")}

    def save(finish: Callable[[Path], object]) -> float:
        path = directory / "checkpoint"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        begin = time.perf_counter()
        save_file({"weights": weights}, path / "model.safetensors")
        torch.save(moments, path / "optimizer.pt")
        finish(path)
        return time.perf_counter() - begin

    def synced(path: Path) -> None:
        checksums.in_threads(lambda name: checkpoints._sync_file(path / name), checkpoints.inventory(path))

    save(synced)
    pairs = [(save(checkpoints.mark), save(synced)) for _ in range(RUNS)]
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"saving 1 GB    {ours:5.2f} s with checksums, {bare:.2f} s without; ratio {ratio:.2f}")
    save(checkpoints.mark)
    path = directory / "checkpoint"
    verified = _median(lambda: checkpoints.find_damage(path))
    read = _median(lambda: [torch.load(path / "optimizer.pt", weights_only=True), _loaded(path / "model.safetensors")])
    print(f"verifying 1 GB {verified:5.2f} s; loading it afterwards {read:.2f} s (from memory, both)")


def _loaded(file: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def _median(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main()
