"""What the planner did, for Prometheus at /metrics; the price-like signal at /advice; /what-if. In its own process."""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tidegate.runtime.planner.live_planner import price_signal
from tidegate.runtime.planner.plan_inputs import PlanError
from tidegate.runtime.planner.what_if import Otherwise

Status = dict[str, object]
WhatIf = Callable[[Otherwise], dict[str, object]]
GAUGES = {
    "plans": ("tidegate_planner_plans_total", "counter", "plans that the site took"),
    "failures": ("tidegate_planner_failures_total", "counter", "steps without a new plan"),
    "utc_s": ("tidegate_planner_step_time_seconds", "gauge", "UTC of the last step"),
    "planned_utc_s": ("tidegate_planner_planned_time_seconds", "gauge", "UTC of the last plan that the site took"),
    "end_utc_s": ("tidegate_planner_plan_end_time_seconds", "gauge", "UTC at which that plan ends"),
    "solve_s": ("tidegate_planner_solve_seconds", "gauge", "time of the last plan, forecasts included"),
}  # fmt: skip
STATES = ("starting", "planned", "stands back", "no new plan")
ERRORS = {
    "pinball": "mean pinball loss of q10, q50, q90, in the series' unit",
    "covered": "share of the steps within the band of 80 %",
    "kendall_tau": "rank correlation",
}
ADVICE = ("run", "may wait", "shed")


def metrics_text(site: str, status: Status) -> str:
    """The exposition format of Prometheus."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, rows: list[tuple[dict[str, str], float]]) -> None:
        lines.extend([f"# HELP {name} {text}", f"# TYPE {name} {kind}"])
        for labels, value in rows:
            inside = ",".join(f'{key}="{_quoted(one)}"' for key, one in {"site": site, **labels}.items())
            lines.append(f"{name}{{{inside}}} {value:g}" if abs(value) < 1e6 else f"{name}{{{inside}}} {value:.0f}")

    for key, (name, kind, text) in GAUGES.items():
        value = status.get(key)
        if isinstance(value, int | float):
            family(name, kind, text, [({}, float(value))])
    family("tidegate_planner_state", "gauge", "1 for the state that holds",
           [({"state": one}, float(status.get("state") == one)) for one in STATES])  # fmt: skip
    doubts = status.get("doubts")
    family("tidegate_planner_doubts", "gauge", "what `tidegate planner status` doubts, adapters included",
           [({}, float(len(doubts) if isinstance(doubts, list) else 0))])  # fmt: skip
    errors = status.get("forecast_errors")
    for key, text in ERRORS.items():
        rows = [({"series": str(one["series"]), "by": str(one["by"])}, float(one[key]))
                for one in errors] if isinstance(errors, list) else []  # fmt: skip
        family(f"tidegate_planner_forecast_{key}", "gauge", f"of the last judged day: {text}", rows)
    advice = status.get("advice")
    if isinstance(advice, dict):
        family("tidegate_planner_advice", "gauge", "1 for what a computation is advised to do now",
               [({"advice": one}, float(advice["word"] == one)) for one in ADVICE])  # fmt: skip
        family("tidegate_planner_meter_eur_per_kwh", "gauge", "what one more kWh of load costs now",
               [({}, float(advice["eur_per_kwh"]))])  # fmt: skip
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def otherwise_of(query: str) -> Otherwise:
    """What is asked in an address. Raises PlanError."""
    fields = {name: values[-1] for name, values in parse_qs(query).items()}
    known = ("peak_limit_kw", "jobs_later_h")
    if foreign := sorted(set(fields) - set(known)):
        raise PlanError(f"{foreign[0][:32]}: is no field of a what-if; there are {' and '.join(known)}")
    try:
        return Otherwise(**{name: float(value) for name, value in fields.items()})
    except ValueError:
        raise PlanError(f"{query[:80]}: write peak_limit_kw=60") from None


def serve_metrics(site: str, status: Callable[[], Status], address: str, port: int,
                  what_if: WhatIf | None = None) -> ThreadingHTTPServer:  # fmt: skip
    """Serve until its `shutdown`. Raises OSError where the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            code, kind, body = HTTPStatus.OK, "application/json", b""
            asked = urlsplit(self.path)
            if what_if is not None and asked.path == "/what-if":
                try:
                    answer = what_if(otherwise_of(asked.query))
                except PlanError as why:
                    code, answer = HTTPStatus.CONFLICT, {"text": str(why)}
                body = json.dumps(answer).encode()
            elif self.path == "/metrics":
                kind, body = "text/plain; version=0.0.4; charset=utf-8", metrics_text(site, status()).encode()
            elif self.path == "/advice":
                signal = price_signal(status(), site)
                if not signal:
                    self.send_error(503, "no plan yet")
                    return
                kind, body = "application/json", json.dumps(signal).encode()
            else:
                self.send_error(404)
                return
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Who asks is nobody's business."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
