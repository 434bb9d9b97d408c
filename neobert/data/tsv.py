"""Reads a GLUE directory: TASK/{train,dev}.tsv, as download_glue_data.py lays it out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from neobert.config.paths import why_missing
from neobert.data.examples import TO_TRAIN, Examples, Needed, Splits, at, label_number
from neobert.data.glue_tasks import GlueTask, Tsv

log = logging.getLogger(__name__)


def read_glue_directory(directory: Path, task: GlueTask, needed: Needed = TO_TRAIN) -> Splits:
    """The task's training, dev and test sets as far as they are needed; raises `ConfigError` for any fault in them."""
    folder = _task_folder(directory, _layout(task))
    train = read_tsv(folder / "train.tsv", task) if needed.train else Examples()
    dev_sets = task.dev_sets if needed.dev else ()
    dev = {suffix: read_tsv(folder / f"{name}.tsv", task) for suffix, name, _ in dev_sets}
    return Splits(task, "glue directory", train, dev, _tests(directory, folder, task) if needed.tests else {})


def _tests(directory: Path, folder: Path, task: GlueTask) -> dict[str, Examples]:
    found = {}
    for test in task.tests:
        if test.config is None:
            found[test.name] = read_tsv(folder / f"{test.file}.tsv", task, labelled=False)
            continue
        places = [directory / f"{place}.tsv" for place in test.file.split(", ")]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            log.warning("%s: there is no %s%s, so there will be no predictions for %s", directory,
                        " or ".join(str(place.relative_to(directory)) for place in places),
                        "".join(map(why_missing, places)), test.name)  # fmt: skip
        else:
            found[test.name] = read_tsv(path, task, labelled=False)
    return found


def _task_folder(directory: Path, layout: Tsv) -> Path:
    """The folder of the task inside `directory`: CoLA, cola, SST-2, sst2 and the like are the same to us."""
    if not directory.is_dir():
        found = "is a file" if directory.exists() else f"does not exist{why_missing(directory)}"
        raise at(str(directory), f"{found}; data.dir must be a directory with {layout.folder}/train.tsv in it")
    wanted = _plain(layout.folder)
    entries = sorted(directory.iterdir())
    folders = [entry for entry in entries if entry.is_dir()]
    for folder in folders:
        if _plain(folder.name) == wanted:
            return folder
    lost = next((why_missing(entry) for entry in entries if _plain(entry.name) == wanted), "")
    raise at(str(directory), f"has no folder {layout.folder}{lost or _what_instead(directory, folders)}")


def _what_instead(directory: Path, folders: list[Path]) -> str:
    if (directory / "train.tsv").is_file():
        return "; it holds a train.tsv itself, so its parent directory may be what is meant"
    return f"; it holds {', '.join(folder.name for folder in folders) or 'no folder'}"


def read_tsv(path: Path, task: GlueTask, labelled: bool = True) -> Examples:
    """All rows of one file. Quotes have no meaning in GLUE's files, and a line ends at a newline alone.

    Of a test set (not `labelled`) the texts alone are read; each of those begins with a header.
    """
    layout = _layout(task)
    if not path.is_file():
        raise at(str(path), f"does not exist{why_missing(path)}; GLUE's {layout.folder} comes with it")
    lines = _lines(path)
    header = layout.header
    if layout.has_header or not labelled:
        header = tuple(next(lines, (0, ""))[1].split("\t"))
    wanted = [*layout.sentences, *([layout.label] if labelled else [])]
    missing = [name for name in wanted if name not in header]
    if missing:
        found = ", ".join(header) if any(header) else "nothing"
        raise at(f"{path}:1", f"has no column {' or '.join(missing)}; the header names {found}")
    columns = [header.index(name) for name in wanted]

    examples, broken = Examples(), []
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(header):
            broken.append(number)
            if len(broken) > (layout.known_broken_rows if labelled else 0):  # of a test set each row must be answered
                raise at(f"{path}:{number}", f"expected {len(header)} columns, found {len(fields)}")
            continue
        texts = [fields[column] for column in columns]
        if labelled:
            examples.labels.append(label_number(texts.pop(), task, f"{path}:{number}"))
        examples.texts.append(tuple(texts))
    if not examples.texts:
        raise at(str(path), "holds no examples")
    if broken:
        rows = ", ".join(map(str, broken))
        log.warning("%s: skipped rows without all columns, as they are known of %s: %s", path, layout.folder, rows)
    return examples


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, byte order mark and closing empty line."""
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise at(str(path), f"cannot be read: {error.strerror}") from None
    lines = data.split(b"\n")
    while lines and not lines[-1].strip(b"\r"):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise at(f"{path}:{number}", f"is not UTF-8 text (byte {error.start} of the line)") from None


def _layout(task: GlueTask) -> Tsv:
    assert task.tsv is not None, f"{task.name} has no TSV layout"
    return task.tsv


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
