"""What an arm64 guest runs: Debian's files and PREEMPT_RT kernel, the cross-built product, its packages.

    python tests/vm/arm_guest.py        # makes what is missing in build/arm; prints nothing where all is there

The product is what `packaging/cross.py build arm64` compiles; the packages are wheels of the versions that
constraints.txt has. 77: a program is missing here, and it is named.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "packaging"))
import cross  # noqa: E402

GUEST = cross.BUILD / "guest-arm64"  # root of the guest, kernel and modules in it
SITE = cross.BUILD / "site-guest-arm64"
DEBIAN = "base-files,bash,busybox-static,coreutils,dash,hostname,iproute2,libstdc++6,linux-image-rt-arm64,python3,sed"
EXTRAS = ("tools", "dbc", "carbon", "recorder", "web")


def python_words() -> list[str]:
    """Words that start the product's Python in the guest."""
    return ["env", f"PYTHONPATH={cross.BUILD / 'arm64' / 'lib'}:{SITE}", "python3"]


def make() -> None:
    """Build and fetch what is missing."""
    kind = cross.KINDS["arm64"]
    cross.build("arm64")
    if not GUEST.is_dir():
        print("== arm64: the guest's files", flush=True)
        part = GUEST.with_suffix(".part")
        cross.debian_files(kind, part, DEBIAN)
        part.rename(GUEST)
    if not SITE.is_dir():
        print("== arm64: the guest's packages", flush=True)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        named = [*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]
        part = SITE.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "-c", "constraints.txt")
        cross.run(*pip, "--target", part, "--only-binary=:all:", *cross.platforms(kind), *named)
        part.rename(SITE)
    # Its name and version, which the page asks for: it is not installed there, only found.
    cross.run(sys.executable, "setup.py", "-q", "egg_info", "--egg-base", cross.BUILD / "arm64" / "lib")
    # Byte code, made here by the same version of Python: the emulated processor would make it anew at each start.
    for place in (GUEST / "usr/lib", SITE, cross.BUILD / "arm64" / "lib"):
        subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "2", str(place)], stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    make()
