"""What is allowed and hardly meant: each kind warned of with what was meant, and none in the files that are shipped."""

from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.config.site import EXIT_PLAN, load_site
from tidegate.config.unlikely import unlikely
from tidegate.runtime.cli.main import main

CONFIG = Path(str(files("tidegate.config").joinpath(".")))
SHIPPED = sorted([*(CONFIG / "sites").glob("*.toml"), CONFIG / "demo" / "site.toml", CONFIG / "demo" / "day.toml"])
SITE = (CONFIG / "sites" / "simulated.toml").read_text()
FUSE, PEAK = "connection_import_w_max = 60000\n", "peak_w_max = 40000\n"
METER = 'map = "eastron-sdm630"\n'
UNIT = "energy_wh = 60000\ncharge_w_max = 30000\ndischarge_w_max = 30000\n"

# kind -> (good text, text that is unlikely, what is said, text that is just likely)
KINDS = {
    "connection in kW": (FUSE + "\n[control]\n" + PEAK, "connection_import_w_max = 250\n[control]\n",
                         "did you mean 250000 (250 kW)?", "connection_import_w_max = 300\n[control]\n"),
    "peak in kW": (PEAK, "peak_w_max = 40\n", "did you mean 40000 (40 kW)?", "peak_w_max = 300\n"),
    "connection in mW": (FUSE, "connection_import_w_max = 60000000\n", "did you mean 60000 (60 kW)?",
                         "connection_import_w_max = 30000000\n"),
    "demand above the connection": (PEAK, "demand_w_max = 61000\n", "it never acts", "demand_w_max = 60000\n"),
    "demand above the peak": (PEAK, PEAK + "demand_w_max = 41000\n", "above peak_w_max",
                              PEAK + "demand_w_max = 40000\n"),
    "recharge above the demand": (PEAK, "demand_w_max = 40000\nrecharge_w_max = 41000\n", "fills the window",
                                  "demand_w_max = 40000\nrecharge_w_max = 40000\n"),
    "recharge above the connection": (PEAK, "recharge_w_max = 61000\n", "no limit", "recharge_w_max = 60000\n"),
    "reserve below the least charge": (PEAK, PEAK + "reserve_soc = 0.1\n", "keeps nothing back",
                                       PEAK + "reserve_soc = 0.11\n"),
    "target below the reserve": (PEAK, PEAK + "reserve_soc = 0.81\n", "never rested at", PEAK + "reserve_soc = 0.79\n"),
    "energy in kWh": (UNIT, UNIT.replace("60000", "60"), "did you mean 60000 (kWh)?", UNIT.replace("60000", "1500")),
    "energy too large": (UNIT, UNIT.replace("60000", "60000000"), "did you mean 60000?",
                         UNIT.replace("60000", "1500000")),
    "sides apart": (UNIT, UNIT.replace("discharge_w_max = 30000", "discharge_w_max = 1000"), "lie far apart",
                    UNIT.replace("discharge_w_max = 30000", "discharge_w_max = 1500")),
    "hardly any charge left": (UNIT, UNIT + "soc_min = 0.76\nsoc_max = 0.85\nsoc_taper = 0.01\n", "hardly anything",
                               UNIT + "soc_min = 0.74\nsoc_max = 0.85\nsoc_taper = 0.01\n"),
    "ramp of hours": (PEAK, PEAK + "ramp_up_w_per_s = 8\n", "1.0 h", PEAK + "ramp_up_w_per_s = 9\n"),
    "no zone for a calendar": ("[simulation]", '[[schedule]]\nname = "x"\nbegin = "01:00"\nend = "02:00"\n'
                               "setpoint_w = 5000\n[simulation]", "it is UTC", "[simulation]"),
    "slot in kW": ("[simulation]", '[[schedule]]\nname = "x"\nbegin = "01:00"\nend = "02:00"\nsetpoint_w = -10\n'
                   "[simulation]", "did you mean -10000 (-10 kW)?", "[simulation]"),
    "price in cents": ("[simulation]", "[carbon]\nprice_per_kwh = 28\n[simulation]", "did you mean 0.28",
                       "[carbon]\nprice_per_kwh = 0.28\n[simulation]"),
    "factor in kg": ("[simulation]", "[carbon]\ngrid_factor_g_per_kwh = 0.4\n[simulation]", "did you mean 400",
                     "[carbon]\ngrid_factor_g_per_kwh = 400\n[simulation]"),
    "poll slower than its age": (METER, METER + "poll_fast_ms = 500\nage_max_ms = 400\n", "stale first",
                                 METER + "poll_fast_ms = 100\nage_max_ms = 400\n"),
    "time-out longer than its age": (METER, METER + "timeout_ms = 500\nage_max_ms = 400\n", "one lost answer",
                                     METER + "timeout_ms = 300\nage_max_ms = 400\n"),
    "streams elsewhere": ("[simulation]", '[gateway]\nendpoint = "tcp://127.0.0.1:7400"\npublish = '
                          '"tcp://127.0.0.1:9000"\n[simulation]', "look for the streams",
                          '[gateway]\nendpoint = "tcp://127.0.0.1:7400"\n[simulation]'),
}  # fmt: skip


def said(tmp_path, old, new):
    site = tmp_path / "site.toml"
    assert old in SITE
    site.write_text(SITE.replace(old, new, 1))
    site.chmod(0o644)
    return unlikely(load_site(site))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_said_with_what_was_meant_and_not_on_the_other_side(tmp_path, kind):
    good, bad, says, edge = KINDS[kind]
    found = said(tmp_path, good, bad)
    assert any(says in line for line in found), found
    assert not [line for line in said(tmp_path, good, edge) if says in line]


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_nothing_that_is_shipped_is_unlikely(path):
    assert unlikely(load_site(path)) == []


def test_check_warns_and_strict_refuses(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text(SITE.replace(PEAK, "peak_w_max = 60\n"))
    site.chmod(0o644)
    done = CliRunner().invoke(main, ["check", str(site)])
    assert done.exit_code == 0 and "warning: control.peak_w_max = 60 W" in done.output and "1 unlikely" in done.output
    strict = CliRunner().invoke(main, ["check", "--strict", str(site)])
    assert strict.exit_code == EXIT_PLAN and "did you mean 60000" in strict.output
    site.write_text(SITE)
    assert CliRunner().invoke(main, ["check", "--strict", str(site)]).exit_code == 0
