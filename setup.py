"""Build the compiled core and map the four top-level folders into the one import name ``tidegate``."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

NAME = "tidegate"
FOLDERS = ("runtime", "ext", "hal", "config")
ROOT = Path(__file__).parent.resolve()
QUICK = os.environ.get("TIDEGATE_QUICK_BUILD") == "1"  # not optimized: compiled in a third of the time, never shipped
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
    "bus.rtu": (),
    "bus.rtu_slave": (),
    "bus.rtu_view": (),
    "bus.port": (),
    "estimate.lag": (),
    "estimate.pairing": (),
    "estimate.demand": (),
    "estimate.estimator": ("safety/safety.c",),
    "control.policies": (),
    "control.preference": (),
    "control.dispatch": (),
    "control.hunting": (),
    "cycle.schedule": (),
    "cycle.enforcement": (),
    "control.corridor": (),
    "safety.gate": ("safety/safety.c",),
    "safety.diagnosis": (),
    "cycle.orders": (),
    "safety.cabinet": (),
    "cycle.outputs": (),
    "cycle.publish": (),
    "cycle.recorder": (),
    "cycle.loop": ("safety/safety.c",),
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
}
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ext").rglob("*.h"))

# Warnings are errors for what we wrote. The two exceptions are about code that Cython generates around it.
CFLAGS = [
    *(["-O0", "-U_FORTIFY_SOURCE"] if QUICK else ["-O2"]), "-g0", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
    "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers",
    "-ffp-contract=off",  # the same bits on every machine: no fused multiply-add
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
]


def packages() -> dict[str, str]:
    """Return import name -> folder for every package below the four folders."""
    found = {}
    for folder in FOLDERS:
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            relative = init.parent.relative_to(ROOT)
            found[f"{NAME}.{'.'.join(relative.parts)}"] = str(relative)
    return found


PACKAGES = packages()

# An editable install needs only the mapping; `make build` compiles in place, on all cores and only what changed.
MAPPING_ONLY = os.environ.get("TIDEGATE_MAPPING_ONLY") == "1"

setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},  # a wheel too is compiled on all cores
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        f"{NAME}.runtime": ["py.typed"],
        f"{NAME}.runtime.carbon.report": ["*.j2", "locale/*.po"],
        f"{NAME}.runtime.commissioning": ["*.j2"],
        f"{NAME}.runtime.demo": ["*.j2"],
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
