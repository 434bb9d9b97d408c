"""DeepSpeed at run time. It is imported only by a training that asks for it."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed

from neobert.config import ConfigError, Problem
from neobert.config.extras import install
from neobert.training.libraries import quiet_deepspeed


def start(settings: dict[str, Any], on_cpu: bool) -> None:
    """Makes DeepSpeed ready for a training with these settings, which it completes; raises `ConfigError`.

    To be called before anything else imports DeepSpeed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise _problem(f"needs the package deepspeed: {install('deepspeed')}")
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read at the import; it would look for a GPU first
    quiet_deepspeed()
    import deepspeed.ops

    if on_cpu:
        # It would compile a shared-memory all-reduce for the processes of one node when they meet: a minute the first
        # time, and an image without a compiler would crash.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    offloads = settings["zero_optimization"].get("offload_optimizer", {}).get("device", "none") != "none"
    # On GPUs accelerate puts DeepSpeed's AdamW for host memory in the place of torch's, and that has to be compiled. On
    # CPUs nothing is gained by it: torch's AdamW is in host memory anyway.
    settings["zero_force_ds_cpu_optimizer"] = offloads and not on_cpu
    if settings["zero_force_ds_cpu_optimizer"]:
        _check_compiler()
    _ask_deepspeed(settings)


def join_alone(on_cpu: bool) -> None:
    """A process group for a single process: DeepSpeed needs one, and would ask MPI for it. This one needs no port."""
    if not distributed.is_initialized():
        backend = "gloo" if on_cpu else "nccl"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")  # it looks there as well


@contextmanager
def whole_model() -> Iterator[None]:
    """Within it, models are built and loaded whole in each process; DeepSpeed shares them out when the training starts.

    At stage 3, Hugging Face would build a model in shards as soon as there are TrainingArguments: new weights would
    come from other random numbers than at every other stage, and what was loaded could not be verified, for a shard
    has no shape. That is worth it for models that do not fit into a process's host memory; encoders do.
    """
    from transformers.integrations import deepspeed as integration

    before = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = before


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """All weights are whole within it, and what the main process changes in them holds in all; stage 3 needs it."""
    weights = [weight for weight in model.parameters() if hasattr(weight, "ds_id")]
    if not weights:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(weights, modifier_rank=0):
        yield


def _ask_deepspeed(settings: dict[str, Any]) -> None:
    """A file of one's own may hold what only DeepSpeed can judge. It would do so later, and with a traceback."""
    from deepspeed.runtime.config import DeepSpeedConfig

    # It does not know the number of processes yet, by which it would check the size of the global batch.
    asked = {key: value for key, value in copy.deepcopy(settings).items() if key != "train_batch_size"}
    try:
        DeepSpeedConfig(asked)
    except Exception as error:  # noqa: BLE001  # its own, pydantic's, assertions, and whatever wrong types lead to
        lines = [line.partition(" [type=")[0].strip() for line in str(error).splitlines()]
        message = ": ".join(line for line in lines if line and not line.startswith("For further information"))
        raise _problem(f"DeepSpeed does not accept this configuration: {message}") from None


def _check_compiler() -> None:
    from deepspeed.git_version_info import installed_ops

    if installed_ops.get("cpu_adam"):
        return
    compiler = os.environ.get("CXX", "c++")
    missing = [name for name in (compiler, "ninja") if shutil.which(name) is None]
    if missing:
        raise _problem(
            "offload_optimizer: cpu needs DeepSpeed's AdamW for host memory, compiled when the training starts, and "
            f"there is no {' and no '.join(missing)} here. Use an image with a compiler, or one in which "
            "DS_BUILD_CPU_ADAM=1 was set when deepspeed was installed"
        )


def _problem(message: str) -> ConfigError:
    return ConfigError([Problem(("deepspeed",), message)])
