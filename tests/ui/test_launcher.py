"""`nift ui` as others meet it: refused from foreign pages and names, working for the person in front of it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dagster_project.ui import launcher
from dagster_project.ui.gate import Gate, UiAddress
from nift_assets import environment
from tests.conftest import PROJECT, nift_here
from tests.ui.server import UI, free_port, ui

# Something every visitor of an open webserver can do, whose effect can be seen: a pool gets a limit.
MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "planted", limit: 7) }'
POOLS = "{ instance { concurrencyLimits { concurrencyKey slotCount } } }"
AS_QUERY = f"/graphql?query={quote(MUTATION)}"
AS_JSON = json.dumps({"query": MUTATION}).encode()
JSON = {"Content-Type": "application/json"}
TOKEN = "0123456789abcdef0123"


def test_a_workspace_file_of_a_checkout_names_what_nift_ui_serves() -> None:
    assert yaml.safe_load((PROJECT / "workspace.yaml").read_text()) == launcher.WORKSPACE


def unsettled() -> dict[str, str]:
    """The environment without what would choose another study, instance or token."""
    names = {"DAGSTER_HOME", "NIFT_STUDY", "NIFT_UI_TOKEN"}
    return {name: value for name, value in os.environ.items() if name not in names}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UI]:
    """The real launcher on an empty warehouse; leaving it is a test too: nothing may be left of it."""
    folder = tmp_path_factory.mktemp("ui")
    with ui(unsettled() | {"NIFT_WAREHOUSE": str(folder / "warehouse")}, folder) as started:
        print(f"the UI was ready in {started.seconds:.1f} s")
        yield started


@dataclass(frozen=True)
class Hostile:
    """A request as another site's page, or a name that resolves to this machine, brings it about."""

    method: str = "POST"
    path: str = "/graphql"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = AS_JSON
    status: int = 403


EVIL = "http://evil.example"
FORM = b"query=" + quote(MUTATION).encode()
HOSTILE = {
    "a foreign Host": Hostile(headers={**JSON, "Host": "evil.example"}),
    "a name that was rebound, with our port": Hostile(headers={**JSON, "Host": "rebind.evil.example:{port}"}),
    "the same, all of one origin": Hostile(
        headers={**JSON, "Host": "rebind.evil.example:{port}", "Origin": "http://rebind.evil.example:{port}"}
    ),
    "a POST of a foreign origin": Hostile(headers={**JSON, "Origin": EVIL}),
    "a POST of another port of this machine": Hostile(headers={**JSON, "Origin": "http://127.0.0.1:1"}),
    "a POST of a page without an origin": Hostile(headers={**JSON, "Origin": "null"}),
    "a mutation by GET": Hostile("GET", AS_QUERY, body=None, status=405),
    "a mutation by GET of a foreign origin": Hostile("GET", AS_QUERY, {"Origin": EVIL}, None),
    "a POST that calls itself text": Hostile(headers={"Content-Type": "text/plain"}, status=415),
    "the same, the mutation in the address": Hostile("POST", AS_QUERY, {"Content-Type": "text/plain"}, b"", 415),
    "text that mentions JSON": Hostile(headers={"Content-Type": "text/plain; application/json"}, status=415),
    "a form": Hostile(headers={"Content-Type": "application/x-www-form-urlencoded"}, body=FORM, status=415),
    "a form in parts": Hostile("POST", AS_QUERY, {"Content-Type": "multipart/form-data; boundary=x"}, b"", 415),
    "a POST of no type": Hostile("POST", AS_QUERY, {}, b"", 415),
    "a materialization that nobody made": Hostile("POST", "/report_asset_materialization/halves", {}, b"", 415),
    "a preflight": Hostile("OPTIONS", headers={"Origin": EVIL, "Access-Control-Request-Method": "POST"}),
    "another method": Hostile("PUT", headers=JSON, status=405),
    "a Host that is none": Hostile(headers={**JSON, "Host": "[::1"}, status=400),
    "an empty Host": Hostile(headers={**JSON, "Host": ""}, status=400),
    "a Host with somebody's name": Hostile(headers={**JSON, "Host": "somebody@127.0.0.1:{port}"}, status=400),
    "a Host with a port that is none": Hostile(headers={**JSON, "Host": "127.0.0.1:port"}, status=400),
    "an Origin that is none": Hostile(headers={**JSON, "Origin": "http://[::1"}, status=400),
    "an Origin with a path": Hostile(headers={**JSON, "Origin": "http://127.0.0.1:{port}/assets"}, status=400),
    "an empty Origin": Hostile(headers={**JSON, "Origin": ""}, status=400),
}


def ask(url: str, request: Hostile) -> tuple[int, dict[str, str], str]:
    """The status, headers and text of an answer; Host and all else goes out as it is written."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
    headers = {name: value.format(port=address.port) for name, value in request.headers.items()}
    connection.request(request.method, request.path, request.body, headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def pools(running: UI) -> dict[str, int]:
    limits = running.graphql(POOLS)["instance"]["concurrencyLimits"]
    return {limit["concurrencyKey"]: limit["slotCount"] for limit in limits}


@pytest.mark.fault("X3", runs="17 requests")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_and_changes_nothing(name: str, running: UI) -> None:
    hostile = HOSTILE[name]
    status, headers, text = ask(running.url, replace(hostile, headers=hostile.headers | running.signed))
    assert (status, text.startswith("refused: ")) == (HOSTILE[name].status, True), text
    assert "access-control-allow-origin" not in headers
    assert "planted" not in pools(running)


@pytest.mark.fault("X3")
@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1"])
def test_a_websocket_of_a_foreign_origin_is_refused(origin: str, running: UI) -> None:
    address = running.url.replace("http", "ws") + "/graphql"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(address, additional_headers={"Origin": origin}, subprotocols=["graphql-ws"], proxy=None),  # type: ignore[list-item]
    ):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.fault("X3")
def test_the_person_in_front_of_it_can_do_everything(running: UI) -> None:
    own = {**JSON, **running.signed, "Origin": running.url}
    assert ask(running.url, Hostile(headers=own))[0] == 200
    assert pools(running)["planted"] == 7
    address = running.url.replace("http", "ws") + "/graphql"
    headers = {"Origin": running.url, **running.signed}
    with connect(address, additional_headers=headers, subprotocols=["graphql-ws"], proxy=None) as socket_:  # type: ignore[list-item]
        socket_.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket_.recv(timeout=30)) == {"type": "connection_ack"}
    page = ask(running.url, Hostile("GET", "/assets", {"Accept": "text/html", **running.signed}, None))
    assert page[0] == 200
    assert '"telemetryEnabled": false' in page[2]
    assert ask(running.url, Hostile("GET", "/graphql", {"Accept": "text/html", **running.signed}, None))[0] == 200


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1", "localhost:8080", "[::1]:9"])
def test_this_machine_may_be_called_by_its_names_and_through_a_tunnel(host: str, running: UI) -> None:
    assert (
        ask(running.url, Hostile(headers={**JSON, **running.signed, "Host": host, "Origin": f"http://{host}"}))[0]
        == 200
    )


def test_no_other_site_can_lay_the_ui_under_its_own_buttons(running: UI) -> None:
    _, headers, _ = ask(running.url, Hostile("GET", "/", running.signed, None))
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_reports_page_is_shown_where_it_can_do_nothing_for_the_ui(running: UI) -> None:
    path = "/study/report.html"
    assert ask(running.url, Hostile("GET", path, running.signed, None))[0] == 404
    folder = running.log.parent / "warehouse" / "demo"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text('<body data-served="no"><h1>The report</h1>')
    status, headers, text = ask(running.url, Hostile("GET", path, running.signed, None))
    assert (status, text) == (200, '<body data-served="yes"><h1>The report</h1>')
    assert headers["content-security-policy"] == "sandbox allow-same-origin allow-popups", "no script runs in it"


def test_the_documentation_of_the_tables_is_made_when_it_is_asked_for(running: UI) -> None:
    status, headers, text = ask(running.url, Hostile("GET", "/study/docs.html", running.signed, None))
    assert status == 200
    assert "Tables of the study demo" in text
    assert headers["content-security-policy"] == "sandbox allow-scripts allow-popups", "its script is nobody's"


def test_an_instance_is_served_once(running: UI) -> None:
    folder = running.log.parent
    environment = unsettled() | {"NIFT_WAREHOUSE": str(folder), "DAGSTER_HOME": str(folder / ".dagster" / "demo")}
    refused = nift_here("ui", environment=environment)
    assert refused.returncode == 1
    assert refused.stderr == f"error: the UI of this instance is served already: {running.entrance}\n"


STRANGER = 65534  # the account "nobody"
AS_STRANGER = pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as another account of this machine")


@AS_STRANGER
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/graphql", 401), ("GET", "/assets", 401), ("GET", "/study/report.html", 401)],
)
@pytest.mark.fault("X16")
def test_another_account_of_this_machine_is_refused(method: str, path: str, status: int, running: UI) -> None:
    mutation = AS_JSON.replace(b"planted", b"strange")
    # What is imported is this account's; who asks is the other one.
    code = f"""
import encodings.idna, http.client, os
os.setgid({STRANGER})
os.setuid({STRANGER})
connection = http.client.HTTPConnection("127.0.0.1", {urlsplit(running.url).port}, timeout=60)
connection.request({method!r}, {path!r}, {mutation!r}, {JSON!r})
print(connection.getresponse().status)
"""
    asked = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert asked.stdout == f"{status}\n", asked.stderr
    assert "strange" not in pools(running)


@pytest.mark.fault("X16")
def test_the_token_lies_where_this_account_alone_reads_it(running: UI) -> None:
    lock = running.log.parent / ".dagster" / "demo" / "ui.lock"
    assert lock.stat().st_mode & 0o777 == 0o600
    assert lock.read_text() == f"{running.entrance}\n"
    folders = [f for f in running.log.parent.rglob("*") if f.is_file() and f not in (running.log, lock)]
    token = running.entrance.partition("=")[2].encode()
    assert len(token) == 32
    assert [str(file) for file in folders if token in file.read_bytes()] == []


@pytest.mark.fault("X16")
def test_a_websocket_without_the_token_is_refused(running: UI) -> None:
    address = running.url.replace("http", "ws") + "/graphql"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(address, additional_headers={"Origin": running.url}, subprotocols=["graphql-ws"], proxy=None),  # type: ignore[list-item]
    ):
        pass
    assert refused.value.response.status_code == 403


def test_who_wants_no_token_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not environment.ui_asks_for_no_token()
    monkeypatch.setenv("NIFT_UI_TOKEN", "none")
    assert environment.ui_asks_for_no_token()
    assert len(UiAddress().with_token().token or "") == 32
    assert UiAddress().with_token() != UiAddress().with_token()
    assert UiAddress(token=TOKEN).with_token().token == TOKEN
    assert UiAddress(host="0.0.0.0").with_token().token is None


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (UiAddress(host="0.0.0.0"), "can be reached from other machines"),
        (UiAddress(host="::"), "can be reached from other machines"),
        (UiAddress(host="nift.example.org"), "set NIFT_UI_TOKEN to a secret"),
        (UiAddress(host="0.0.0.0", token="short"), "16 letters and digits or more"),
        (UiAddress(token="no spaces; nor = signs"), "16 letters and digits or more"),
    ],
)
def test_an_address_that_others_can_reach_needs_a_token_that_cannot_be_guessed(address: UiAddress, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        address.refuse_unsafe()


@pytest.mark.parametrize("address", [UiAddress(), UiAddress(host="::1"), UiAddress(host="0.0.0.0", token=TOKEN)])
def test_this_machine_needs_none_and_others_one(address: UiAddress) -> None:
    address.refuse_unsafe()


def test_the_command_refuses_before_it_makes_anything(tmp_path: Path) -> None:
    environment = unsettled() | {"DAGSTER_HOME": str(tmp_path / "home")}
    refused = nift_here("ui", "--host", "0.0.0.0", environment=environment)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: 0.0.0.0 can be reached from other machines")
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = nift_here("ui", "--port", str(port), environment=unsettled() | {"DAGSTER_HOME": str(tmp_path)})
    assert refused.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use)" in refused.stderr


# The token, which the UI itself does not know of: a page behind the gate is enough.


@contextmanager
def gated(token: str) -> Iterator[str]:
    """A page behind the gate, served as the UI is."""

    async def page(scope: object, receive: object, send: object) -> None:
        request = Request(scope, receive)  # type: ignore[arg-type]
        answer = PlainTextResponse(f"{request.method} {request.url.path}?{request.url.query}")
        await answer(scope, receive, send)  # type: ignore[arg-type]

    port = free_port()
    gate = Gate(page, names=["nift.example.org"], token=token)
    server = uvicorn.Server(uvicorn.Config(gate, port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_without_the_token_nothing_is_shown_and_with_it_once_everything() -> None:
    with gated(TOKEN) as url:

        def get(path: str, **headers: str) -> tuple[int, dict[str, str], str]:
            return ask(url, Hostile("GET", path, headers, None))

        assert get("/assets")[0] == 401
        assert get("/assets?token=0123456789abcdef0124")[0] == 401
        assert get("/assets", Cookie="nift_token_00000000=wrong")[0] == 401
        assert get("/assets", Authorization="Bearer wrong")[0] == 401
        status, headers, _ = get(f"/assets?view=checks&token={TOKEN}")
        assert (status, headers["location"]) == (303, "/assets?view=checks")
        cookie, *options = headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=strict"} <= set(options)
        assert get("/assets", Cookie=cookie) == (200, get("/assets", Cookie=cookie)[1], "GET /assets?")
        assert get("/assets", Authorization=f"Bearer {TOKEN}")[0] == 200
        # The cookie opens nothing to a page of another origin.
        assert get("/assets", Cookie=cookie, Origin=EVIL)[0] == 403
        assert get("/assets", Cookie=cookie, Host="nift.example.org", Origin="https://nift.example.org")[0] == 200
        assert get(f"//evil.example/?token={TOKEN}")[1]["location"] == "/evil.example/"
