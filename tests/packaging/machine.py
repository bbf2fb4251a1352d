"""A Debian machine to install on: this one's root folder under an overlay in memory, with a systemd of its own.

It has its own processes, mounts, devices, network and control groups. Maintainer scripts and units run as on any
machine, and nothing of it reaches the machine underneath.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
TOOLS = ("unshare", "nsenter", "chroot", "mount", "dpkg", "runuser", "ip")
BOOT_S = 120.0
NODES = "null zero full random urandom tty"
# What would change the kernel that both machines share, and what nobody here needs.
OFF = ("systemd-sysctl", "systemd-modules-load", "modprobe@", "systemd-udevd", "systemd-random-seed", "networking",
       "systemd-networkd", "systemd-timesyncd", "systemd-hwdb-update", "systemd-binfmt", "console-getty",
       "getty@")  # fmt: skip

# Its control groups are a branch below ours; the namespace then shows it nothing else.
BRANCH = """set -e
mkdir -p {top}/groups
mount -t cgroup2 none {top}/groups
branch={top}/groups$(sed -n 's/^0:://p' /proc/self/cgroup)/{name}
mkdir $branch
echo $$ >$branch/cgroup.procs
umount {top}/groups
exec unshare --mount --pid --cgroup --uts --ipc --net --fork --kill-child sh -c '{mounts}'
"""
MOUNTS = """set -e
mount -t tmpfs -o mode=755 tmpfs {top}
mkdir {top}/upper {top}/work {top}/root
mount -t overlay -o lowerdir=/,upperdir={top}/upper,workdir={top}/work overlay {top}/root
cd {top}/root
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.service
for unit in {off}; do ln -sf /dev/null etc/systemd/system/$unit.service; done
echo 0123456789abcdef0123456789abcdef >etc/machine-id
rm -rf var/lib/tidegate etc/tidegate
echo "APT::Install-Recommends 0;" >etc/apt/apt.conf.d/99alone
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in {nodes}; do cp -a /dev/$node dev; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
touch dev/console
mkdir -p srv/packages
mount --bind {packages} srv/packages
ip link set lo up
exec env -i container=other PATH=/usr/sbin:/usr/bin chroot . {systemd} --unit=multi-user.target --show-status=0
"""


def lacks() -> str:
    """Why there can be no such machine here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root: it mounts an overlay and installs a package into it"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not SYSTEMD.exists():
        missing.append("systemd")
    return f"missing: {', '.join(missing)}" if missing else ""


class Machine:
    """packages : folder that the machine sees as /srv/packages. Raises OSError if it does not come up here."""

    def __init__(self, top: Path, packages: Path) -> None:
        top.mkdir(parents=True)
        self._top, self._name = top, f"tidegate-test-{os.getpid()}"
        mounts = MOUNTS.format(top=top, packages=packages, off=" ".join(OFF), nodes=NODES, systemd=SYSTEMD)
        script = BRANCH.format(top=top, name=self._name, mounts=mounts.replace("'", "'\\''"))
        self._log = open(top.with_suffix(".log"), "w+")  # noqa: SIM115
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self._enter: list[str] = []
        try:
            self._boot()
        except BaseException:
            self.close()
            raise

    def _boot(self) -> None:
        until = time.monotonic() + BOOT_S
        state = ""
        while time.monotonic() < until:
            if self._holder.poll() is not None:
                break
            pid = self._init_pid()
            if pid:
                self._enter = ["nsenter", f"--target={pid}", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup",
                               "chroot", f"{self._top}/root"]  # fmt: skip
                state = self.run("systemctl", "is-system-running", code=None).strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.2)
        self._log.seek(0)
        raise OSError(f"systemd does not come up here (last state: {state or 'none'})\n{self._log.read()[-2000:]}")

    def _init_pid(self) -> int:
        """The host's number of the machine's process 1 once that is systemd; 0 before."""
        pid = self._holder.pid  # unshare became the shell, and that the second unshare, all by exec
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return 0
        return int(children[0]) if Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd" else 0

    def words(self, *words: str, user: str | None = None) -> list[str]:
        """The words that run a command in there, with the environment of a fresh login."""
        become = ["runuser", "-u", user, "--"] if user else []
        return [*self._enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *become, *words]

    def run(self, *words: str, user: str | None = None, code: int | None = 0) -> str:
        """Run a command to its end; gives what it said. Raises AssertionError on another exit code."""
        done = subprocess.run(
            self.words(*words, user=user), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=280, cwd="/",
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{' '.join(words)}: code {done.returncode}\n{done.stdout}"
        return done.stdout

    def close(self) -> None:
        """End everything in there; its mounts go with it, and then its control groups."""
        self._holder.kill()
        self._holder.wait(30)
        self._log.close()
        sweep = (f"mount -t cgroup2 none {self._top} && cd {self._top}$(sed -n 's/^0:://p' /proc/self/cgroup) && "
                 f"find {self._name} -depth -type d -exec rmdir {{}} +")  # fmt: skip
        until = time.monotonic() + 30  # the kernel takes its processes away one by one
        while subprocess.run(["unshare", "--mount", "sh", "-c", sweep], capture_output=True).returncode:
            if time.monotonic() > until:
                break
            time.sleep(0.2)
