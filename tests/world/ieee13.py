"""The IEEE 13 node test feeder as facts, and as a circuit of OpenDSS; what its authors published as its solution.

Data and solution: W. H. Kersting, "Radial distribution test feeders", IEEE PES Winter Meeting 2001, and the feeder's
sheets of the IEEE PES Test Feeder Working Group (13 bus feeder, 4.16 kV). Ohm and microsiemens a mile, feet, kW, kvar.
Regulator taps are those of the published solution, so that nothing here regulates. The distributed load of line 632-671
stands at a third of its length from 632, as is usual where a program has no distributed loads.
"""

from typing import Any

FT_PER_MILE = 5280.0
# configuration -> (phases, rows of R, rows of X, rows of B), lower triangle
CONFIGURATIONS: dict[int, tuple[str, str, str, str]] = {
    601: ("1.2.3", "0.3465 | 0.1560 0.3375 | 0.1580 0.1535 0.3414", "1.0179 | 0.5017 1.0478 | 0.4236 0.3849 1.0348",
          "6.2998 | -1.9958 5.9597 | -1.2595 -0.7417 5.6386"),
    602: ("1.2.3", "0.7526 | 0.1580 0.7475 | 0.1560 0.1535 0.7436", "1.1814 | 0.4236 1.1983 | 0.5017 0.3849 1.2112",
          "5.6990 | -1.0817 5.1795 | -1.6905 -0.6588 5.4246"),
    603: ("2.3", "1.3294 | 0.2066 1.3238", "1.3471 | 0.4591 1.3569", "4.7097 | -0.8999 4.6658"),
    604: ("1.3", "1.3238 | 0.2066 1.3294", "1.3569 | 0.4591 1.3471", "4.6658 | -0.8999 4.7097"),
    605: ("3", "1.3292", "1.3475", "4.5193"),
    606: ("1.2.3", "0.7982 | 0.3192 0.7891 | 0.2849 0.3192 0.7982", "0.4463 | 0.0328 0.4041 | -0.0143 0.0328 0.4463",
          "96.8897 | 0 96.8897 | 0 0 96.8897"),
    607: ("1", "1.3425", "0.5124", "88.9912"),
}  # fmt: skip
LINES = (  # from, to, feet, configuration
    ("rg60", "632", 2000, 601), ("632", "670", 667, 601), ("670", "671", 1333, 601), ("671", "680", 1000, 601),
    ("632", "633", 500, 602), ("632", "645", 500, 603), ("645", "646", 300, 603), ("692", "675", 500, 606),
    ("671", "684", 300, 604), ("684", "611", 300, 605), ("684", "652", 800, 607),
)  # fmt: skip
LOADS = (  # bus with phases, connection, kind (1 = power, 2 = impedance, 5 = current), kV, kW, kvar
    ("671.1.2.3", "delta", 1, 4.16, 1155, 660), ("634.1", "wye", 1, 0.277, 160, 110),
    ("634.2", "wye", 1, 0.277, 120, 90), ("634.3", "wye", 1, 0.277, 120, 90), ("645.2", "wye", 1, 2.4, 170, 125),
    ("646.2.3", "delta", 2, 4.16, 230, 132), ("692.3.1", "delta", 5, 4.16, 170, 151),
    ("675.1", "wye", 1, 2.4, 485, 190),    ("675.2", "wye", 1, 2.4, 68, 60), ("675.3", "wye", 1, 2.4, 290, 212),
    ("611.3", "wye", 5, 2.4, 170, 80),
    ("652.1", "wye", 2, 2.4, 128, 86), ("670.1", "wye", 1, 2.4, 17, 10), ("670.2", "wye", 1, 2.4, 66, 38),
    ("670.3", "wye", 1, 2.4, 117, 68),
)  # fmt: skip
TAPS = (10, 8, 11)  # of 16 steps of 5/8 %, phases a, b, c
# Published: per unit of the nominal voltage, degrees; bus -> phase -> (magnitude, angle).
VOLTAGES: dict[str, dict[int, tuple[float, float]]] = {
    "632": {1: (1.0210, -2.49), 2: (1.0420, -121.72), 3: (1.0174, 117.83)},
    "633": {1: (1.0180, -2.56), 2: (1.0401, -121.77), 3: (1.0148, 117.82)},
    "634": {1: (0.9940, -3.23), 2: (1.0218, -122.22), 3: (0.9960, 117.34)},
    "645": {2: (1.0329, -121.90), 3: (1.0155, 117.86)}, "646": {2: (1.0311, -121.98), 3: (1.0134, 117.90)},
    "671": {1: (0.9900, -5.30), 2: (1.0529, -122.34), 3: (0.9778, 116.02)},
    "684": {1: (0.9881, -5.32), 3: (0.9758, 115.92)}, "611": {3: (0.9738, 115.78)}, "652": {1: (0.9825, -5.25)},
    "675": {1: (0.9835, -5.56), 2: (1.0553, -122.52), 3: (0.9758, 116.03)},
}  # fmt: skip
INPUT_KW, LOSSES_KW = 3577.191, 111.063


def commands() -> list[str]:
    """The feeder in the language of OpenDSS."""
    made = [
        "clear",
        # The published solution stands on the substation's 4.16 kV side, held at 1.0.
        "new circuit.ieee13 basekv=4.16 pu=1.0 phases=3 bus1=650 angle=0 mvasc3=1e6 mvasc1=1e6",
    ]
    made += [
        f"new transformer.reg{phase} phases=1 xhl=0.01 kvas=[1666 1666] buses=[650.{phase} rg60.{phase}] "
        f"kvs=[2.4 2.4] %loadloss=0.01 taps=[1 {1 + 0.00625 * tap}]"
        for phase, tap in enumerate(TAPS, 1)
    ]
    made.append(
        "new transformer.xfm1 phases=3 windings=2 xhl=2 wdg=1 bus=633 conn=wye kv=4.16 kva=500 %r=0.55 "
        "wdg=2 bus=634 conn=wye kv=0.48 kva=500 %r=0.55"
    )
    for name, (phases, r, x, b) in CONFIGURATIONS.items():
        count = len(phases.split("."))
        # A capacitance of C at 60 Hz: B = 2 pi f C; OpenDSS takes nF.
        c = " | ".join(
            " ".join(f"{float(one) / (2 * 3.141592653589793 * 60) * 1000:.6f}" for one in row.split())
            for row in b.split("|")
        )
        made.append(
            f"new linecode.c{name} nphases={count} basefreq=60 units=mi rmatrix=[{r}] xmatrix=[{x}] cmatrix=[{c}]"
        )
    made += [
        f"new line.{start}-{end} phases={len(CONFIGURATIONS[code][0].split('.'))} "
        f"bus1={start}.{CONFIGURATIONS[code][0]} bus2={end}.{CONFIGURATIONS[code][0]} linecode=c{code} "
        f"length={feet / FT_PER_MILE} units=mi"
        for start, end, feet, code in LINES
    ]
    made.append("new line.671-692 phases=3 bus1=671 bus2=692 switch=y r1=1e-4 r0=1e-4 x1=0 x0=0 c1=0 c0=0")
    made += [
        "new capacitor.c675 bus1=675 phases=3 kvar=600 kv=4.16",
        "new capacitor.c611 bus1=611.3 phases=1 kvar=100 kv=2.4",
    ]
    made += [
        f"new load.spot{number} bus1={bus} phases={3 if bus.count('.') == 3 else 1} conn={kind} model={model} kv={kv} "
        f"kw={kw} kvar={kvar} vminpu=0.7 vmaxpu=1.3"
        for number, (bus, kind, model, kv, kw, kvar) in enumerate(LOADS)
    ]
    return [*made, "set voltagebases=[4.16 0.48]", "calcvoltagebases", "set controlmode=off"]


def voltages(dss: Any) -> dict[str, dict[int, tuple[float, float]]]:
    """Of a solved circuit, as `VOLTAGES`."""
    found = {}
    for bus in VOLTAGES:
        dss.Circuit.SetActiveBus(bus)
        pairs = dss.Bus.puVmagAngle()
        found[bus] = {node: (pairs[2 * n], pairs[2 * n + 1]) for n, node in enumerate(dss.Bus.Nodes())}
    return found
