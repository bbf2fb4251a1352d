"""A seeded room of three nodes (air, racks, walls) with a cooling unit that holds its set-point.

Another order and another law than the model that is fitted: efficiency falls with the outdoor temperature and at part
load, the fans draw what they draw, the distance of the warmest inlet from the set-point moves with the load, and each
sensor has noise and steps of 0.1 C.
"""

import math

import numpy as np

NOON_H = 15.0


class SimulatedRoom:
    """step() goes on in time. own_c: the set-point that its owner has; what is read is in `reads`."""

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        self.it_kw_mean = float(rng.uniform(30, 200))
        self.air_kwh_per_c = self.it_kw_mean * float(rng.uniform(0.01, 0.03))  # thermal
        self.racks_kwh_per_c = self.air_kwh_per_c * float(rng.uniform(1, 5))
        self.racks_kw_per_c = self.it_kw_mean * float(rng.uniform(0.05, 0.2))
        self.walls_kwh_per_c = self.air_kwh_per_c * float(rng.uniform(3, 15))
        self.walls_kw_per_c = self.it_kw_mean * float(rng.uniform(0.01, 0.05))
        self.leak_kw_per_c = self.it_kw_mean * float(rng.uniform(0.0, 0.01))
        self.cool_kw_max = self.it_kw_mean * float(rng.uniform(1.7, 2.2))
        self.fans_kw = self.it_kw_mean * float(rng.uniform(0.02, 0.06))
        self.cop, self.cop_per_c = float(rng.uniform(3.0, 5.5)), float(rng.uniform(0.04, 0.1))
        self.offset_c = float(rng.uniform(0.0, 2.0))
        self.own_c = float(np.round(rng.uniform(20.0, 23.0), 1))
        self.setpoint_c = self.own_c
        self.outdoor_mean_c, self.outdoor_swing_c = float(rng.uniform(5, 24)), float(rng.uniform(3, 8))
        self.air_c = self.racks_c = self.walls_c = self.own_c + self.offset_c
        self.share, self.asked_kw, self.cooling_kw = 1.0, self.it_kw_mean, 0.0
        self.outdoor_c, self.it_kw, self.hour, self.cooling_kwh = self.outdoor_mean_c, self.it_kw_mean, 0.0, 0.0

    @property
    def inlet_c(self):
        """True, at the warmest rack."""
        return self.air_c + self.offset_c * (0.7 + 0.3 * self.share)

    def step(self, dt_s):
        rng = self.rng
        self.hour += dt_s / 3600
        if rng.random() < dt_s / 14_400:  # a level for some hours, as GPU rooms have it
            self.share = float(rng.uniform(0.4, 1.3))
        day = math.cos((self.hour - NOON_H) * math.pi / 12)
        self.outdoor_c = self.outdoor_mean_c + self.outdoor_swing_c * day
        self.it_kw = self.it_kw_mean * self.share
        dt_h, inner = dt_s / 3600, max(1, math.ceil(dt_s / 30))
        for _ in range(inner):
            h = dt_h / inner
            error = self.air_c - self.setpoint_c
            # Its own controller: what the load asks, more the warmer the air is than its set-point.
            self.asked_kw += error * self.it_kw_mean * h * 4.0
            self.asked_kw = min(max(self.asked_kw, 0.0), self.cool_kw_max)
            cool = min(max(self.asked_kw + error * self.it_kw_mean * 0.8, 0.0), self.cool_kw_max)
            racks = self.racks_kw_per_c * (self.racks_c - self.air_c)
            walls = self.walls_kw_per_c * (self.walls_c - self.air_c)
            leak = self.leak_kw_per_c * (self.outdoor_c - self.air_c)
            self.air_c += (self.it_kw + racks + walls + leak - cool) * h / self.air_kwh_per_c
            self.racks_c -= racks * h / self.racks_kwh_per_c
            self.walls_c -= walls * h / self.walls_kwh_per_c
            part = cool / self.cool_kw_max
            lift = self.outdoor_c - 20.0 - 0.6 * (self.air_c - 22.0)
            cop = max(1.5, (self.cop - self.cop_per_c * lift) * (0.75 + 0.5 * part - 0.25 * part * part))
            self.cooling_kw = self.fans_kw + cool / cop
            self.cooling_kwh += self.cooling_kw * h

    def reads(self):
        """(inlet C, cooling kW, IT kW, outdoor C) as sensors have them."""
        noise = self.rng.normal(0, 1, 4)
        return (round(self.inlet_c + 0.05 * noise[0], 1), round(self.cooling_kw * (1 + 0.01 * noise[1]), 2),
                round(self.it_kw * (1 + 0.01 * noise[2]), 2), round(self.outdoor_c + 0.2 * noise[3], 1))  # fmt: skip
