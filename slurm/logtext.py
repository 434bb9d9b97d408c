"""The end of a log: which process failed first, what it said, and what Slurm wrote. Pure functions of its text.

A log holds the output of all processes of an attempt, line by line as it came, between the lines of srun and Slurm.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST = 300
"""Characters of a message that are shown."""
LONGEST_LINE = 10_000
CHECKPOINTED = 85
SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
"""Numbers by the names that srun prints: `Killed`, `Segmentation fault`."""

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
RANK = re.compile(r"\[rank ?(\d+)\]:? ")
"""The beginning of a line that names its process: by neobert for all but the first, by torch in tracebacks of all."""
END = re.compile(
    r"(?:srun: error|recipe): (?P<node>\S+): (?:tasks?|rank) (?P<ranks>[\d,\[\]-]+): "
    r"(?:Exited with exit code (?P<code>\d+)|(?P<how>.+?)(?: \(core dumped\))?)"
)
"""srun's report of processes that ended badly, and the job script's where it started them itself."""
SLURMSTEPD = re.compile(
    r"(?:slurmstepd(?:-\S+)?: (?:error: |fatal: )?|\[\d{4}-\d\d-\d\dT[\d:.]+\] error: )(?P<text>.*)"
)
"""Since Slurm 25.05 these lines have no name but a time."""
SRUN = re.compile(r"srun: (?:error|fatal): (?P<error>.*)|srun: (?P<option>.*\boption\b.*)")
SAYS_NO_MORE = re.compile(
    r"\*\*\* |Detected \d+ oom|couldn't chdir|Timed out waiting for job step|.*: tasks? [\d,\[\]-]+: "
)
"""Lines of Slurm about an end whose cause lies elsewhere."""
CANCELLED = re.compile(
    r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ DUE TO ([^*,]+?)(?:,[^*]*)? \*\*\*", re.IGNORECASE
)
VERDICTS = {"TIME LIMIT": "TIMEOUT", "PREEMPTION": "PREEMPTED", "NODE FAILURE": "NODE_FAIL"}
PROGRESS = re.compile(r"step \d+/\S+ \(|evaluation at step \d+: |shard \d+/\S+: |.*\d%\|.*\||.*\d+it \[\d")
"""neobert's lines about the training, and bars of tqdm."""
GLUED = re.compile(r"(?:srun|slurmstepd(?:-\S+)?): (?:error|fatal): ")
NOISE = re.compile(r"== attempt |\S+: line \d+: +\d+ [A-Z]|Killed$|Terminated$")
"""The header of the job script, and what bash says of a process that a signal ended."""
ERROR = re.compile(
    r"(?:neobert(?: \w+)?|recipe): (?:error: )?(.+)|FATAL: +(.+)|(Fatal Python error: .+)| *what\(\): +(.+)"
)
"""One line that is the message: of our programs, of Apptainer, of Python and C++ when they abort."""
OUT_OF_MEMORY = re.compile(
    r"(?:\w+\.)*(?:OutOfMemoryError|MemoryError|_ArrayMemoryError)\b|std::bad_alloc|.*: Cannot allocate memory$"
    r"|(?:RuntimeError|OSError|(?:\w+\.)*AcceleratorError): .*(?:can't allocate memory|Cannot allocate memory"
    r"|(?:CUDA|HIP) error: out of memory|out of memory\. Tried|CUBLAS_STATUS_ALLOC_FAILED|is killed by signal: Killed)"
)
"""The message of a process for which there was no memory."""


@dataclass(frozen=True)
class End:
    """The end of a process: by itself with an exit code, or by a signal."""

    node: str = ""
    ranks: tuple[int, ...] = ()
    code: int = 0
    signal: int = 0
    out_of_memory: bool = False


def lines_of(text: str) -> list[str]:
    """The lines as a terminal would show them in the end: without colours, and of a bar its last state."""
    return [part for line in text.split("\n") for part in _shown(ESCAPES.sub("", line).rstrip().rpartition("\r")[2])]


def _shown(line: str) -> list[str]:
    """The line, in two where it begins with a bar that was cut short and Slurm's own line follows."""
    match = GLUED.search(line) if PROGRESS.match(line) else None
    return [line[: match.start()], line[match.start() :]] if match else [line[:LONGEST_LINE]]


def first_end(lines: Sequence[str]) -> End | None:
    """Return the end of the process that failed first. The others were told to end, by srun or the job script."""
    ends = [_end(match) for line in lines if (match := END.fullmatch(line))]
    return next(filter(_by_itself, ends), ends[0] if ends else None)


def _by_itself(end: End) -> bool:
    return end.signal != signal.SIGTERM and end.code != CHECKPOINTED


def by_code(code: int, node: str = "", ranks: tuple[int, ...] = ()) -> End:
    """The end that an exit code stands for: above 128, by shells and Apptainer, it is a signal."""
    if code - 128 in SIGNALS.values():
        return End(node, ranks, signal=code - 128)
    return End(node, ranks, code=code)


def _end(match: re.Match[str]) -> End:
    node, ranks = match["node"], tuple(_numbers(match["ranks"]))
    if match["code"]:
        return by_code(int(match["code"]), node, ranks)
    if match["how"] == "Out Of Memory":
        return End(node, ranks, signal=signal.SIGKILL, out_of_memory=True)
    return End(node, ranks, signal=SIGNALS.get(match["how"], 0), code=0 if match["how"] in SIGNALS else 1)


def _numbers(text: str) -> Iterator[int]:
    """Slurm's `0-2,5` -> 0, 1, 2, 5."""
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        yield from range(int(first), int(last or first) + 1)


def slurms_verdict(lines: Sequence[str]) -> str:
    """Return why Slurm ended the processes, as a job's state; empty without a reason, or if one had failed before."""
    for line in lines:
        if (match := END.fullmatch(line)) and _by_itself(_end(match)):
            return ""
        if (match := CANCELLED.search(line)) and _of_slurm(line) and match[1].upper() in VERDICTS:
            return VERDICTS[match[1].upper()]
    return ""


def is_out_of_memory(lines: Sequence[str], end: End | None, message: str) -> bool:
    """Tell whether memory ran out, by the word of Slurm or of the process that failed, and by no other output."""
    notes = (match["text"] for line in lines if (match := SLURMSTEPD.fullmatch(line)))
    by_slurm = any(re.search(r"oom[-_ ]kill|Out Of Memory", note) for note in notes)
    return by_slurm or (end is not None and end.out_of_memory) or OUT_OF_MEMORY.match(message) is not None


def message(lines: Sequence[str], end: End | None) -> str:
    """Return the message of the process that failed first; else Slurm's, else the last line. Empty after a signal."""
    first = _of_rank(lines, 0)
    own = [_of_rank(lines, rank) for rank in end.ranks] if end and end.ranks else [first]
    text = next(filter(None, map(_error, own)), "")
    if not text and not (end and end.signal):
        anybodys = [RANK.sub("", line, count=1) for line in lines]
        text = _error(first) or _error(anybodys) or _slurms_error(lines) or _last(lines)
    return text[:LONGEST]


def _of_rank(lines: Sequence[str], rank: int) -> list[str]:
    matches = [(line, RANK.match(line)) for line in lines]
    if rank == 0:
        return [line for line, match in matches if match is None]
    return [line[match.end() :] for line, match in matches if match is not None and int(match[1]) == rank]


def _error(lines: Sequence[str]) -> str:
    """The last message among the lines of one process, if no progress came after it."""
    text = ""
    for index, line in enumerate(lines):
        if PROGRESS.match(line):
            text = ""
        elif line.endswith("Traceback (most recent call last):"):
            ignored = index > 0 and lines[index - 1].startswith("Exception ignored in")
            text = text if ignored else _exception(lines[index + 1 :]) or text
        elif END.fullmatch(line) is None and (match := ERROR.fullmatch(line)):
            text = next(filter(None, match.groups()))
    return text


def _exception(lines: Sequence[str]) -> str:
    """The line after the frames of a traceback."""
    return next((line for line in lines if line and not line.startswith(" ")), "")


def _slurms_error(lines: Sequence[str]) -> str:
    """Return the last two errors of srun and slurmstepd, which often explain each other."""
    errors: dict[str, None] = {}
    for line in lines:
        if match := SRUN.fullmatch(line):
            name, text = "srun", match["error"] or match["option"]
        elif match := SLURMSTEPD.fullmatch(line):
            name, text = "slurmstepd", match["text"]
        else:
            continue
        if text and not SAYS_NO_MORE.match(text):
            errors.setdefault(f"{name}: {text}")
    return "; ".join(list(errors)[-2:])


def _of_slurm(line: str) -> bool:
    return line.startswith("srun: ") or SLURMSTEPD.fullmatch(line) is not None


def _last(lines: Sequence[str]) -> str:
    spoken = (line for line in reversed(lines) if line.strip())
    return next(
        (line.strip() for line in spoken if not (_of_slurm(line) or PROGRESS.match(line) or NOISE.match(line))), ""
    )
