"""The page of a soak run: what was promised, what happened, and each process's course."""

import html
from typing import Any

from tidegate.runtime.charts import charts

ROLES = ("core", "gateway", "carbon", "recorder", "site", "web", "export")
STYLE = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;color:#1b2733}td,th{padding:.2em .8em .2em 0;text-align:left;vertical-align:top}.bad{color:#c62828}svg{max-width:100%;height:auto}"  # noqa: E501


def _course(found: dict[str, Any], what: str, scale: float, title: str) -> str:
    """One line a role over time; a gap where the process did not run or was another one."""
    with charts.styled():
        made, axis = charts.figure(860, 260)
        for role in ROLES:
            t_min: list[float] = []
            values: list[float] = []
            last = 0
            for row in found["samples"]:
                one = row["processes"].get(role)
                if one is None:
                    continue
                if last not in (0, one["pid"]):
                    t_min.append(row["t_s"] / 60)
                    values.append(float("nan"))
                last = one["pid"]
                t_min.append(row["t_s"] / 60)
                values.append(one[what] * scale)
            if t_min:
                axis.plot(t_min, values, label=role, linewidth=1.0)
        axis.set_xlabel("minutes")
        axis.set_title(title)
        axis.legend(loc="upper left", ncols=4, fontsize=8, frameon=False)
        return charts.svg(made, title, prefix=what)


def _loop(found: dict[str, Any]) -> str:
    rows = [row for row in found["samples"] if row.get("loop")]
    with charts.styled():
        made, axis = charts.figure(860, 260)
        for key in ("lateness_p50", "lateness_p99", "work_p50", "work_p99"):
            points = [(row["t_s"] / 60, row["loop"][key] / 1000) for row in rows if row["loop"].get(key)]
            if points:
                axis.plot(*zip(*points, strict=True), label=key.replace("_", " "), linewidth=1.0)
        axis.set_xlabel("minutes")
        axis.set_yscale("log")
        axis.set_title("the loop's times since its start, us")
        axis.legend(loc="upper left", ncols=4, fontsize=8, frameon=False)
        return charts.svg(made, "the loop's times since its start", prefix="loop")


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(str(one))}</td>' for one in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(one)}</th>' for one in head)}</tr>{cells}</table>"


def page(found: dict[str, Any]) -> str:
    """The report of a run as one HTML page without anything from elsewhere."""
    promises = "".join(
        f'<li class="{"bad" if broken else ""}">{html.escape(promise)}: {"kept" if not broken else "BROKEN"}'
        + "".join(f"<br>{html.escape(line)}" for line in broken[:50])
        + "</li>"
        for promise, broken in found["broken"].items()
    )
    booked = found["booked"]
    energy = [("plant, true powers", f"{found['true_wh']:.1f} Wh")]
    if "error" not in booked:
        energy += [
            ("meter's register, as the account follows it", f"{booked['register_milliwh'] / 1000:.1f} Wh"),
            (f"booked in {booked['periods']} closed periods", f"{booked['booked_milliwh'] / 1000:.1f} Wh"),
        ]
    growth = [(role, row["hours"], row["kib_per_h"]) for role, row in sorted(found["growth"].items())]
    faults = [(row["t_s"], row["done"], "NOT" if row["back_s"] is None else row["back_s"]) for row in found["faults"]]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Soak, seed {found["seed"]}</title>'
        f"<style>{STYLE}</style><h1>Soak: {found['hours']} h, seed {found['seed']}, {found['period_us']} us</h1>"
        f"<ul>{promises}</ul>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in found["notes"])
        + f"<p>{found['values']} values were held beside the truth; of the right ones none was more than "
        f"{found['lag_s']} s older than it said.</p>"
        + "<h2>Energy</h2>"
        + _table(("", ""), energy)
        + "<h2>Processes</h2>"
        + _course(found, "rss_kib", 1 / 1024, "memory, MiB RSS")
        + _course(found, "fds", 1, "descriptors")
        + _course(found, "threads", 1, "threads")
        + _table(("longest life of", "h", "KiB an hour"), growth)
        + f"<p>Starts: {html.escape(str(found['starts']))}</p>"
        + "<h2>Loop</h2>"
        + _loop(found)
        + "<h2>Faults</h2>"
        + _table(("s", "what", "all back after s"), faults)
        + "</html>\n"
    )
