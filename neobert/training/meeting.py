"""All processes of an attempt meet before the training starts, and compute a sum together.

Every process reports to the main one, through the store at MASTER_ADDR:MASTER_PORT, what it sees on its node; the sum
goes over the very connections that the training will use. The main process judges: it knows who has not come, and
everyone ends at its word.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from neobert.errors import BAD_START
from neobert.training.distributed import Ranks
from neobert.training.faults import Fault, is_recorded, merge, write_record

if TYPE_CHECKING:
    from torch.distributed import TCPStore

log = logging.getLogger(__name__)

_SECONDS_FOR_LATECOMERS = 10.0
"""After the first fault: they should hear of it, and a bad image or driver seldom hits one node alone."""
_SECONDS_TO_HEAR = 3.0
_SECONDS_BETWEEN_LOOKS = 0.02
_GROUP_TIMEOUT = timedelta(minutes=30)
"""Of the operations in training, as Trainer has it."""


@dataclass(frozen=True)
class Start:
    """What this process knows of the start of an attempt that it takes part in."""

    ranks: Ranks
    node: str
    """This process's own, as the scheduler names it."""
    use_cpu: bool
    limit: float
    """In seconds, from `began` (monotonic) on."""
    began: float
    record: Path
    attempt: int | None

    @property
    def left(self) -> float:
        return max(0.0, self.began + self.limit - time.monotonic())

    def nodes_of(self, ranks: Iterable[int]) -> tuple[str, ...]:
        """The nodes of these ranks, each once; nothing where it is not known who is where."""
        return tuple(dict.fromkeys(self.ranks.hosts[rank] for rank in ranks)) if self.ranks.hosts else ()

    def name(self, ranks: list[int]) -> str:
        """These ranks as a person knows them: `node2 (processes 2, 3)`."""
        if not self.ranks.hosts:
            return _processes(ranks)
        placed = {node: [rank for rank in ranks if self.ranks.hosts[rank] == node] for node in self.nodes_of(ranks)}
        return ", ".join(f"{node} ({_processes(on_node)})" for node, on_node in placed.items())


class Meeting:
    """All processes of an attempt, in the store that the main one holds open.

    Two threads in each: one does the work, and may be blocked in a library for as long as the library likes; the other
    judges (main process) or hears the judgement (others), over a connection of its own, and ends the process when it is
    a bad one. Keys: `here/RANK` the node; `fault/RANK` a Fault; `summed/RANK`; and a count of each of them.
    """

    def __init__(self, start: Start, environ: Mapping[str, str]):
        self.start = start
        self.ranks = start.ranks
        self.environ = environ
        self.place = (environ["MASTER_ADDR"], int(environ["MASTER_PORT"]))
        self.agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        """Under torchrun its agent already holds the store open."""
        self.passed = False

    @property
    def _first_node(self) -> str:
        return self.ranks.hosts[0] if self.ranks.hosts else self.place[0]

    def hold(self, fault: Fault | None) -> None:
        """Returns when all have met and their sum is right; `fault` is what this process has found on its node."""
        if self.ranks.is_main and not self.agent:
            store = self._open()
        else:
            self._wait_for_place()
            store = self._connect()
        board, watched = self._board(store), self._board(self._connect())
        watch = threading.Thread(target=self._watch, args=(watched,), name="preflight", daemon=True)
        if fault:  # first of all: when everyone is here, all that is wrong is known
            self._tell(board, "fault", str(fault))
        self._tell(board, "here", self.start.node)
        watch.start()
        if fault is None:
            fault = self._sum(store)
            if fault:
                self._tell(board, "fault", str(fault))
            else:
                self._tell(board, "summed", "")
        watch.join()  # or it ends this process
        if not self.passed:
            raise RuntimeError("the thread that judges the start has ended without a verdict; see above")
        if self.ranks.is_main:
            nodes = len(set(self.ranks.hosts)) or 1
            where = f" on {nodes} nodes" if nodes > 1 else ""
            log.info("all %d processes%s met in %.1f s", self.ranks.world_size, where,
                     time.monotonic() - self.start.began)  # fmt: skip

    # The rendezvous

    def _open(self) -> TCPStore:
        from torch.distributed import TCPStore

        try:
            return TCPStore(self.place[0], self.place[1], is_master=True, wait_for_workers=False)
        except RuntimeError as error:
            taken = "EADDRINUSE" in str(error)
            why = "another program uses that port" if taken else _first_line(error)
            self._fail(Fault(f"{self.start.node}: the meeting at {_address(self.place)} cannot be opened: {why}"))

    def _wait_for_place(self) -> None:
        """Until somebody listens there; torch itself would not tell why it could not connect."""
        while True:
            try:
                socket.create_connection(self.place, timeout=max(0.1, min(self.start.left, 5))).close()
                return
            except OSError as error:
                reason = error.strerror or str(error)
            if not self.start.left:
                first = self._first_node
                what = "the main process did not start" if first == self.start.node else "cannot be reached"
                self._fail(Fault(
                    f"{first}: {what}; seen from {self.start.node}, nobody answered at {_address(self.place)} for "
                    f"{self.start.limit:.0f} s ({reason})", (first,), what
                ))  # fmt: skip
            time.sleep(0.1)

    def _connect(self) -> TCPStore:
        from torch.distributed import TCPStore

        try:
            return TCPStore(*self.place, is_master=False, timeout=timedelta(seconds=max(1.0, self.start.left)))
        except RuntimeError as error:
            message = f"{self.start.node} cannot join the meeting at {_address(self.place)}: {_first_line(error)}"
            self._fail(Fault(message))

    def _board(self, store: Any) -> Any:
        """Keys of this start alone: neither the training's nor those of an attempt that is still alive."""
        from torch.distributed import PrefixStore

        names = ("RECIPE_ATTEMPT", "TORCHELASTIC_RESTART_COUNT")
        return PrefixStore("-".join(["preflight", *(self.environ.get(name, "") for name in names)]), store)

    # The work

    def _sum(self, store: TCPStore) -> Fault | None:
        """Makes the process group and uses it once; blocks until all processes do."""
        import torch
        from torch import distributed

        try:
            if self.start.use_cpu or not torch.cuda.is_available():
                backend, device = "gloo", torch.device("cpu")
            else:
                backend, device = "nccl", torch.device("cuda", self.ranks.local_rank % torch.cuda.device_count())
                torch.cuda.set_device(device)
            number = torch.tensor([self.ranks.rank + 1], device=device)
        except RuntimeError as error:
            reason = f"its GPU cannot be used: {_first_line(error)}"
            return Fault(f"{self.start.node}: {reason}", (self.start.node,), reason)
        try:
            store.set_timeout(_GROUP_TIMEOUT)
            distributed.init_process_group(
                backend, store=self._group_store(store), rank=self.ranks.rank, world_size=self.ranks.world_size,
                timeout=_GROUP_TIMEOUT,
            )  # fmt: skip
            distributed.all_reduce(number)
            found = int(number.item())
        except RuntimeError as error:  # it takes two for that: the other one may be the broken one
            return Fault(f"{self.start.node}: the processes cannot compute together: {_first_line(error)}")
        expected = self.ranks.world_size * (self.ranks.world_size + 1) // 2
        if found != expected:
            return Fault(f"{self.start.node}: a sum over all processes came out as {found} instead of {expected}")
        return None

    def _group_store(self, store: TCPStore) -> Any:
        from torch.distributed import PrefixStore

        return PrefixStore("training", self._board(store))

    def _tell(self, board: Any, what: str, text: str) -> None:
        try:
            board.set(f"{what}/{self.ranks.rank}", text)
            board.add(what, 1)
        except RuntimeError as error:
            self._fail(self._lost_main(error))

    # The judgement

    def _watch(self, board: Any) -> None:
        try:
            fault = self._judge(board) if self.ranks.is_main else self._hear(board)
        except RuntimeError as error:
            self._fail(self._lost_main(error))
        if fault and self.ranks.is_main:
            self._fail(fault)
        if fault:
            os._exit(BAD_START)  # the main process records and tells it
        self.passed = True

    def _hear(self, board: Any) -> Fault | None:
        # The main process may have begun as late as this one was willing to wait for it, and has its own limit then.
        # When it dies before, the connection ends.
        board.wait(["verdict"], timedelta(seconds=2 * self.start.limit + _SECONDS_TO_HEAR))
        fault = Fault.parse(board.get("verdict"))
        board.add("heard", 1)
        return fault if fault.message else None

    def _judge(self, board: Any) -> Fault | None:
        """Waits for all to have their sum, for a fault, or for the limit."""
        everyone = self.ranks.world_size
        end = time.monotonic() + self.start.left
        while board.add("summed", 0) < everyone and time.monotonic() < end:
            if board.add("fault", 0):
                if board.add("here", 0) == everyone:
                    break
                end = min(end, time.monotonic() + _SECONDS_FOR_LATECOMERS)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        fault = None if board.add("summed", 0) == everyone else self._find_fault(board)
        board.set("verdict", str(fault or Fault("")))
        # The store ends with this process, so it is the last to leave.
        until = time.monotonic() + _SECONDS_TO_HEAR
        while board.add("heard", 0) < board.add("here", 0) - 1 and time.monotonic() < until:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return fault

    def _find_fault(self, board: Any) -> Fault | None:
        everyone = range(self.ranks.world_size)
        reported = [Fault.parse(board.get(f"fault/{rank}")) for rank in everyone if board.check([f"fault/{rank}"])]
        if reported:
            return merge(reported)
        absent = [rank for rank in everyone if not board.check([f"here/{rank}"])]
        waiting = [rank for rank in everyone if not board.check([f"summed/{rank}"])]
        return self._absent(absent) if absent else self._stuck(waiting) if waiting else None

    def _absent(self, absent: list[int]) -> Fault:
        place, limit = _address(self.place), f"{self.start.limit:.0f} s"
        away, all_nodes = set(self.start.nodes_of(absent)), set(self.ranks.hosts)
        if len(all_nodes) > 2 and away == all_nodes - {self.start.node}:
            # Rather this node's fault than that of all others at once.
            reason = f"no other node reached it within {limit}"
            return Fault(f"{self.start.node}: no other node reached {place} within {limit}", (self.start.node,), reason)
        verb = "have" if len(absent) > 1 else "has"
        message = f"{self.start.name(absent)} {verb} not come to {place} within {limit}"
        return Fault(message, self.start.nodes_of(absent), f"did not come to the meeting within {limit}")

    def _stuck(self, waiting: list[int]) -> Fault:
        everyone = self.ranks.world_size
        message = (
            f"all {everyone} processes met at {_address(self.place)}, but a sum over them did not come to its end "
            f"within {self.start.limit:.0f} s on {self.start.name(waiting)}. NCCL_DEBUG=INFO tells more; "
            "NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME choose the network"
        )
        nodes = self.start.nodes_of(waiting) if len(waiting) < everyone else ()
        return Fault(
            message, nodes, f"a sum over all processes did not come to its end within {self.start.limit:.0f} s"
        )

    def _lost_main(self, error: Exception) -> Fault:
        return Fault(f"{self.start.node}: the main process, on {self._first_node}, is gone: {_first_line(error)}")

    # The end

    def _fail(self, fault: Fault) -> NoReturn:
        try:
            # The main process knows best; others write only what nobody has written for this attempt.
            if self.ranks.is_main or not is_recorded(self.start.record, self.start.attempt):
                write_record(self.start.record, self.start.attempt, fault)
        except OSError as error:
            _complain(f"{self.start.record}: {error.strerror}")
        _complain(fault.message)
        os._exit(BAD_START)  # the main thread may be blocked in a library


def _complain(message: str) -> None:
    sys.stdout.flush()
    print(f"neobert: bad start: {message}", file=sys.stderr, flush=True)


def _address(place: tuple[str, int]) -> str:
    return f"{place[0]}:{place[1]}"


def _processes(ranks: list[int]) -> str:
    if len(ranks) > 8:
        return f"{len(ranks)} processes"
    return f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
