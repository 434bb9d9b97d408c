"""Forward and backward of a batch, started as one: CUDA graphs.

A GPU computes a batch of a small encoder in a few milliseconds, but Python takes many more to start its thousand
kernels one by one. A graph of them is recorded once and started at once, again and again, with other texts at the same
place in memory. So each shape has a graph of its own; as padding is not computed, and numbers of tokens are rounded up,
there are few of them.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from neobert.errors import RunError
from neobert.model.attention import choose
from neobert.model.packing import fixed_layout

log = logging.getLogger(__name__)

MOST = 64
"""Graphs that are kept; batches of further shapes are computed without."""
BUSY = 8192
"""Tokens that keep a GPU busy for longer than their kernels take to be started; a graph holds the memory of a step."""
WIDTHS, TOKENS = 32, 64
"""What widths and numbers of tokens are rounded up to, at least."""

Loss = Callable[[Any, Tensor, Any], Tensor]
Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Of a batch: its texts, its columns, the tokens of all and the sequences that fill up to these."""

    texts: int
    width: int
    tokens: int
    fillers: int

    @staticmethod
    def of(texts: int, width: int, tokens: int, most: int) -> Shape:
        """Rounded up, by an eighth of the tokens at most (or to `TOKENS`); `most` is how long a text can be."""
        width = min(math.ceil(width / WIDTHS) * WIDTHS, most)
        step = max(TOKENS, 2 ** (tokens.bit_length() - 4))
        return Shape(texts, width, math.ceil(tokens / step) * step, math.ceil((step - 1) / width))


def can_record(model: Any, args: TrainingArguments) -> bool:
    """Whether steps of a model that takes a `Layout` can be graphs here: on one GPU, with FlashAttention in bf16.

    DistributedDataParallel, gradient checkpointing and the scaling of losses for fp16 do things between kernels.
    """
    alone = args.device.type == "cuda" and args.world_size == 1
    if not alone or not args.bf16 or args.gradient_checkpointing or args.deepspeed:
        return False
    config = model.config
    return choose("auto", args.device, torch.bfloat16, config.hidden_size // config.num_attention_heads) == "varlen"


class StepGraphs:
    """Computes losses and gradients of the batches of one model, on one GPU.

    `loss(outputs, labels, count)` is what is trained on; `longest` the most tokens of a text. The model takes a
    `layout`, and waits for the device nowhere.
    """

    def __init__(self, loss: Loss, longest: int):
        self._loss = loss
        self._longest = longest
        self._graphs: dict[Shape, _Graph] = {}
        self._gradients: _Gradients | None = None
        self._pool: Any = None
        self._off = False

    def step(self, model: nn.Module, inputs: Batch, tokens: int, count: Any) -> Tensor | None:
        """The loss of a batch of so many real `tokens`, with its gradients added to those of the weights.

        None where the batch has to be computed as usual. Of the first batch of a shape kernels are started one by one,
        as there may be no other: the same ones that a graph starts, so that they draw the same random numbers.
        """
        texts, width = inputs["input_ids"].shape
        shape = Shape.of(texts, width, tokens, self._longest)
        if self._off or tokens > BUSY:
            return None
        graph = self._graphs.get(shape)
        if graph is None:
            if len(self._graphs) >= MOST:
                return None
            graph = self._graphs[shape] = _Graph(model, self._loss, shape, inputs)
            graph.load(inputs, count)
            return graph.compute()
        graph.load(inputs, count)
        if not graph.is_recorded and not self._record(model, graph):
            return None
        assert self._gradients is not None
        self._gradients.put_in_place()
        return graph.replay()

    def _record(self, model: nn.Module, graph: _Graph) -> bool:
        """Changes neither gradients nor the state of random numbers; False where it cannot be done."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        devices = {weight.device for weight in weights if weight.is_cuda}
        with torch.random.fork_rng(devices), _kept_gradients(weights):
            try:
                graph.warm_up()
            except RuntimeError as error:
                self._off = True
                self._graphs.clear()
                log.warning("no CUDA graph can be recorded (%s): kernels are started one by one, which takes longer",
                            _first_line(error))  # fmt: skip
                return False
            if self._gradients is None:
                self._gradients = _Gradients([weight for weight in weights if weight.grad is not None])
                self._pool = torch.cuda.graph_pool_handle()
            self._gradients.assign()
            try:
                graph.record(self._pool)
            except RuntimeError as error:  # after which random numbers cannot be drawn any more
                raise RunError(
                    f"recording a CUDA graph failed: {_first_line(error)}. The same command with "
                    "trainer.cuda_graphs=false goes on without, from the newest checkpoint."
                ) from error
        return True


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _kept_gradients(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Takes the gradients away while the block runs."""
    held = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        yield
    finally:
        for weight, gradient in zip(weights, held, strict=True):
            weight.grad = gradient


class _Gradients:
    """The places at which all graphs add up gradients."""

    def __init__(self, weights: list[nn.Parameter]):
        self._weights = weights
        self._places = [torch.zeros_like(weight) for weight in weights]

    def assign(self) -> None:
        for weight, place in zip(self._weights, self._places, strict=True):
            weight.grad = place

    def put_in_place(self) -> None:
        """With the gradients that the weights have, if any: of earlier batches of the same step."""
        if self._weights[0].grad is self._places[0]:
            return
        torch._foreach_zero_(self._places)
        for weight, place in zip(self._weights, self._places, strict=True):
            if weight.grad is not None:
                place.copy_(weight.grad)
        self.assign()


class _Graph:
    """The graph of one shape, and the places where it finds its batch."""

    def __init__(self, model: nn.Module, loss: Loss, shape: Shape, inputs: Batch):
        self._model, self._loss, self._shape = model, loss, shape
        self._inputs = {name: tensor.new_zeros(shape.texts, shape.width) for name, tensor in inputs.items()
                        if name != "labels"}  # fmt: skip
        self._labels = torch.empty_like(inputs["labels"])
        self._count = torch.zeros((), device=self._labels.device)
        self._stream = torch.cuda.Stream(self._labels.device)
        self._graph = torch.cuda.CUDAGraph()
        self._result: Tensor | None = None

    def load(self, inputs: Batch, count: Any) -> None:
        for name, place in self._inputs.items():
            width = inputs[name].shape[1]
            place[:, width:].zero_()
            place[:, :width].copy_(inputs[name])
        self._labels.copy_(inputs["labels"])
        self._count.fill_(count)

    @property
    def is_recorded(self) -> bool:
        return self._result is not None

    def replay(self) -> Tensor:
        assert self._result is not None
        self._graph.replay()
        return self._result.clone()  # other graphs may use its place

    def warm_up(self) -> None:
        """What is set up by a first call must not be part of the graph.

        Raises `RuntimeError` if the model waits for the device, which no graph can: to find that out while recording
        would leave the generator of random numbers of no use.
        """
        current = torch.cuda.current_stream(self._labels.device)
        self._stream.wait_stream(current)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self._stream):
                self.compute()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        current.wait_stream(self._stream)

    def record(self, pool: Any) -> None:
        # Other threads, as one that pins memory for batches to come, may go on.
        with torch.cuda.graph(self._graph, pool, self._stream, capture_error_mode="thread_local"):
            self._result = self.compute()

    def compute(self) -> Tensor:
        shape, inputs = self._shape, self._inputs
        layout = fixed_layout(inputs["input_ids"], inputs["attention_mask"], shape.tokens, shape.fillers)
        logits = self._model(**inputs, layout=layout)["logits"]
        loss = self._loss({"logits": logits[: shape.texts]}, self._labels, self._count)
        loss.backward()
        return loss.detach()
