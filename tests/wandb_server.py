"""A stand-in for a W&B server, because the real one cannot run in a test.

It answers what wandb 0.31 asks for while it logs a run (a little GraphQL, the file stream, uploads) and keeps what it
is sent, as the real one does: lines of a file stream at the offset that the client gives. It can also misbehave.
"""

import base64
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40
HISTORY = "wandb-history.jsonl"


@dataclass
class StoredRun:
    """What the server has of one run."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    """Group, job type, display name."""
    streams: dict[str, list[str]] = field(default_factory=dict)
    overwritten: int = 0
    """Lines that came a second time."""
    exit_codes: list[int | None] = field(default_factory=list)
    """Of each attempt that ended."""
    alerts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows, as logged."""
        return [json.loads(line) for line in self.streams.get(HISTORY, [])]

    @property
    def steps(self) -> list[int]:
        """Step of each row."""
        return [row["_step"] for row in self.history]

    def shown(self, key: str) -> Any:
        """A value of the configuration."""
        return self.config[key]["value"]


@dataclass
class WandbServer:
    """Everything that was sent, and how to behave."""

    url: str = ""
    runs: dict[str, StoredRun] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    """Saved workspaces."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)
    """Bodies of all requests."""
    silent: bool = False
    """Accept, and never answer."""
    history_limit: int | None = None
    """Do not answer to more lines of history than this."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def run(self) -> StoredRun:
        """The only run."""
        (one,) = self.runs.values()
        return one

    def environment(self) -> dict[str, str]:
        """What sends a program here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL question."""
        made = getattr(self, f"_{operation}", None)
        answer: dict[str, Any] = made(given) if made else {}
        return answer

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        who = {"id": "V", "entity": "herders", "username": "herder", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": who}

    _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        project = {"id": "P", "name": given["project"], "entity": {"id": "E", "name": "herders"}}
        return {"model": {**project, "bucket": self._bucket(run, given["project"]) if run else None}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], StoredRun(given["name"]))
        run.config |= json.loads(given.get("config") or "{}")
        run.about |= {k: given[k] for k in ("groupName", "jobType", "displayName", "project") if given.get(k)}
        return {"upsertBucket": {"bucket": self._bucket(run, given["project"]), "inserted": new}}

    def _bucket(self, run: StoredRun, project: str) -> dict[str, Any]:
        history, events = (run.streams.get(name, []) for name in (HISTORY, "wandb-events.jsonl"))
        return {
            "id": f"R{run.name}", "name": run.name, "displayName": run.about.get("displayName", run.name),
            "description": None, "config": json.dumps(run.config), "sweepName": None, "tags": [], "notes": None,
            "project": {"id": "P", "name": project, "entity": {"id": "E", "name": "herders"}},
            "historyLineCount": len(history), "eventsLineCount": len(events), "logLineCount": 0,
            "historyTail": json.dumps(history[-1:]), "eventsTail": json.dumps(events[-1:]),
            "summaryMetrics": (run.streams.get("wandb-summary.json") or ["{}"])[-1], "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def _RunHistoryKeys(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["name"]]
        return {"project": {"run": {"historyKeys": {"lastStep": run.steps[-1] if run.steps else -1}}}}

    def _Run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[given["name"]]
        nothing = dict.fromkeys(("sweepName", "group", "jobType", "commit", "description", "notes"))
        texts: dict[str, Any] = {
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:00:00",
            "state": "finished",
            "user": {},
        }
        keys = {"lastStep": run.steps[-1] if run.steps else -1}
        about = {"id": f"R{run.name}", "name": run.name, "displayName": run.name, "tags": [], "readOnly": False}
        more = {"config": "{}", "systemMetrics": "{}", "summaryMetrics": "{}", "historyLineCount": len(run.steps)}
        return {"project": {"run": {"projectId": "1", "historyKeys": keys, **nothing, **texts, **about, **more}}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": f, "uploadUrl": f"{self.url}/put/{given['run']}/{f}"} for f in given["files"]]
        return {"createRunFiles": {"runID": f"R{given['run']}", "uploadHeaders": [], "files": files}}

    def _NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:
        self.runs[given["runName"]].alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        self.views.append(given)
        return {"upsertView": {"view": {"id": f"W{len(self.views)}", "name": given["name"]}, "inserted": True}}

    def _ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        """ "COMMITTED" means that its files are there already: nothing is uploaded."""
        self.artifacts.append(given["input"])
        made = {"id": f"A{len(self.artifacts)}", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def _UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"useArtifact": {"artifact": {"id": given["input"]["artifactID"]}}}

    def _ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        made = self.artifacts[int(given["id"][1:]) - 1]
        project = {"__typename": "Project", "id": "P", "internalId": "1", "name": "p", "entity": {"name": "herders"}}
        of = {"name": made["artifactCollectionName"], "project": project}
        sequence = {"__typename": "ArtifactSequence", **of}
        return {
            "artifact": {
                "__typename": "Artifact", "id": given["id"], "artifactSequence": sequence,
                "versionIndex": 0, "artifactType": {"name": made["artifactTypeName"]}, "description": None,
                "metadata": made["metadata"], "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [],
                "historyStep": None, "state": "COMMITTED", "size": 0, "digest": made["digest"], "commitHash": "c",
                "fileCount": 1, "createdAt": "2026-01-01T00:00:00", "updatedAt": None, "aliases": [],
            }
        }  # fmt: skip

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Lines at their offsets; a run ends with ``complete``."""
        run = self.runs[name]
        for file, chunk in (sent.get("files") or {}).items():
            lines, at = run.streams.setdefault(file, []), chunk["offset"]
            if file == HISTORY:
                assert at <= len(lines), f"a gap in the history: {len(lines)} lines, the next one is for {at}"
                run.overwritten += len(lines) - at
            lines[at : at + len(chunk["content"])] = chunk["content"]
        if sent.get("complete"):
            run.exit_codes.append(sent.get("exitcode"))

    def refuses(self, sent: dict[str, Any]) -> bool:
        """Whether this would be more than it is willing to keep."""
        chunk = (sent.get("files") or {}).get(HISTORY)
        return bool(
            self.history_limit is not None and chunk and chunk["offset"] + len(chunk["content"]) > self.history_limit
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Http"

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self) -> None:
        state, body = self.server.state, self._body()
        while state.silent and not self.server.stopping:
            time.sleep(0.05)
        parts = self.path.strip("/").split("/")
        code, answer = 200, {}
        with state.lock:
            state.received.append(body)
            if parts[-1] in ("graphql", "file_stream") and not self._is_known():
                code, answer = 401, {"error": "invalid API key"}
            elif parts[-1] == "graphql":
                asked = json.loads(body)
                answer = {"data": state.answer(_operation(asked), asked.get("variables") or {})}
            elif parts[-1] == "file_stream":
                sent = json.loads(body)
                if state.refuses(sent):
                    code = 503
                else:
                    state.stream(parts[-2], sent)
            elif parts[0] == "put":
                state.uploads["/".join(parts[2:])] = body
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _is_known(self) -> bool:
        _, _, word = (self.headers.get("Authorization") or "").partition(" ")
        return base64.b64decode(word).decode().endswith(KEY) if word else False

    do_GET = do_POST = do_PUT = _answer


def _operation(asked: dict[str, Any]) -> str:
    name = asked.get("operationName") or asked["query"].split("(")[0].split("{")[0].split()[-1]
    return str(name)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    stopping = False

    def __init__(self, state: WandbServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state
        state.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error of the server's."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """One that runs."""
    http = _Http(WandbServer())
    threading.Thread(target=http.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
    try:
        yield http.state
    finally:
        http.stopping = True
        http.shutdown()
        http.server_close()
