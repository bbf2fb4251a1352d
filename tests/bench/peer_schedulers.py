"""One scheduler, asked for a plan a line. Runs in that scheduler's own environment, of which alone it imports.

    python peer_schedulers.py emhass|emhass-exact|flexmeasures|tidegate STORAGE_JSON
    in:  {"load_kw": [...], "pv_kw": [...], "import_eur_per_kwh": [...], "export_eur_per_kwh": [...], "stored_kwh": 30}
    out: {"battery_kw": first step, + discharge, or null where it has no plan, "solve_s": ..., "why": ""}

Each is set up as its own pages have it: the same battery, losses and wear, no export from the battery.
"""

import importlib.metadata
import json
import logging
import os
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np

BEGIN = "2025-01-01T00:00:00Z"  # of every question: a plan does not depend on the date


class Emhass:
    """Its optimisation class, called for one naive MPC step as its own web server does, without Home Assistant."""

    def __init__(self, storage: dict[str, float], *, exact: bool = False) -> None:
        import emhass
        import pandas as pd
        from emhass.optimization import Optimization

        self.storage, self._pd = storage, pd
        conf = json.loads((Path(emhass.__file__).parent / "data/config_defaults.json").read_text())
        conf |= {
            "number_of_deferrable_loads": 0, "set_use_battery": True, "set_use_pv": True, "num_threads": 1,
            "nominal_power_of_deferrable_loads": [], "operating_hours_of_each_deferrable_load": [],
            "maximum_power_from_grid": 200_000, "maximum_power_to_grid": 200_000, "set_nodischarge_to_grid": True,
            "battery_discharge_power_max": storage["discharge_kw_max"] * 1e3,
            "battery_charge_power_max": storage["charge_kw_max"] * 1e3,
            "battery_nominal_energy_capacity": storage["energy_kwh"] * 1e3,
            "battery_discharge_efficiency": storage["discharge_efficiency"],
            "battery_charge_efficiency": storage["charge_efficiency"],
            "battery_minimum_state_of_charge": storage["soc_min"],
            "battery_maximum_state_of_charge": storage["soc_max"],
            "battery_target_state_of_charge": 0.5, "weight_battery_discharge": storage["wear_eur_per_kwh"],
            "compute_curtailment": True, "inverter_is_hybrid": False,
        }  # fmt: skip
        if exact:  # its default gap of 1 % is of the whole bill: more than what a battery saves in a day
            conf["lp_solver_mip_rel_gap"] = 0.0
        asked = {**conf, "optimization_time_step": pd.Timedelta("1h"), "time_zone": "UTC"}
        silent = logging.getLogger("emhass")
        silent.setLevel(logging.CRITICAL)
        root = Path(emhass.__file__).parent
        self._law = Optimization(asked, conf, conf, "unit_load_cost", "unit_prod_price", "profit",
                                 {"root_path": root, "data_path": root / "data"}, silent)  # fmt: skip

    def first_kw(self, asked: dict[str, list[float]], stored_kwh: float) -> float | None:
        """kW of the first step."""
        n, pd = len(asked["load_kw"]), self._pd
        index = pd.date_range(BEGIN, periods=n, freq="1h")
        frame = pd.DataFrame({"unit_load_cost": asked["import_eur_per_kwh"],
                              "unit_prod_price": asked["export_eur_per_kwh"]}, index=index)  # fmt: skip
        pv = pd.Series(np.array(asked["pv_kw"]) * 1e3, index=index)
        load = pd.Series(np.array(asked["load_kw"]) * 1e3, index=index)
        soc = min(max(stored_kwh / self.storage["energy_kwh"], self.storage["soc_min"]), self.storage["soc_max"])
        made = self._law.perform_naive_mpc_optim(frame, pv, load, n, soc_init=soc, soc_final=0.5)
        if "P_batt" not in made or not np.isfinite(made["P_batt"].iloc[0]):
            raise ValueError(f"no P_batt, {n} steps")
        return float(made["P_batt"].iloc[0]) / 1e3


class FlexMeasures:
    """The program that its StorageScheduler hands its devices to, over its own HiGHS backend, without its database."""

    COLUMNS = ("equals", "max", "min", "efficiency", "derivative equals", "derivative max", "derivative min",
               "derivative down efficiency", "derivative up efficiency", "stock delta")  # fmt: skip

    def __init__(self, storage: dict[str, float]) -> None:
        import pandas as pd
        from flask import Flask
        from flexmeasures.data.models.planning import FlowCommitment
        from flexmeasures.data.models.planning.linear_optimization import device_scheduler
        from flexmeasures.data.models.planning.utils import initialize_df

        self.storage, self._scheduler, self._pd = storage, device_scheduler, pd
        self._frame, self._commitment = initialize_df, FlowCommitment
        app = Flask("bench")
        app.config |= {"FLEXMEASURES_LP_SOLVER": "highspy", "LOGGING_LEVEL": "INFO"}
        app.app_context().push()

    def first_kw(self, asked: dict[str, list[float]], stored_kwh: float) -> float | None:
        """kW of the first step. Units of the program: MW and MWh; + is consumption."""
        storage, n, pd = self.storage, len(asked["load_kw"]), self._pd
        begin = pd.Timestamp(BEGIN)
        span = (list(self.COLUMNS), begin, begin + timedelta(hours=n), timedelta(hours=1))
        net = (np.array(asked["load_kw"]) - np.array(asked["pv_kw"])) / 1e3
        fixed, battery, site = (self._frame(*span) for _ in range(3))
        fixed["derivative equals"] = net
        battery["max"] = (storage["soc_max"] * storage["energy_kwh"] - stored_kwh) / 1e3
        battery["min"] = min(0.0, (storage["soc_min"] * storage["energy_kwh"] - stored_kwh) / 1e3)
        battery["derivative max"] = storage["charge_kw_max"] / 1e3
        # A battery that exports nothing: it gives no more than the load takes.
        battery["derivative min"] = -np.minimum(storage["discharge_kw_max"] / 1e3, np.maximum(net, 0.0))
        battery["derivative up efficiency"] = storage["charge_efficiency"]
        battery["derivative down efficiency"] = storage["discharge_efficiency"]
        index = battery.index
        energy = self._commitment(
            name="energy", quantity=0.0, index=index,
            upwards_deviation_price=pd.Series(np.array(asked["import_eur_per_kwh"]) * 1e3, index=index),
            downwards_deviation_price=pd.Series(np.array(asked["export_eur_per_kwh"]) * 1e3, index=index),
        )  # fmt: skip
        wear = self._commitment(
            name="wear", quantity=0.0, index=index, device=pd.Series(1, index=index), upwards_deviation_price=0.0,
            downwards_deviation_price=-storage["wear_eur_per_kwh"] * 1e3,
        )  # fmt: skip
        schedule, _, results, _ = self._scheduler([fixed, battery], site, commitments=[energy, wear],
                                                  initial_stock=[0.0, 0.0])  # fmt: skip
        if str(results.solver.termination_condition) != "optimal":
            return None
        return -float(schedule[1].iloc[0]) * 1e3


class Tidegate:
    """Ours, by the same way."""

    def __init__(self, storage: dict[str, float]) -> None:
        from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Storage
        from tidegate.runtime.planner.plan_solver import solve

        self.storage, self._solve, self._horizon = Storage(**storage), solve, Horizon
        self._open = Connection(200, 200)

    def first_kw(self, asked: dict[str, list[float]], stored_kwh: float) -> float | None:
        """kW of the first step."""
        load, pv, cost, paid = (np.array(asked[name]) for name in ("load_kw", "pv_kw", "import_eur_per_kwh",
                                                                   "export_eur_per_kwh"))  # fmt: skip
        horizon = self._horizon(0, 3600, load, pv, cost, paid, np.ones(len(load), dtype=bool))
        return float(self._solve(self.storage, self._open, horizon, stored_kwh).battery_kw[0])


def main() -> None:
    """Answers until its input ends."""
    name = sys.argv[1]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    made = {"emhass": Emhass, "emhass-exact": lambda storage: Emhass(storage, exact=True), "flexmeasures": FlexMeasures,
            "tidegate": Tidegate}  # fmt: skip
    peer = made[name](json.loads(sys.argv[2]))
    version = importlib.metadata.version(name.removesuffix("-exact"))
    print(json.dumps({"name": name, "version": version}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began, why, power = time.perf_counter(), "", None
        try:
            power = peer.first_kw(asked, asked["stored_kwh"])
        except Exception as what:  # a peer that breaks is a plan that it has not
            why = repr(what)[:300]
        took = time.perf_counter() - began
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"battery_kw": power, "solve_s": took, "resident_mib": resident, "why": why}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
