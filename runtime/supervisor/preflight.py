"""Everything about a site that can be known before a process is started: its file, its maps, and the files it names."""

import importlib.util
import math
import os
from importlib.resources import files
from pathlib import Path

from tidegate.config.compile import compile_site
from tidegate.config.site import EXIT_CONTENT, Site, SiteError, load_site

SHIPPED = Path(str(files("tidegate.config").joinpath("sites")))


def place_of(site: str | os.PathLike[str]) -> Path:
    """The file that a word on the command line means: a path, or the name of a site that is shipped (`simulated`)."""
    path = Path(site)
    shipped = SHIPPED / f"{site}.toml"
    return shipped if not path.exists() and path.name == str(site) and shipped.exists() else path


def prepare(site: str | os.PathLike[str] | Site, *, accounts: bool = True) -> tuple[Site, bytes]:
    """(site, program) of a site that may start.

    accounts : also check the files that the carbon sidecar needs; for people who look, never for a start.
    Raises SiteError that names the file, each key and the remedy.
    """
    path = "the site" if isinstance(site, Site) else str(place_of(site))
    loaded = site if isinstance(site, Site) else load_site(path)
    try:
        blob = compile_site(loaded)
    except SiteError as why:
        raise SiteError(path, why.problems, why.exit_code) from None
    problems = _traces(loaded) + (_factors(loaded) if accounts else [])
    if problems:
        raise SiteError(path, problems, EXIT_CONTENT)
    return loaded, blob


def _traces(site: Site) -> list[str]:
    """What is wrong with the traces that a simulated site replays."""
    wanted = site.simulation
    if wanted is None or not site.simulated:
        return []
    from tidegate.hal.sim.trace import TraceError, read_trace

    problems = []
    for key, name, column, least_w in (
        ("load_trace", wanted.load_trace, wanted.load_column, 0.0),
        ("pv_trace", wanted.pv_trace, wanted.pv_column, -math.inf),
    ):
        if name:
            try:
                read_trace(site.folder / name, column, start_s=wanted.start_s, least_w=least_w)
            except TraceError as why:
                problems.append(f"simulation.{key}: {why}")
    return problems


def _factors(site: Site) -> list[str]:
    """What is wrong with the factor table, where the extra that reads it is installed."""
    if importlib.util.find_spec("sqlalchemy") is None:
        return []
    problems = []
    if site.carbon.factors or site.carbon.prices:
        from tidegate.runtime.carbon.factors.files import factors_of
        from tidegate.runtime.carbon.factors.series import FactorError

        try:
            factors_of(site.carbon.model_dump(), site.folder)
        except (FactorError, OSError) as why:
            problems.append(f"carbon.factors: {why}")
    if site.carbon.readings:
        from tidegate.runtime.carbon.factors.series import FactorError
        from tidegate.runtime.carbon.readings.readings import read_readings

        try:
            read_readings(site.folder / site.carbon.readings)
        except (FactorError, OSError) as why:
            problems.append(f"carbon.readings: {why}")
    return problems
