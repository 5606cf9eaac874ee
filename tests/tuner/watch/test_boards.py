"""Dashboards that refuse or cannot answer a request: the browser is told, and nothing is printed on the terminal."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import make_server

import pytest

from tests.chaos.runs import finished_run
from tests.tuner.study.test_journal import ATTRIBUTES, make
from tests.tuner.study.test_journal import run as study_run
from tuner.config import Tpe
from tuner.results.folder import RunFolder
from tuner.watch.boards import optuna_board, signed_in, tensorboard

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def ask(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    wish = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(wish, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def hang_up(url: str, request: str) -> None:
    """Sends a request, and closes the connection before the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(f"{request}\r\nHost: x\r\n\r\n".encode())


def test_what_would_change_a_study_is_refused_and_only_the_browser_hears(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = RunFolder(finished_run(tmp_path))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="first", storage=JournalStorage(JournalFileBackend(str(folder.study))))
    journal = folder.study.read_bytes()
    with optuna_board(folder) as url:
        capfd.readouterr()
        origin = url.removesuffix("/dashboard")
        assert ask(f"{origin}/api/studies")[0] == 200
        wishes = [("DELETE", "/api/studies/0", None), ("POST", "/api/studies", b'{"study_name": "x"}')]
        wishes += [("PUT", "/api/studies/0/note", b'{"body": "x", "version": 1}'), ("POST", "/api/studies", b"{")]
        for method, path, body in wishes:
            status, told = ask(origin + path, method, body)
            assert status == 403 and "read-only" in json.loads(told)["reason"]
        assert ask(f"{origin}/api/studies/none")[0] >= 400
        with folder.study.open("ab") as file:
            file.write(b"no JSON\n{}\n")
        assert ask(f"{origin}/api/studies")[0] == 500
        folder.study.write_bytes(journal)
        for _ in range(5):
            hang_up(url, "GET /api/studies HTTP/1.1")
        hang_up(url, "no HTTP")
        time.sleep(0.3)
    assert capfd.readouterr() == ("", "")
    assert folder.study.read_bytes() == journal


def test_a_page_that_is_open_while_a_resume_writes_the_journal_anew(tmp_path: Path) -> None:
    """Optuna reads only what was appended to the file that it knows; this is another one."""
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    folder = RunFolder(finished_run(tmp_path))
    records = study_run(make(folder.study, Tpe()), 6)
    with optuna_board(folder) as url:
        origin = url.removesuffix("/dashboard")
        assert len(json.loads(ask(f"{origin}/api/studies/0")[1])["trials"]) == 6
        again = make(folder.study, Tpe(), records)
        begun = again.ask()
        assert begun is not None and begun.number == 6
        status, told = ask(f"{origin}/api/studies/0")
        shown = json.loads(told)["trials"]
        assert status == 200 and [trial["number"] for trial in shown] == list(range(7))
        assert shown[6]["state"] == "Running"
        assert [t["state"] for t in shown[:6]] == [t.state.name.capitalize() for t in again.optuna.trials[:6]]


def test_a_trial_of_somebody_else_gets_nothing_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = RunFolder(finished_run(tmp_path))
    study = make(folder.study, Tpe())
    storage = JournalStorage(JournalFileBackend(str(folder.study)))
    study_run(study, 1)
    optuna.load_study(study_name="first", storage=storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    study_run(study, 1)
    with optuna_board(folder) as url:
        shown = json.loads(ask(f"{url.removesuffix('/dashboard')}/api/studies/0")[1])["trials"]
    told = [{one["key"]: one["value"] for one in trial["user_attrs"]} for trial in shown]
    record = folder.record()
    assert told[0]["ending"] == record.trials[0].ending and told[1] == {}
    assert told[2]["ending"] == record.trials[1].ending, "the third in the journal is trial 1 of the search"


def test_a_ledger_that_cannot_be_read_leaves_the_study_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard")
    folder = RunFolder(finished_run(tmp_path))
    make(folder.study, Tpe())
    folder.ledger.write_text("no JSON\n{}\n")
    folder.resolved.unlink()
    with optuna_board(folder) as url:
        status, told = ask(f"{url.removesuffix('/dashboard')}/api/studies/0")
    assert status == 200
    assert {one["key"]: one["value"] for one in json.loads(told)["user_attrs"]} == ATTRIBUTES


def test_tensorboard_says_nothing_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.tensorboard.mkdir()
    with tensorboard(folder) as url:
        capfd.readouterr()
        assert ask(f"{url}/data/plugin/scalars/scalars?run=no&tag=no")[0] >= 400
        assert ask(f"{url}/data/plugin/hparams/session_groups", "POST", b"no JSON")[0] >= 400
        for _ in range(5):
            hang_up(url, "GET /data/environment HTTP/1.1")
        hang_up(url, "no HTTP")
        time.sleep(0.3)
    assert capfd.readouterr() == ("", "")


def _led_to(url: str) -> tuple[int, str, str]:
    """Status, place and cookie of an answer, without going where it leads."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None: ...

    try:
        urllib.request.build_opener(Stay).open(url, timeout=20)
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers.get("Location", ""), answer.headers.get("Set-Cookie", "")
    raise AssertionError("it answered itself")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_ray_dashboard_opens_with_its_token_and_nobody_else_gets_it(host: str) -> None:
    page = f"http://{host}:8265/#/jobs/01000000"
    with signed_in(page, "s3cret") as url:
        assert urlsplit(url).hostname == host, "a cookie holds for the host that it was set by"
        status, place, cookie = _led_to(url)
        assert (status, place) == (302, page)
        assert cookie.startswith("ray-authentication-token=s3cret;") and "HttpOnly" in cookie
        assert "s3cret" not in url
        for guess in (url[:-1], url.rpartition("/")[0], url + "/"):
            assert _led_to(guess) == (404, "", "")


@pytest.mark.parametrize(("page", "token"), [("http://head:8265/#/jobs/01", "s3cret"), ("http://127.0.0.1:8265", None)])
def test_where_no_cookie_can_be_set_the_page_itself_is_given(page: str, token: str | None) -> None:
    with signed_in(page, token) as url:
        assert url == page


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="no chromium and chromedriver on this machine")
def test_a_browser_brings_the_token_to_another_port_of_the_host(tmp_path: Path) -> None:
    """A page that shows the cookies it gets stands for the dashboard."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")

    def shows(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/html")])
        return [f"<p>cookies: {environ.get('HTTP_COOKIE', 'none')}</p>".encode()]

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    with make_server("127.0.0.1", 0, shows) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/#/jobs/01000000"
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
        try:
            browser.get(page)
            assert "cookies: none" in browser.page_source
            with signed_in(page, "s3cret") as url:
                browser.get(url)
                assert browser.current_url == page
                assert "cookies: ray-authentication-token=s3cret" in browser.page_source
        finally:
            browser.quit()
            server.shutdown()
