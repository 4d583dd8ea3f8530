"""As much of a W&B server as `wandb sweep`, `wandb agent` and `wandb sync` call, on 127.0.0.1, and what it was told."""

import gzip
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import yaml

ENTITY, PROJECT, SWEEP = "us", "toymodels", "sweep001"


class Server(ThreadingHTTPServer):
    """Hands out the configurations, one run at a time."""

    daemon_threads = True

    def __init__(self, configurations):
        super().__init__(("127.0.0.1", 0), Handler)
        args = [{name: {"value": value} for name, value in c.items()} for c in configurations]
        self.commands = iter(
            [{"type": "run", "run_id": f"run{i}", "program": None, "args": a} for i, a in enumerate(args)]
        )
        self.sweep: dict | None = None  # as the client read the file
        self.runs: dict[str, dict] = {}  # by id: {"sweep", "config", "history", "summary"}
        self.unknown: list[str] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that is done closes its connections, which is no fault."""

    def run_of(self, name):
        return self.runs.setdefault(name, {"sweep": None, "config": {}, "history": [], "summary": {}})

    def answer(self, operation, query, given):
        """The data of a GraphQL reply."""
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        if operation == "Viewer":
            teams = {"edges": [{"node": {"id": "e", "name": ENTITY}}]}
            viewer = {
                "id": "u",
                "flags": "{}",
                "entity": ENTITY,
                "username": ENTITY,
                "teams": teams,
                "email": "",
                "admin": False,
            }
            return {"viewer": {**viewer, "name": ENTITY, "apiKeys": {"edges": []}}}  # fmt: skip
        if operation == "UpsertSweep":
            self.sweep = yaml.safe_load(given["config"])
            return {"upsertSweep": {"sweep": {"name": SWEEP, "project": project}, "configValidationWarnings": []}}
        if operation == "SweepWithRuns":
            names = ("id", "method", "description", "createdAt", "heartbeatAt", "updatedAt", "bestLoss", "controller")
            sweep = dict.fromkeys(names) | {"scheduler": None, "earlyStopJobRunning": False, "runs": {"edges": []}}
            return {"project": {"sweep": {**sweep, "name": SWEEP, "state": "RUNNING", "config": yaml.dump(self.sweep)}}}
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "agent"}}}
        if operation == "Heartbeat":
            commands: list[dict] = []
            if not any(json.loads(given["runState"]).values()):  # none of the agent's runs is at work
                commands.append(next(self.commands, {"type": "exit"}))
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}
        if operation == "UpsertBucket":
            run = self.run_of(given["name"])
            run["sweep"] = given.get("sweep") or run["sweep"]
            run["config"] |= {k: v.get("value") for k, v in json.loads(given.get("config") or "{}").items()}
            bucket = {
                "id": given["name"],
                "name": given["name"],
                "displayName": given.get("displayName"),
                "config": "{}",
            }
            bucket |= {"description": "", "project": project, "sweepName": run["sweep"], "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}  # fmt: skip
        if operation == "RunResumeStatus":
            run = self.runs.get(given["name"])
            bucket = None
            if run is not None:
                tail = json.dumps([json.dumps(line) for line in run["history"][-1:]])
                bucket = {"id": given["name"], "name": given["name"], "historyLineCount": len(run["history"])}
                bucket |= {"historyTail": tail, "summaryMetrics": json.dumps(run["summary"]), "eventsTail": "[]"}
                bucket |= {"eventsLineCount": 0, "logLineCount": 0, "displayName": given["name"], "tags": []}
                bucket |= {
                    "config": json.dumps({k: {"value": v} for k, v in run["config"].items()}),
                    "wandbConfig": "{}",
                }
            return {"model": {**project, "bucket": bucket}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in given["files"]]
            made = {"runID": given["run"], "uploadHeaders": [], "files": files}
            return {"createRunFiles": made}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if (
            operation == "CreateArtifact"
        ):  # of the final table; as if the server had it already, so that nothing is uploaded
            sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}
        self.unknown.append(operation)
        return {}

    def stream(self, name, files):
        """What a run sends while it goes: lines of history, and its summary."""
        run = self.run_of(name)
        for file, content in files.items():
            lines = [json.loads(text) for text in content["content"] if file != "output.log"]
            if file == "wandb-history.jsonl":
                run["history"] += lines
            elif file == "wandb-summary.json":
                run["summary"] = lines[-1]


class Handler(BaseHTTPRequestHandler):
    """GraphQL, the stream of a run's files, and uploads, which are thrown away."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        stream = re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            self.server.stream(stream[1], json.loads(body).get("files") or {})
            self.reply({})
        elif self.path == "/graphql":
            asked = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            name = operation[1] if operation else asked["query"][:200]
            self.reply({"data": self.server.answer(name, asked["query"], asked.get("variables") or {})})
        else:
            self.reply({})

    do_PUT = do_GET = do_POST  # noqa: N815

    def reply(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def wandb_server(configurations):
    """A server that asks its agent for a run of each configuration."""
    server = Server(configurations)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
