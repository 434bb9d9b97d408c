"""What is freed is used again, and not asked of the system anew."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from neobert.training.allocator import keep_freed_memory
if {keeps}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 * 2**20)
before = faults()
for _ in range(10):
    torch.ones(16 * 2**20)
print(faults() - before)
"""


def faults(keeps: bool) -> int:
    return int(subprocess.run([sys.executable, "-c", FAULTS.format(keeps=keeps)], check=True, capture_output=True,
                              text=True).stdout)  # fmt: skip


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc is missing: run `make test` on Linux with glibc")
def test_freed_memory_is_kept() -> None:
    assert faults(keeps=True) < 100
    assert faults(keeps=False) > 1000
