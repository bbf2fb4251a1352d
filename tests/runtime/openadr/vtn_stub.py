"""A small virtual top node for tests: tokens, pages of events, reports with the fields that the specification requires.

No package of a real one is to be had from the registries that this project uses. It knows one programme, no
subscriptions, no registration of end nodes and no targets of its own; what it checks of a report is written out below.
"""

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

RESOURCE = {"resourceName", "intervals"}


class VtnStub:
    """events : what is served. old : 3.0 (no /auth/server; reports have programID)."""

    def __init__(self, old=False):
        self.events, self.reports, self.refused, self.old = [], [], [], old
        self.tokens, self.token_requests, self.away, self.answer = set(), 0, False, None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words):
                pass

            def say(self, status, row):
                data = row if isinstance(row, bytes) else json.dumps(row).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                stub.get(self)

            def do_POST(self):
                stub.post(self, self.rfile.read(int(self.headers["Content-Length"])))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/openadr3"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def allowed(self, request):
        if self.away:
            request.say(503, {"title": "away"})
            return False
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            request.say(401, {"title": "who are you"})
            return False
        return True

    def get(self, request):
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/openadr3/auth/server":
            request.say(404, {}) if self.old else request.say(200, {"tokenURL": f"{self.url}/elsewhere/token"})
        elif parts.path == "/openadr3/events" and self.allowed(request):
            first, count = int(query["skip"]), int(query["limit"])
            if count > 50:
                request.say(400, {"title": "limit is above 50"})
                return
            rows = [one for one in self.events if one["programID"] == query["programID"]]
            request.say(200, self.answer if self.answer is not None else rows[first : first + count])
        elif parts.path != "/openadr3/events":
            request.say(404, {})

    def post(self, request, body):
        path = urlsplit(request.path).path
        if path == f"/openadr3/{'auth' if self.old else 'elsewhere'}/token":
            self.token_requests += 1
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            if form != {"grant_type": "client_credentials", "client_id": "me", "client_secret": "word"}:
                request.say(403, {"title": "no such client"})
                return
            token = secrets.token_hex(8)
            self.tokens.add(token)
            request.say(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})
        elif path == "/openadr3/reports" and self.allowed(request):
            row = json.loads(body)
            wrong = self.wrong(row)
            if wrong:
                self.refused.append(wrong)
                request.say(400, {"title": wrong})
            else:
                self.reports.append(row)
                request.say(201, {**row, "id": f"report-{len(self.reports)}"})

    def wrong(self, row):
        """What a report lacks of the specification's required fields, "" = nothing."""
        required = {"eventID", "clientName", "resources"} | ({"programID"} if self.old else set())
        if not required <= set(row) or ("programID" in row) != self.old or row.get("objectType") != "REPORT":
            return f"required: {sorted(required)}"
        if row["eventID"] not in {one["id"] for one in self.events}:
            return "no such event"
        for resource in row["resources"]:
            if not set(resource) >= RESOURCE or not set(resource.get("intervalPeriod", {"start": 1})) >= {"start"}:
                return "a resource has resourceName and intervals, its period a start"
            for interval in resource["intervals"]:
                if not isinstance(interval["id"], int) or not interval["payloads"]:
                    return "an interval has an integer id and payloads"
                if any(set(one) != {"type", "values"} or len(one["values"]) != 1 for one in interval["payloads"]):
                    return "a payload has type and values"
        return ""
