"""Which plant variable stands behind a signal of a device map, and which state of a converter a command sets."""

# Signals that are called differently in the plant; every other name is looked up as it is, then by its ending.
BATTERY = {
    "temp_cell_c_max": "temp_max_c",
    "temp_c": "temp_max_c",
    "capacity_ah": "capacity_ah",
    "stored_wh": "energy_wh",
    "charge_enable_ok": "charge_ok",
    "contactor_ok": "contactor",
    "discharge_enable_ok": "discharge_ok",
}
PCS = {
    "power_w": "w",
    "ac_w": "w",
    "battery_w": "storage_w",
    "power_l1_w": "w_l1",
    "power_l2_w": "w_l2",
    "power_l3_w": "w_l3",
    "heartbeat": "hb_device",
    "connection_state": "conn",
    "connected_ok": "conn",
    "control_mode": "local",
    "frequency_hz": "hz",
    "discharged_wh": "out_wh",
    "charged_wh": "in_wh",
    "apparent_va": "va",
    "reactive_var": "var",
    "current_a": "a",
    "voltage_v": "v_ln",
    "cabinet_c": "temp_c",
    "discharge_w_max": "discharge_w_max",
    "charge_w_max": "charge_w_max",
    "rated_w": "w_max",
    "revert_left_s": "revert_left_s",
    "watchdog_s": "revert_s",
    "setpoint_w": "set_w",
}
METER = {
    "power_w": "w",
    "apparent_va": "va",
    "reactive_var": "var",
    "frequency_hz": "hz",
    "current_a": "a",
    "voltage_v": "v",
    "energy_wh": "total_wh",
    **{f"power_l{phase}_w": f"w_l{phase}" for phase in (1, 2, 3)},
    **{f"voltage_l{phase}_v": f"v_l{phase}" for phase in (1, 2, 3)},
    **{f"current_l{phase}_a": f"a_l{phase}" for phase in (1, 2, 3)},
}

# A signal that no name leads to shows something harmless that moves with the plant where it can.
ENDINGS = {
    "battery": (("_bits", "zero"), ("_v", "pack_v"), ("_a", "pack_a"), ("_c", "temp_max_c")),
    "pcs": (("_hz", "hz"), ("_pf", "pf"), ("_v", "v_ln"), ("_a", "a"), ("_c", "temp_c"), ("_wh", "out_wh")),
    "meter": (("_hz", "hz"), ("pf", "pf"), ("_v", "v"), ("_a", "a"), ("_wh", "import_wh")),
}
TABLES = {"battery": BATTERY, "pcs": PCS, "meter": METER}

# Command of a map -> variable of the converter. The kinds setpoint_w and heartbeat need no name.
COMMANDS = {
    "start": "op_ctl",
    "setpoint_mode": "set_mode",
    "setpoint_first": "set_w",
    "setpoint_enable": "set_ena",
    "setpoint": "set_w",
    "revert_to": "revert_w",
    "revert_after": "revert_s",
    "revert_enable": "revert_ena",
    "controller_heartbeat": "hb_controller",
}

# What a converter calls standby, run and fault, by the SunSpec model that its state stands in.
STATES = {
    701: (7, 3, 6),  # InvSt
    103: (8, 4, 7),  # St
    64201: (8, 11, 7),  # CurrentState of KACO
}
STATES_PLAIN = STATES[701]  # for maps that say "ready" in a register of its own

ROLES = {
    "grid-meter": "grid",
    "it-meter": "it",
    "cooling-meter": "cooling",
    "pv-meter": "pv",
    "circuit-meter": "circuit",
}
NOWHERE = ("lighting-meter", "other-meter", "generator-meter")  # nothing in the simulated plant is like them: 0 W


def variable_of(kind: str, signal: str, known: tuple[str, ...]) -> str:
    """Variable of a battery, pcs or meter that a map's signal shows; "zero" when nothing in the plant is like it."""
    found = TABLES[kind].get(signal, signal)
    if found in known:
        return found
    for ending, variable in ENDINGS[kind]:
        if signal.endswith(ending):
            return variable
    return "zero"
