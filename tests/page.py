"""A page's console blocks as steps to type, and what came compared with what the page shows."""

import re
from dataclasses import dataclass, field
from pathlib import Path

NUMBER = re.compile(r"[+-]?\d[\d.,]*")
# What a machine lacks is its own affair: of these lines only the topic is compared, and these end with 1 or 2 for it.
MACHINE = ("tidegate doctor", "runuser -u tidegate -- tidegate doctor")
# Orders take a moment to arm the site; a person would type these again.
AGAIN = ("tidegate why",)


@dataclass
class Step:
    """One command of the page, and the lines that it shows."""

    words: str
    shown: list[str] = field(default_factory=list)


def steps(page: Path, block: int = 0) -> list[Step]:
    """The commands of one console block of a page: those that begin with a $, or with root's #."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.S)
    made: list[Step] = []
    lines = iter(blocks[block].splitlines())
    for line in lines:
        if not line.startswith(("$ ", "# ")):
            made[-1].shown.append(line)
            continue
        words = line[2:]
        while words.endswith("\\"):
            words = words[:-1] + next(lines)
        made.append(Step(words))
    return made


def plain(line: str, topic_only: bool = False) -> str:
    """A line without what differs from run to run: numbers, times, keys, folders."""
    line = re.sub(r"signed by [0-9a-f]{64}", "signed by KEY", line)
    line = re.sub(r"\d{8}T\d{6}Z", "TIME", line)
    line = re.sub(r"ipc://\S+", "ENDPOINT", line)
    line = re.sub(r"/dev/pts/\d+", "PTY", line)
    if topic_only:
        found = re.match(r"(ok|costs you|fix|unknown) +([^:]+):", line)
        return found[2] if found else ""
    return " ".join(NUMBER.sub("#", line).split())


def missing(step: Step, said: str) -> str | None:
    """The first line of the page that did not come, in order; None if all did."""
    topics = step.words.startswith(MACHINE)
    came = iter([plain(line, topics) for line in said.splitlines()])
    for line in step.shown:
        wanted = plain(line, topics)
        if line != "..." and wanted and wanted not in came:
            return line
    return None
