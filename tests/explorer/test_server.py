"""The server answers its own page and nobody else, names what is wrong with a request, and survives what is sent."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.cli import main
from diffflow.explorer.guard import LARGEST
from diffflow.explorer.jobs import Full, Jobs
from diffflow.explorer.server import MOST
from diffflow.training.lock import Lock

TOKEN = "a token for tests"


def call(server, path: str, method: str = "GET", body=None, token: str | None = TOKEN, **headers):
    """Status, parsed body and headers of one request."""
    line = http.client.HTTPConnection(server.host, timeout=30)
    sent = {k.replace("_", "-"): v for k, v in headers.items()} | ({} if token is None else {"X-Token": token})
    line.putrequest(method, path, skip_host="Host" in sent)
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    for name, value in ({"Content-Length": str(len(data))} | sent).items():
        line.putheader(name, value)
    line.endheaders(data)
    answer = line.getresponse()
    content = answer.read()
    try:
        return answer.status, json.loads(content), answer.headers
    except ValueError:
        return answer.status, content, answer.headers


def finished(server, job: str, limit: float = 60.0) -> dict:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        _, found, _ = call(server, f"/api/jobs/{job}")
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.02)
    raise AssertionError("the job goes on and on")


# -- who may ask -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "localhost", "evil.example:80", "", "127.0.0.1.evil.example"]
)
@pytest.mark.parametrize("path", ["/", "/api/runs"])
def test_another_name_for_this_machine_is_refused(server, host: str, path: str) -> None:
    status, found, _ = call(server, path, Host=host)
    assert status == 421
    assert server.host in found["error"]


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://{host}", "http://{host}.evil.example", "file://"]
)
def test_a_page_of_somebody_else_is_refused(server, origin: str) -> None:
    for path, method in (("/api/runs", "GET"), ("/api/runs/digits/samples", "POST"), ("/", "GET")):
        status, found, _ = call(server, path, method, Origin=origin.format(host=server.host))
        assert status == 403
        assert "may not ask" in found["error"]
    assert call(server, "/api/runs", Origin=f"http://{server.host}")[0] == 200


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_runs_need_the_token(server, token: str | None) -> None:
    for path, method in (
        ("/api/runs", "GET"),
        ("/api/runs/digits", "GET"),
        ("/api/runs/digits/samples", "POST"),
        ("/api/jobs/x", "DELETE"),
    ):
        status, found, _ = call(server, path, method, token=token)
        assert status == 401
        assert "diffflow explore" in found["error"]
    assert call(server, "/", token=token)[0] == 200  # the page itself says nothing of the runs


def test_every_answer_forbids_other_hosts(server) -> None:
    for path in ("/", "/app.js", "/api/runs", "/api/nothing", "/nothing"):
        headers = call(server, path)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "../../etc",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "digits%2f..%2f..",
        "digits/../..",
        "%00",
        "nowhere",
        "%252e%252e",
        "\\..\\..",
    ],
)
def test_only_listed_runs_can_be_named(server, home: Path, name: str) -> None:
    (home.parent / "run.json").write_text("{}")  # what a way up would find
    for path, method in ((f"/api/runs/{name}", "GET"), (f"/api/runs/{name}/samples", "POST")):
        status, found, _ = call(server, path, method, body={} if method == "POST" else None)
        assert status in (404, 405)
        assert "passwd" not in str(found)
    assert call(server, f"/{name}/run.json")[0] == 404


def test_a_link_out_of_the_folder_is_no_run(server, home: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    link = home / "elsewhere"
    link.symlink_to(tmp_path)
    try:
        assert call(server, "/api/runs/elsewhere")[0] == 404
    finally:
        link.unlink()


# -- what may be asked -------------------------------------------------------------------------------------------------
BAD = [
    ({"n": 0}, "n = 0 is not between 1 and 64"), ({"n": 65}, "n = 65"), ({"n": 1.5}, "whole number"), ({"n": "many"}, 'n = "many" is not a number'),
    ({"n": True}, "n = true"), ({"n": [1]}, "not a number"), ({"class": 10}, "class = 10 is not between 0 and 9"), ({"class": -1}, "class = -1"),
    ({"seed": -1}, "seed = -1"), ({"seed": 2**31}, "seed"), ({"steps": 0}, "steps = 0"), ({"steps": 10**9}, "steps"), ({"churn": -0.1}, "churn = -0.1"),
    ({"gan": 1}, "gan"), ({"guidance": 1e9}, "guidance"), ({"sigma": 3}, "sigma: a request for samples has only"), ([], "JSON object"), (b"{", "not JSON"),
    (b"\xff\xfe", "not JSON"), (b'{"n": NaN}', "not a number"), (b'{"churn": 1e999}', "not a number"), (b"[" * 5000, "not JSON"), (b'{"n": 1' + b"0" * 400 + b"}", "is not between"), ({"plans": 1}, "plans is true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "said"), BAD, ids=str)
def test_a_bad_request_is_named(server, body, said: str) -> None:
    status, found, _ = call(server, "/api/runs/digits/samples", "POST", body)
    if status == 202:  # what only the run itself can refuse
        found = finished(server, found["job"])
        assert found["state"] == "failed"
    else:
        assert status == 400
    assert said in found["error"]


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda s: (
            st.lists(s, max_size=3)
            | st.dictionaries(st.sampled_from(["n", "class", "seed", "steps", "churn", "x"]), s, max_size=4)
        ),
        max_leaves=6,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(body={"n": None, "seed": None})
def test_no_body_breaks_it(server, body) -> None:
    status, found, _ = call(server, "/api/runs/digits/samples", "POST", body)
    assert status in (202, 400, 429)
    if status == 202:
        call(server, f"/api/jobs/{found['job']}", "DELETE")


def test_sizes_are_limited(server) -> None:
    big = b" " * (LARGEST + 1)
    assert call(server, "/api/runs/digits/samples", "POST", big)[0] == 413
    assert call(server, "/", "POST", big)[0] == 413
    line = http.client.HTTPConnection(server.host, timeout=10)  # in pieces that do not say how many they are
    line.request(
        "POST", "/api/runs/digits/samples", iter([b" " * 10_000] * 30), {"X-Token": TOKEN}, encode_chunked=True
    )
    assert line.getresponse().status == 413
    for path, headers in (("/api/runs", {"X_Long": "y" * 200_000}), ("/" + "a" * 100_000, {})):
        with contextlib.suppress(ConnectionError):  # hung up on, while it was still talking
            assert call(server, path, **headers)[0] in (400, 404, 414, 431)
    assert call(server, "/api/runs")[0] == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 200,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"\xff\xff HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_what_is_no_http_harms_nobody(server, raw: bytes) -> None:
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(raw)
        line.settimeout(5)
        try:
            answer = line.recv(4096)
        except OSError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 2")
    assert call(server, "/api/runs")[0] == 200


def test_other_methods_are_refused(server) -> None:
    for method in ("PUT", "PATCH", "DELETE", "TRACE"):
        assert call(server, "/api/runs", method)[0] == 405
    assert call(server, "/api/runs/digits/samples")[0] in (404, 405)


# -- what comes --------------------------------------------------------------------------------------------------------
def test_runs_are_listed_with_what_the_page_shows(server, home: Path) -> None:
    (home / "broken").mkdir(exist_ok=True)
    (home / "broken" / "run.json").write_text("{")
    found = {line["name"]: line for line in call(server, "/api/runs")[1]["runs"]}
    assert found["digits"]["classes"] == [str(k) for k in range(10)]
    assert found["digits"]["shape"] == [1, 8, 8]
    assert found["moons"]["classes"] is None
    assert "run.json" in found["broken"]["problem"]
    one = call(server, "/api/runs/digits")[1]
    assert one["log"][-1]["step"] == 20
    assert one["swept"] is None
    status, _, _ = call(server, "/api/runs/broken/samples", "POST", {})
    assert status == 400


def test_a_run_is_training_while_its_lock_is_held(server, home: Path) -> None:
    """Whether it has finished does not say so: a run that was killed has not, and one that goes on had."""
    about = home / "moons" / "run.json"
    before = about.read_text()
    try:
        for finished_before in (True, False):
            about.write_text(json.dumps(json.loads(before) | {"finished": finished_before}))
            assert not call(server, "/api/runs/moons")[1]["training"]
            with Lock(home / "moons") as lock:
                lock.take()
                assert call(server, "/api/runs/moons")[1]["training"]
                listed = {line["name"]: line for line in call(server, "/api/runs")[1]["runs"]}
                assert [name for name, line in listed.items() if line.get("training")] == ["moons"]
            assert not call(server, "/api/runs/moons")[1]["training"]
    finally:
        about.write_text(before)


def test_samples_are_the_library_s_own(server, home: Path) -> None:
    """The last row of the picture is, to the byte, what `Run.sample` draws."""
    import base64
    import io

    import numpy as np
    import torch
    from PIL import Image

    import diffflow as df

    body = {"n": 5, "class": 3, "seed": 4, "steps": 6, "churn": 0.5, "frames": 3}
    status, job, _ = call(server, "/api/runs/digits/samples", "POST", body)
    assert status == 202
    found = finished(server, job["job"])
    assert found["state"] == "done", found
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["result"]["png"]))).convert("L"))
    moments = len(found["result"]["times"])
    assert picture.shape == (8 * moments, 8 * 5)
    x = df.load(home / "digits", device="cpu").sample(5, 3, steps=6, churn=0.5, noise=df.Noise(4)).last
    expected = (x[:, 0] * 255).round().byte()
    mine = torch.from_numpy(picture[-8:].copy()).reshape(8, 5, 8).permute(1, 0, 2)
    assert (mine.int() - expected.int()).abs().max() <= 1
    assert found["result"]["evaluations"] == 6
    assert found["result"]["labels"] == [3] * 5
    assert found["done"] == found["total"] == 6


def test_damaged_runs_harm_nobody(server, home: Path) -> None:
    """Whatever is in a folder's files, the others are listed, and the answer is JSON."""
    import shutil

    try:
        for k, content in enumerate(("[]", '{"data": null}', "null", "3", "\xff")):
            (home / f"odd{k}").mkdir()
            (home / f"odd{k}" / "run.json").write_text(content)
        status, found, _ = call(server, "/api/runs")
        assert status == 200
        assert {line["name"] for line in found["runs"] if "problem" not in line} == {
            "digits", "moons", "gan", "table", "few",
        }  # fmt: skip
        assert call(server, "/api/runs/odd0/samples", "POST", {})[0] == 400
        shutil.copytree(home / "moons", home / "odd9")
        log = home / "odd9" / "metrics.jsonl"
        log.write_bytes(
            b'{"step": 1, "loss": {"denoiser": NaN}}\n[3]\n{"step": 2, "loss": {"denoiser": 1.0}, "x": "\xff"}\n'
        )
        (home / "odd9" / "frontier.json").write_text('{"points": NaN}')
        status, found, _ = call(server, "/api/runs/odd9")
        assert status == 200
        assert [line["loss"]["denoiser"] for line in found["log"]] == [None, 1.0]
        assert found["swept"] is None
    finally:
        for path in home.glob("odd*"):
            shutil.rmtree(path)


def test_long_logs_are_thinned_to_their_end(server, home: Path) -> None:
    log = home / "moons" / "metrics.jsonl"
    before = log.read_text()
    log.write_text("".join(json.dumps({"step": k, "loss": {"denoiser": 1.0}}) + "\n" for k in range(5000)))
    try:
        lines = call(server, "/api/runs/moons")[1]["log"]
        assert len(lines) <= 400
        assert lines[-1]["step"] == 4999
        assert lines[0]["step"] < 20
    finally:
        log.write_text(before)


def test_points_come_as_numbers(server, home: Path) -> None:
    _, job, _ = call(server, "/api/runs/moons/samples", "POST", {"n": 7, "steps": 4})
    found = finished(server, job["job"])["result"]
    assert len(found["points"]) == len(found["times"])
    assert all(len(cloud) == 7 and len(cloud[0]) == 2 for cloud in found["points"])
    x = df.load(home / "moons", device="cpu").sample(7, steps=4, noise=df.Noise(0)).last
    assert torch.tensor(found["points"][-1]) == pytest.approx(x, rel=1e-4)
    assert call(server, "/api/runs/moons/samples", "POST", {"class": 1})[0] == 400
    assert call(server, "/api/runs/moons/samples", "POST", {"n": 1000, "steps": 1})[0] == 202
    status, said, _ = call(server, "/api/runs/moons/samples", "POST", {"n": 1001})
    assert (status, "n = 1001 is not between 1 and 1000" in str(said)) == (400, True)


def test_a_request_can_be_stopped(server) -> None:
    _, job, _ = call(server, "/api/runs/digits/samples", "POST", {"n": MOST["images"], "steps": MOST["steps"]})
    while call(server, f"/api/jobs/{job['job']}")[1]["state"] == "queued":
        time.sleep(0.01)
    call(server, f"/api/jobs/{job['job']}", "DELETE")
    found = finished(server, job["job"])
    assert found["state"] == "stopped"
    assert found["done"] < MOST["steps"]
    assert call(server, "/api/jobs/unknown")[0] == 404
    assert call(server, "/api/jobs/unknown", "DELETE")[0] == 404


def test_fifty_requests_at_once_are_queued_or_refused(server) -> None:
    def ask(seed: int):
        return call(server, "/api/runs/digits/samples", "POST", {"n": 4, "steps": 20, "seed": seed})

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert {status for status, _, _ in answers} <= {202, 429}
    taken = [found["job"] for status, found, _ in answers if status == 202]
    assert taken
    assert all("try again" in found["error"] for status, found, _ in answers if status == 429)
    assert call(server, "/api/runs")[0] == 200
    assert {finished(server, job)["state"] for job in taken} == {"done"}


# -- the queue ---------------------------------------------------------------------------------------------------------
def test_the_queue_is_short_and_forgets_old_results() -> None:
    go, jobs = threading.Event(), Jobs(waiting=3, kept=4)
    first = jobs.add(lambda report: go.wait(10))
    while first.state != "running":
        time.sleep(0.001)
    waiting = [jobs.add(lambda report, k=k: k) for k in range(3)]
    with pytest.raises(Full, match="3 requests"):
        jobs.add(lambda report: None)
    assert jobs.stop(waiting[1].name).state == "stopped"
    broken = jobs.add(lambda report: 1 / 0)
    go.set()
    end = time.monotonic() + 10
    while broken.state != "failed" and time.monotonic() < end:
        time.sleep(0.001)
    assert [waiting[0].result, waiting[1].result, waiting[2].result] == [0, None, 2]
    assert "division" in broken.error
    assert jobs.add(lambda report: None).name in jobs.known  # after a failure it goes on
    for _ in range(10):
        last = jobs.add(lambda report: None)
        while last.state != "done" and time.monotonic() < end:
            time.sleep(0.001)
    assert len(jobs.known) <= 5
    assert first.name not in jobs.known


# -- the command -------------------------------------------------------------------------------------------------------
def test_the_command_names_what_it_cannot_serve(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    for words, said in (
        (["--port", "70000"], "0 to 65535"),
        ([str(tmp_path / "file")], "is not a folder"),
        ([str(home / "digits")], "is a run itself"),
        (["--no-browser", "--port", str(taken.getsockname()[1])], "choose another"),
    ):
        assert main(["explore", *words]) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")
    taken.close()


def test_the_command_prints_an_address_that_works(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys

    words = [sys.executable, "-m", "diffflow.cli", "explore", str(tmp_path), "--port", "0", "--no-browser"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        base, _, token = address.partition("/?token=")
        line = http.client.HTTPConnection(base.removeprefix("http://"), timeout=10)
        line.request("GET", "/api/runs", headers={"X-Token": token})
        assert json.loads(line.getresponse().read())["runs"] == []
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
    finally:
        process.kill()
