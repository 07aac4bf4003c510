"""Metrics carry Distribution's names and bounded labels; logs are one escaped line an event."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.logs import open_log
from app.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample as `name{label=value,...}`."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_requests_are_counted_timed_and_weighed() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.answered("blob", "GET", status, 0.25, received=0, sent=100)
    metrics.answered("upload", "PUT", 201, 2.0, received=7, sent=0)
    found = samples(metrics)
    assert found["registry_http_requests_total{code=200,handler=blob,method=GET}"] == 2
    assert found["registry_http_requests_total{code=404,handler=blob,method=GET}"] == 1
    assert found["registry_http_request_duration_seconds_count{handler=blob,method=GET}"] == 3
    assert found["registry_http_request_duration_seconds_sum{handler=blob,method=GET}"] == 0.75
    assert found["registry_http_response_size_bytes_total{handler=blob}"] == 300
    assert found["registry_http_request_size_bytes_total{handler=upload}"] == 7


def test_the_stores_actions_and_alarms_are_noted() -> None:
    metrics = Metrics()
    metrics.stored("s3", "put", 0.002)
    metrics.stored("s3", "put", 0.003)
    metrics.alarmed("bytes of a blob are gone")
    found = samples(metrics)
    assert found["registry_storage_action_seconds_count{action=put,driver=s3}"] == 2
    assert found["registry_alarms_total{alarm=bytes of a blob are gone}"] == 1


def test_two_services_in_one_process_do_not_share_metrics() -> None:
    one, two = Metrics(), Metrics()
    one.alarmed("x")
    assert not any(name.startswith("registry_alarms_total") for name in samples(two))


class Written:
    """What went to standard error since it was last asked for."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def getvalue(self) -> str:
        return self._capture.readouterr().err


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What is written to standard error; the root logger is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Written(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_is_one_json_line_whatever_it_holds(error: Written) -> None:
    log = open_log("info", "json")
    log.info("request", path='/v2/\n{"event":"forged"}\x1b[31m\r', status=200)
    (line,) = error.getvalue().splitlines()
    fields = json.loads(line)
    assert fields["event"] == "request"
    assert fields["path"] == '/v2/\n{"event":"forged"}\x1b[31m\r'
    assert (fields["level"], fields["status"]) == ("info", 200)
    assert fields["timestamp"].endswith("Z")
    assert "\x1b" not in line


def test_the_console_escapes_what_came_from_outside(error: Written) -> None:
    open_log("info", "console").info("request", path="/v2/\nforged line\x1b[31m")
    text = error.getvalue()
    assert len(text.splitlines()) == 1
    assert "\x1b[31m" not in text


def test_nothing_from_outside_commands_the_terminal(error: Written) -> None:
    log = open_log("info", "console")
    log.info("imported", image="\x1b]0;title\x07")
    logging.getLogger("asyncio").warning("\x1b[2J%s", "\x9b31m")
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        log.exception("failed")
    text = error.getvalue()
    assert "title" in text
    assert "Traceback" in text
    assert [letter for letter in text if not letter.isprintable() and letter != "\n"] == []


def test_less_severe_events_are_not_written(error: Written) -> None:
    log = open_log("warning", "json")
    log.info("quiet")
    log.warning("loud")
    assert [json.loads(line)["event"] for line in error.getvalue().splitlines()] == ["loud"]


def test_the_libraries_go_the_same_way_from_warning_up(error: Written) -> None:
    open_log("info", "json")
    logging.getLogger("uvicorn.error").info("quiet")
    try:
        raise ValueError("the reason")
    except ValueError:
        logging.getLogger("asyncio").exception("failed %s", "here")
    (line,) = error.getvalue().splitlines()
    fields = json.loads(line)
    assert (fields["event"], fields["logger"], fields["level"]) == ("failed here", "asyncio", "error")
    assert "the reason" in fields["error"]


def test_an_exception_is_one_json_line_too(error: Written) -> None:
    log = open_log("info", "json")
    try:
        raise ValueError("the reason")
    except ValueError:
        log.exception("failed")
    (line,) = error.getvalue().splitlines()
    assert "the reason" in json.loads(line)["exception"]


def test_several_processes_add_up(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("metrics")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    work = (
        "from app.telemetry.metrics import Metrics\n"
        "m = Metrics(); m.answered('base', 'GET', 200, 0.1, 0, 2); m.in_flight.inc()\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", work], check=True, timeout=60)
    last = work + "print(m.render().decode())"
    text = subprocess.run([sys.executable, "-c", last], check=True, timeout=60, capture_output=True, text=True).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("registry_http_requests_total{")]
    assert line.endswith(" 3.0")
