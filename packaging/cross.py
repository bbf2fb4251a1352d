"""Build for other boards: the compiled core by Debian's cross compilers, through the project's own setup.py.

    cross.py build KIND    modules and Python files in build/arm/KIND/lib, what they import in build/arm/KIND/site
    cross.py wheel KIND    a wheel in dist/, named after the oldest C library that it runs with; KIND may be `here`
    cross.py root KIND     only Debian's files of that machine in build/arm/root-ARCH: Python, headers, C library
    cross.py env KIND      lines for a shell under which setup.py and pip build for that machine
    cross.py pip KIND      the options by which pip takes wheels for that machine
    cross.py glibc FILE... the oldest C library that these compiled modules run with

KIND: arm64; armhf; armhf-time64, where time is 64 bits wide on a 32-bit machine, as in Debian 13 and every new Yocto.
The Python of the boards is that of this machine's Debian. 77: a program is missing here, and it is named.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "arm"
LACKS_PROGRAM = 77


class Kind(NamedTuple):
    """A kind of board: Debian's name, the kernel's, the compiler's, and what of libc it is compiled with."""

    arch: str
    machine: str
    triplet: str
    flags: str = ""


HERE = "here"  # this machine, of the modules that `make build` compiled
KINDS = {
    "arm64": Kind("arm64", "aarch64", "aarch64-linux-gnu"),
    "armhf": Kind("armhf", "armv7l", "arm-linux-gnueabihf"),
    "armhf-time64": Kind("armhf", "armv7l", "arm-linux-gnueabihf", "-D_TIME_BITS=64 -D_FILE_OFFSET_BITS=64"),
}
QEMU = {"arm64": "qemu-aarch64-static", "armhf": "qemu-arm-static"}
# What a site needs to be compiled and run in virtual time. numpy has no 32-bit wheels, so Debian's serves there.
IMPORTED = {"arm64": ("numpy", "msgspec", "pydantic"), "armhf": ("msgspec", "pydantic")}
DEBIAN = {"arm64": ",libstdc++6", "armhf": ",python3-numpy"}  # numpy's wheel asks for the former
COMPILED_HERE = {"arm64": "", "armhf": "msgspec"}  # has no wheel for that machine: made from its sources


def fail(words: str, status: int = 1) -> None:
    """End with a sentence on stderr."""
    print(f"cross: {words}", file=sys.stderr)
    sys.exit(status)


def run(*words: str | Path, place: Path = ROOT, **extra: str) -> None:
    """Run it or end with its output."""
    done = subprocess.run(
        [str(word) for word in words], env={**os.environ, **extra}, cwd=place, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        fail(f"{' '.join(str(word) for word in words[:6])}: exit {done.returncode}\n{(done.stdout or '')[-6000:]}")


def require(kind: Kind) -> None:
    """End with 77 where a program is missing."""
    needed = {
        "mmdebstrap": "mmdebstrap", "apt-get": "apt", f"{kind.triplet}-gcc": f"gcc-{kind.triplet}",
        QEMU[kind.arch]: "qemu-user-static",
    }  # fmt: skip
    lacking = [package for tool, package in needed.items() if shutil.which(tool) is None]
    if lacking:
        fail(f"this machine lacks {' '.join(lacking)} (apt-get install)", LACKS_PROGRAM)


def root_of(kind: Kind) -> Path:
    """Debian's files of that machine, fetched from where this machine has its own; made once."""
    place = BUILD / f"root-{kind.arch}"
    if (place / "usr/bin/python3").is_symlink():
        return place
    print(f"== {kind.arch}: Debian's files", flush=True)
    part = place.with_suffix(".part")
    shutil.rmtree(place, ignore_errors=True)
    debian_files(kind, part, f"python3,libpython3-dev{DEBIAN[kind.arch]}")
    part.rename(place)
    return place


def debian_files(kind: Kind, place: Path, packages: str) -> None:
    """Packages of that machine and what they need, unpacked, nothing of them configured. packages : commas between."""
    form = "$(CODENAME) $(ORIGIN) $(COMPONENT) $(REPO_URI)"
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    codename = release[1] if release else ""
    uris = [line.split()[3] for line in told if line.startswith(f"{codename} Debian main ")]
    if not uris:
        fail("apt knows no `main` of this machine's own Debian: run apt-get update", LACKS_PROGRAM)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    run(
        "mmdebstrap", "--variant=extract", f"--architectures={kind.arch}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={packages}",
        codename, place, f"deb {uris[0]} {codename} main",
    )  # fmt: skip


def environment(kind: Kind) -> dict[str, str]:
    """Variables under which this machine's Python builds for the other: its configuration, its headers."""
    root = root_of(kind)
    (data,) = root.glob(f"usr/lib/python3.*/_sysconfigdata__{kind.triplet}.py")
    version = data.parent.name
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if version != own:
        fail(f"{kind.arch} has {version}, this is {own}: build with this Debian's own python3")
    held = BUILD / f"config-{kind.arch}"
    held.mkdir(parents=True, exist_ok=True)
    shutil.copy(data, held)
    return {
        "PYTHONPATH": str(held),
        "_PYTHON_SYSCONFIGDATA_NAME": data.stem,
        "_PYTHON_HOST_PLATFORM": f"linux-{kind.machine}",
        # Behind the cross compiler's own: of the root only what that lacks.
        "CPPFLAGS": f"-I{root}/usr/include/{version} -idirafter {root}/usr/include {kind.flags}".strip(),
    }


def platforms(kind: Kind) -> list[str]:
    """For pip: wheels that run with Debian's C library there, newest first."""
    tags = [f"manylinux_2_{minor}" for minor in (36, 35, 34, 31, 28, 27, 26, 24, 17)]
    return [word for tag in (*tags, "manylinux2014", "linux") for word in ("--platform", f"{tag}_{kind.machine}")]


def build(name: str) -> Path:
    """Modules, Python files and what they import; only what changed is compiled again."""
    kind = KINDS[name]
    require(kind)
    crossed = environment(kind)
    place = BUILD / name
    print(f"== {name}: compiled core", flush=True)
    run(
        sys.executable, "setup.py", "-q", "build", "--build-lib", place / "lib", "--build-temp", place / "temp",
        "--build-base", place, **crossed,
    )  # fmt: skip
    site = BUILD / f"site-{kind.arch}"
    if not site.is_dir():
        print(f"== {kind.arch}: what it imports", flush=True)
        part = site.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
        pinned = ("-c", "constraints.txt")
        own = COMPILED_HERE[kind.arch]
        if own:
            # By its own setup.py: pip gives what it builds an environment of its own, which knows nothing of the board.
            sources = BUILD / "sources"
            shutil.rmtree(sources, ignore_errors=True)
            run(*pip, "download", *pinned, "--no-deps", "--no-binary", own, "--dest", sources, own)
            shutil.unpack_archive(next(sources.glob("*.tar.gz")), sources, filter="data")
            (unpacked,) = (path for path in sources.iterdir() if path.is_dir())
            run(sys.executable, "setup.py", "-q", "build", "--build-lib", part, place=unpacked, **crossed)
        ready = [one for one in IMPORTED[kind.arch] if one != own]
        run(*pip, "install", *pinned, "--target", part, "--only-binary=:all:", *platforms(kind), *ready)
        part.rename(site)
    return place


def python(name: str) -> tuple[list[str], dict[str, str]]:
    """Words that start the board's Python under qemu-user, and their variables."""
    kind = KINDS[name]
    root = root_of(kind)
    # Nothing was configured in that root, so what Debian's alternatives would point at for numpy is named.
    beside = os.pathsep.join(f"{root}/usr/lib/{kind.triplet}/{part}" for part in ("blas", "lapack"))
    words = [QEMU[kind.arch], "-L", str(root), "-E", f"LD_LIBRARY_PATH={beside}", str(root / "usr/bin/python3")]
    paths = [BUILD / name / "lib", BUILD / f"site-{kind.arch}"]
    return words, {"PYTHONPATH": os.pathsep.join(str(path) for path in paths)}


def glibc_of(modules: list[Path]) -> tuple[int, int]:
    """The oldest C library that has every versioned symbol which the modules ask for."""
    found = {(2, 17)}  # below that there are no wheels
    for module in modules:
        words = ["readelf", "-W", "--version-info", str(module)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found |= {(int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", said)}
    return max(found)


def built_here() -> Path:
    """The modules that `make build` has just brought up to date, where a build for a wheel looks for them."""
    place = BUILD / HERE
    shutil.rmtree(place, ignore_errors=True)
    for module in (ROOT / "ext").rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
        copied = place / "lib/tidegate" / module.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(module, copied)  # not copy2: newer than its sources
    return place


def wheel(name: str) -> None:
    """A wheel in dist/. Its name says the C library of its modules: older ones refuse to install it."""
    if name == HERE:
        place, crossed, machine = built_here(), {}, platform.machine()
    else:
        place, crossed, machine = build(name), environment(KINDS[name]), KINDS[name].machine
    modules = sorted((place / "lib").rglob("*.so"))
    if not modules:
        fail(f"{place}/lib: no compiled module (make build)")
    major, minor = glibc_of(modules)
    tag = f"manylinux_{major}_{minor}_{machine}"
    run(
        sys.executable, "setup.py", "-q", "build", "--build-base", place, "--build-lib", place / "lib",
        "--build-temp", place / "temp", "bdist_wheel", "--plat-name", tag, "--dist-dir", ROOT / "dist",
        "--bdist-dir", place / "wheel", **crossed,
    )  # fmt: skip
    print(f"dist: {len(modules)} modules, {tag}")


def main(words: list[str]) -> int:
    """Command line."""
    if len(words) > 1 and words[0] == "glibc":
        print("{}.{}".format(*glibc_of([Path(word) for word in words[1:]])))
        return 0
    named = (words[1:] == [HERE] and words[0] == "wheel") or (len(words) == 2 and words[1] in KINDS)
    if not named or words[0] not in ("build", "wheel", "root", "env", "pip"):
        print(__doc__, file=sys.stderr)
        return 2
    task, name = words
    if task == "build":
        print(f"{build(name)}: built")
    elif task == "wheel":
        wheel(name)
    elif task == "root":
        require(KINDS[name])
        print(root_of(KINDS[name]))
    elif task == "pip":
        print(" ".join(platforms(KINDS[name])))
    else:
        for variable, value in environment(KINDS[name]).items():
            print(f"export {variable}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
