"""What the hazards allow: bounds of every time that stands between something going wrong and the battery at rest.

A site file may set how old a reading may be, how often it is asked for and how long an answer may take. Each of these
guards something that burns or trips in its own time, whatever a file says; these bounds come from there.
"""

import math
from collections.abc import Mapping

# A cell at its limit goes on with its current while nobody hears the BMS. The BMS's own protection opens contactors
# within a second or a few; whoever relies on less than that relies on it alone.
BMS_SILENCE_S = 5.0
# A converter that does not answer keeps its last setpoint until its own watchdog acts, which is set to seconds.
PCS_SILENCE_S = 5.0
# A gG fuse carries 1.6 times its current for an hour at most, and twice its current for a minute or two.
GRID_SILENCE_S = 60.0
# From an alarm to 0 W on the wire, with a reply missing just then: no longer than the silence of the BMS itself.
ZERO_S = 5.0
SILENCE_S: Mapping[str, float] = {"bms": BMS_SILENCE_S, "pcs": PCS_SILENCE_S, "grid-meter": GRID_SILENCE_S}

# Lithium cells are not charged above some 45 degC nor discharged above some 60; their separator layer decomposes from
# 80 degC on, and then nothing that a controller does matters.
TEMP_C_MAX = 60.0


def soc_margin_s(soc_min: float, soc_max: float, energy_wh: float, power_w: float) -> float:
    """How long full power takes from the edge of the soc window to an empty or full battery, s."""
    margin = min(soc_min, 1.0 - soc_max)
    return math.inf if power_w <= 0 else margin * energy_wh * 3600.0 / power_w


def silence_s_max(role: str, margin_s: float = math.inf) -> float:
    """How long a device of this role may be silent before the battery rests, s; infinity where nothing hangs on it.

    margin_s : of the storage unit behind a BMS, see `soc_margin_s`; half of it is left for what comes after. A window
    without a margin is no reason for a shorter time: it is warned of instead.
    """
    bound = SILENCE_S.get(role, math.inf)
    return min(bound, margin_s / 2) if role == "bms" and margin_s > 0 else bound
