"""Commands of the set-up screen: the same programs that a person types, one at a time, with what they print.

Only those of the table below run, with options that are made here of checked fields. Nobody is asked on the way: what
a command lacks it names itself. One that moves the battery is ended as by Ctrl-C when nobody looks at it any more.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tidegate.runtime.api.messages import Refused

LINES_MAX = 2000
LOOKED_S = 30.0  # a command that moves the battery ends when nobody has looked for so long
END_S = 60.0  # after Ctrl-C; then it is killed
WATCH_S = 1.0
SKIPPED = re.compile(r"[a-z]{1,16}")
WHERE = re.compile(r"[A-Za-z0-9_./:@,+-]{1,200}")


class Task(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody wants to run. Fields of one kind of task are left out of the others.

    answers : of init, as in its answers file. skip, power_w, start, write : of commission.
    """

    kind: str
    answers: dict[str, str | list[str]] = {}
    skip: list[str] = []
    power_w: float | None = None
    start: bool = False
    write: bool = False


@dataclass
class Job:
    """A command that runs or ran. code: None while it runs."""

    kind: str
    user: str
    words: str
    lines: list[str] = field(default_factory=list)
    code: int | None = None
    ended_because: str = ""
    looked_s: float = 0.0


def command(task: Task, site_file: Path, state: Path, user: str, answers: Path) -> list[str]:
    """The words of its command line. Raises Refused for a task that is none.

    answers : where the answers of init were written.
    """
    if task.kind == "doctor":
        # Without the latency test: it would take from the loop what it measures.
        return ["doctor", str(site_file), "--seconds", "0"]
    if task.kind == "restart":
        return ["restart", state.name]
    if task.kind == "init":
        return ["init", str(site_file), "--yes", "--answers", str(answers)]
    if task.kind == "commission":
        words = ["commission", str(site_file), "--yes", "--by", user, "--state-dir", str(state.parent)]
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        words += ["--report", str(state / "web" / f"commissioning-{stamp}.html")]
        words += [] if task.write else ["--no-write"]
        words += ["--start"] if task.start else []
        for one in task.skip:
            if not SKIPPED.fullmatch(one):
                raise Refused("invalid-field", f"skip: {one[:20]!r} is no step")
            words += ["--skip", one]
        if task.power_w is not None:
            words += ["--power", f"{task.power_w:g}"]
        return words
    raise Refused("unknown-op", f"{task.kind[:32]!r} is nothing that set-up runs: doctor, init, commission or restart")


class SetupJobs:
    """The one command that runs, and the last one that did. on_site: whether orders are taken on site only, just now.

    note : (user, name, text) into the journal.
    """

    def __init__(
        self, site_file: Path, state: Path, on_site: Callable[[], bool],
        note: Callable[[str, str, str], Awaitable[None]], clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.site_file, self.state = site_file, state
        self.job: Job | None = None
        self._on_site, self._note, self._clock = on_site, note, clock
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether a command runs."""
        return self.job is not None and self.job.code is None

    async def start(self, task: Task, user: str) -> Job:
        """Start a command. Raises Refused while another one runs."""
        if self.running:
            assert self.job is not None
            raise Refused("busy", f"{self.job.kind} of {self.job.user} is running; wait for it or end it")
        folder = tempfile.TemporaryDirectory(prefix="tidegate-set-up-")
        answers = Path(folder.name) / "answers.toml"
        try:
            answers.write_text(_answers(task.answers) if task.kind == "init" else "", encoding="utf-8")
            words = command(task, self.site_file, self.state, user, answers)
            # Without a terminal, and unbuffered: its lines are shown as they come.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tidegate.runtime.cli", *words, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        except BaseException:
            folder.cleanup()
            raise
        shown = " ".join(["tidegate", *words]).replace(str(answers), "ANSWERS")
        self.job = Job(task.kind, user, shown, looked_s=self._clock())
        for one in (self._follow(self.job, self._process, folder), self._watch(self.job)):
            made = asyncio.create_task(one)
            self._tasks.add(made)
            made.add_done_callback(self._tasks.discard)
        return self.job

    def look(self) -> dict[str, object]:
        """The command and what it printed; whoever asks this counts as looking."""
        job = self.job
        if job is None:
            return {"kind": "", "running": False, "lines": []}
        job.looked_s = self._clock()
        return {"kind": job.kind, "user": job.user, "command": job.words, "running": job.code is None,
                "code": job.code, "lines": job.lines, "ended_because": job.ended_because}  # fmt: skip

    def end(self, because: str) -> None:
        """As Ctrl-C: a command that moves the battery gives it back."""
        if self.running and self._process is not None and self.job is not None and not self.job.ended_because:
            self.job.ended_because = because
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    async def close(self) -> None:
        """The page ends: so does the command."""
        self.end("the page ended")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_S)

    async def _follow(
        self, job: Job, process: asyncio.subprocess.Process, folder: "tempfile.TemporaryDirectory[str]"
    ) -> None:
        assert process.stdout is not None
        with folder:
            while line := await _line(process.stdout):
                job.lines.append(line.decode("utf-8", "replace").rstrip()[:500])
                if len(job.lines) > LINES_MAX:
                    del job.lines[: LINES_MAX // 2]
            job.code = await process.wait()
        await self._note(job.user, f"set-up {job.kind}", f"ended with code {job.code} {job.ended_because}".strip())

    async def _watch(self, job: Job) -> None:
        asked_s = 0.0
        while job.code is None:
            await asyncio.sleep(WATCH_S)
            if job.ended_because:
                asked_s = asked_s or self._clock()
                if self._clock() - asked_s > END_S and self._process is not None and self._process.returncode is None:
                    self._process.kill()
            elif job.kind == "commission" and self._on_site():
                self.end("orders are taken on site only")
            elif job.kind == "commission" and self._clock() - job.looked_s > LOOKED_S:
                self.end("nobody looks at it any more")


async def _line(stream: asyncio.StreamReader) -> bytes:
    """A line, or so much of one as there is; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as rest:
        return rest.partial
    except asyncio.LimitOverrunError as long:
        return await stream.readexactly(long.consumed)


def _answers(given: dict[str, str | list[str]]) -> str:
    """The answers of init as its file: words as they were typed, which init itself reads. Raises Refused."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in given.items():
        if not re.fullmatch(r"[a-z_]{1,40}", key):
            raise Refused("invalid-field", f"answers: {key[:40]!r} is no answer")
        if key in ("roles", "maps"):
            tables.append(f"[{key}]")
            for word in _several(value):
                where, _, what = word.rpartition("=")
                if not WHERE.fullmatch(where) or not WHERE.fullmatch(what):
                    raise Refused("invalid-field", f"{key}: expected WHERE=VALUE, such as /dev/ttyS1:1=grid-meter")
                tables.append(f'"{where}" = "{what}"')
        elif isinstance(value, list):
            lines.append(f"{key} = [{', '.join(_toml(one) for one in value)}]")
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join([*lines, *tables, ""])


def _several(value: str | list[str]) -> Sequence[str]:
    return value if isinstance(value, list) else value.split()


def _toml(word: str) -> str:
    if re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,9})?", word):
        return word.removeprefix("+")
    return msgspec.json.encode(word).decode()
