"""DeepSpeed's conversion of its shards for any number of processes, without running code that they bring along.

Run as `python -m neobert.training.to_universal`, with the arguments of deepspeed.checkpoint.ds_to_universal.
"""

from __future__ import annotations

import runpy

from neobert.checkpoint.unpickling import restricted

if __name__ == "__main__":
    with restricted():
        runpy.run_module("deepspeed.checkpoint.ds_to_universal", run_name="__main__", alter_sys=True)
