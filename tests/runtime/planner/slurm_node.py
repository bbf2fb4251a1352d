"""A real Slurm of one node on loopback, with munge key and ports of its own, for tests and the bench."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")
CONF = """
ClusterName=tidetest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket
CredType=cred/munge
SlurmctldPort={ctld}
SlurmdPort={d}
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldLogFile={dir}/ctld.log
SlurmdLogFile={dir}/d.log
SlurmctldPidFile={dir}/ctld.pid
SlurmdPidFile={dir}/d.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
CommunicationParameters=NoAddrCache
JobCompType=jobcomp/filetxt
JobCompLoc={dir}/completed.txt
MinJobAge=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=flex Nodes={host} MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What is not installed, "" where all is; root is needed, as the daemons become users."""
    lacks = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if lacks:
        return f"{', '.join(lacks)} is not installed"
    return "" if os.geteuid() == 0 else "a Slurm of one's own needs root"


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class SlurmNode:
    """Use as a context manager: up and idle inside the block. words: environment for its commands."""

    def __init__(self, folder: Path, cpus: int = 64) -> None:
        self.folder, self.cpus = folder, cpus
        self.conf = folder / "slurm.conf"
        self.words = {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "TZ": "UTC",
            "LC_ALL": "C",
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "SlurmNode":
        host = socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.conf.write_text(CONF.format(host=host, dir=self.folder, ctld=_port(), d=_port(), cpus=self.cpus))
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o600)
        munge = ["munged", "--force", "--foreground", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
                 f"--pid-file={self.folder}/munge.pid", f"--seed-file={self.folder}/munge.seed",
                 f"--log-file={self.folder}/munge.log"]  # fmt: skip
        try:
            self._start(*munge)
            self._until(lambda: (self.folder / "munge.socket").exists(), "munged")
            self._start("slurmctld", "-D", "-f", str(self.conf))
            self._start("slurmd", "-D", "-f", str(self.conf))
            self._until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T", check=False), "slurmctld and slurmd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as out:
            environment = {**os.environ, **self.words}
            self._running.append(
                subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
            )

    def _until(self, holds, what: str) -> None:
        end = time.monotonic() + 60
        while not holds():
            if time.monotonic() > end:
                said = "".join(path.read_text()[-600:] for path in sorted(self.folder.glob("*.out")))
                logs = "".join(path.read_text()[-1200:] for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"{what} did not come up within 60 s: {said} {logs}")
            time.sleep(0.1)

    def ask(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm says."""
        done = subprocess.run(command, env={**os.environ, **self.words}, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def submit(self, seconds: float, *words: str, comment: str = "", partition: str = "flex") -> int:
        """A job that rests so long; gives its number."""
        head = [
            "sbatch",
            "--parsable",
            "-o",
            "/dev/null",
            "-n",
            "1",
            "--mem=1",
            "-p",
            partition,
            f"--comment={comment}",
        ]
        said = self.ask(*head, *words, "--wrap", f"sleep {seconds}")
        return int(said.strip())

    def completed(self) -> dict[int, dict[str, str]]:
        """Job -> what the completion log says of it."""
        path = self.folder / "completed.txt"
        rows = path.read_text().splitlines() if path.exists() else []
        found = [dict(part.split("=", 1) for part in row.split() if "=" in part) for row in rows]
        return {int(row["JobId"]): row for row in found}

    def __exit__(self, *_: object) -> None:
        if len(self._running) > 1:
            self.ask("scancel", "-u", "root", check=False)
        for process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
