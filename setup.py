"""Build the compiled core and map the four top-level folders into the one import name ``tidegate``."""

import os
import runpy
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

NAME = "tidegate"
FOLDERS = ("runtime", "ext", "hal", "config")
ROOT = Path(__file__).parent.resolve()
QUICK = os.environ.get("TIDEGATE_QUICK_BUILD") == "1"  # not optimized: compiled in a third of the time, never shipped
# Of MODULES, only these are compiled: for a test that builds some of them a second time. Such a wheel does not run.
ONLY = os.environ.get("TIDEGATE_ONLY_MODULES", "").split()
TRACE = os.environ.get("TRACE") == "1"  # line tracing for coverage of .pyx; slow, never shipped

# Listed, not globbed: a missing source must stop the build. Value: C files linked in.
MODULES: dict[str, tuple[str, ...]] = {
    "abi.image": (),
    "abi.settings": (),
    "cycle.realtime": (),
    "abi.copies": (),
    "abi.shared": (),
    "abi.program_check": (),
    "abi.program": (),
    "bus.can": (),
    "bus.can_view": (),
    "bus.registers": (),
    "bus.rtu_frame": (),
    "bus.rtu_finish": (),
    "bus.rtu_start": (),
    "bus.rtu": (),
    "bus.rtu_slave": (),
    "bus.rtu_view": (),
    "bus.pylon": (),
    "bus.pylon_line": (),
    "bus.mail_view": (),
    "bus.port": (),
    "bus.mbap": (),
    "bus.tcp_thread": (),
    "bus.tcp": (),
    "estimate.interval": (),
    "estimate.lag": (),
    "estimate.shape": (),
    "estimate.model": (),
    "estimate.moments": (),
    "estimate.meter_sign": (),
    "estimate.truth": (),
    "estimate.pulses": (),
    "estimate.coincidence": (),
    "estimate.contradiction": (),
    "estimate.energy_register": (),
    "estimate.phases": (),
    "estimate.likelihood": (),
    "estimate.question": (),
    "estimate.pairing": (),
    "estimate.wires": (),
    "estimate.demand": (),
    "estimate.clock": (),
    "estimate.reconnect": (),
    "estimate.island": (),
    "estimate.easing": (),
    "estimate.response": (),
    "estimate.converter": (),
    "estimate.bank": (),
    "estimate.estimator": ("safety/safety.c",),
    "control.policies": (),
    "control.preference": (),
    "control.dispatch": (),
    "control.hunting": (),
    "control.recharging": (),
    "control.islanding": (),
    "cycle.episodes": (),
    "cycle.schedule": (),
    "cycle.enforcement": (),
    "control.corridor": (),
    "safety.gate": ("safety/safety.c",),
    "safety.diagnosis": (),
    "cycle.orders": (),
    "safety.cabinet": (),
    "cycle.outputs": (),
    "cycle.publish": (),
    "cycle.selftest": (),
    "cycle.recorder": (),
    "cycle.asking": (),
    "cycle.loop": ("safety/safety.c",),
    "cycle.code": (),
    "record.replay": (),
    "sim.habits": (),
    "sim.battery": (),
    "sim.plant": (),
    "sim.floor": (),
    "sim.slave": (),
    "sim.observe": (),
    "sim.can_frames": (),
    "sim.buses": (),
    "sim.assembly": (),
    "sim.world": (),
    "sim.live": (),
    "sim.disturb": (),
}
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ext").rglob("*.h"))

# Warnings are errors for what we wrote. The two exceptions are about code that Cython generates around it.
CFLAGS = [
    *(["-O0", "-U_FORTIFY_SOURCE"] if QUICK else ["-O2"]), "-g0", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
    "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers",
    "-fstack-protector-strong",  # an overrun on the stack ends the core, and the converter's own watchdog acts
    "-ffp-contract=off",  # the same bits on every machine: no fused multiply-add
    f"-ffile-prefix-map={ROOT}=.",  # nor does it matter in which folder it was built
]  # fmt: skip


def namespace_tree() -> str:
    """Return a folder in which each top-level folder is reachable as tidegate/<folder>.

    Cython resolves ``from tidegate.ext.abi.image cimport point_t`` by looking for tidegate/ext/abi/image.pxd, which
    does not exist in a checkout. Links supply it; mypy is pointed at the same folder.
    """
    tree = ROOT / "build" / "ns"
    (tree / NAME).mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        link = tree / NAME / folder
        if not link.is_symlink():
            link.symlink_to(Path("../../..") / folder, target_is_directory=True)
    return str(tree)


extensions = [
    Extension(
        f"{NAME}.ext.{module}",
        sources=[f"ext/{module.replace('.', '/')}.pyx", *(f"ext/{source}" for source in c_sources)],
        include_dirs=["ext"],
        depends=HEADERS,
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
        extra_compile_args=CFLAGS,
    )
    for module, c_sources in MODULES.items()
    if not ONLY or module in ONLY
]


def packages() -> dict[str, str]:
    """Return import name -> folder for every package below the four folders."""
    found = {}
    for folder in FOLDERS:
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            relative = init.parent.relative_to(ROOT)
            found[f"{NAME}.{'.'.join(relative.parts)}"] = str(relative)
    return found


class Wheel(bdist_wheel):
    """A wheel with its bills of materials, and with the commit's time as the time of every file."""

    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        super().egg2dist(egginfo_path, distinfo_path)
        runpy.run_path(str(ROOT / "packaging" / "sbom.py"))["write"](Path(distinfo_path) / "sboms")


def commit_time() -> str:
    """Seconds since 1970 of the checked-out commit; 1980, where archives begin, without one."""
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    if (ROOT / ".git").exists():
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "315532800"
    return "315532800"


os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time())
PACKAGES = packages()

# An editable install needs only the mapping; `make build` compiles in place, on all cores and only what changed.
MAPPING_ONLY = os.environ.get("TIDEGATE_MAPPING_ONLY") == "1"

setup(
    cmdclass={"bdist_wheel": Wheel},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},  # a wheel too is compiled on all cores
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        f"{NAME}.runtime": ["py.typed"],
        f"{NAME}.runtime.carbon.report": ["*.j2", "locale/*.po"],
        f"{NAME}.runtime.commissioning": ["*.j2"],
        f"{NAME}.runtime.demo": ["*.j2"],
        f"{NAME}.runtime.web": ["static/*"],
        f"{NAME}.ext": ["py.typed"],
        **{package: ["*.pxd", "*.h", "*.pyi"] for package in PACKAGES if package.startswith(f"{NAME}.ext.")},
        f"{NAME}.hal": ["py.typed", "*.toml", "devices/*", "devices/sunspec/*"],
        f"{NAME}.config": ["py.typed", "*.toml", "*.json", "sites/*", "demo/*"],
    },
    ext_modules=[] if MAPPING_ONLY else cythonize(
        extensions,
        include_path=[namespace_tree()],
        compiler_directives={"language_level": "3", "linetrace": TRACE, "boundscheck": False, "wraparound": False,
                             "cdivision": True, "initializedcheck": False},
        nthreads=os.cpu_count() or 1,
        force=TRACE,
    ),
)  # fmt: skip
