"""What an adapter of an island's devices did, for Prometheus at /metrics."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Status = dict[str, object]


def metrics_text(unit: str, status: Status) -> str:
    """The exposition format of Prometheus; what is not known has no row."""
    lines: list[str] = []

    def family(name: str, text: str, rows: list[tuple[str, object]]) -> None:
        known = [(label, value) for label, value in rows if isinstance(value, int | float)]
        lines.extend([f"# HELP tidegate_island_{name} {text}", f"# TYPE tidegate_island_{name} gauge"])
        for label, value in known:
            inside = f'unit="{unit}"' + (f',inverter="{label}"' if label else "")
            lines.append(f"tidegate_island_{name}{{{inside}}} {float(value):.10g}")

    genset, pv, doubts = status.get("genset"), status.get("pv"), status.get("doubts")
    family("round_time_seconds", "UTC of the last round", [("", status.get("utc_s"))])
    family("site_heard", "1 while the site says what carries it", [("", status.get("island") is not None)])
    family("doubts", "what is not as it should be", [("", len(doubts) if isinstance(doubts, list) else None)])
    if isinstance(genset, dict):
        family("genset_asked", "1 while the remote start is given", [("", genset["asked"])])
        family("genset_running", "1 while the controller reads running", [("", genset["running"])])
    rows = [row for row in pv if isinstance(row, dict)] if isinstance(pv, list) else []
    family("pv_limit_watts", "limit in force of an inverter", [(str(row["name"]), row["limit_w"]) for row in rows])
    family("pv_power_watts", "what an inverter gives", [(str(row["name"]), row["power_w"]) for row in rows])
    family(
        "pv_obeys", "0 while an inverter gives more than its limit", [(str(row["name"]), row["obeys"]) for row in rows]
    )
    return "\n".join(lines) + "\n"


def serve(unit: str, status: Callable[[], Status], address: str, port: int) -> ThreadingHTTPServer:
    """Serve until its `shutdown`. Raises OSError where the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = metrics_text(unit, status()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Who asks is nobody's business."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
