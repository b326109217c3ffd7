"""rig-gateway-reader counts every line of the gateway's log once, whatever dies, and whatever a line holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rigd.gateway import config as configs
from rigd.gateway import counters, journal, metrics, reader
from rigd.gateway.config import Config
from rigd.gateway.counters import CLIENTS, Counters, Series
from rigd.gateway.journal import Follower, Place
from tests.unit.project import ROOT

ENGINES = ("one", "two")
REMOTE = "/lib/systemd/systemd-journal-remote"
needs_journal = pytest.mark.skipif(not Path(REMOTE).exists(), reason="not installed: systemd-journal-remote")
"""Writes files of the journal with any fields; journalctl reads them as it reads the machine's own."""

LINE = {
    "time": "2026-11-30T12:00:00.000Z",
    "id": "0f",
    "client": "anna",
    "method": "POST",
    "path": "/v1/chat/completions",
    "status": 200,
    "engine": "one",
    "variant": "one",
    "asked": "m",
    "served": "m",
    "bytes": 900,
    "first_byte_ms": 250,
    "total_ms": 1500,
    "prompt_tokens": 12,
    "completion_tokens": 30,
    "tokens": "counted",
    "limit": "none",
    "flag": "",
    "termination": "--",
}


def line(**changes: Any) -> str:
    return json.dumps({**LINE, **changes})


def counted(*lines: str) -> Counters:
    made = Counters()
    for text in lines:
        made.count(text, 1_800_000_000.5, ENGINES)
    return made


def values(*lines: str) -> dict[str, float]:
    """The samples as Prometheus' own parser reads them, but those of the log itself."""
    return samples(metrics.render(counted(*lines)))


def samples(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("rig_gateway_log_")
    }


# What a line adds


def test_an_answer_is_counted_with_its_tokens_and_times() -> None:
    assert values(line(), line(prompt_tokens=8, status=201)) == {
        "rig_gateway_requests_total{client=anna,engine=one,status=2xx}": 2,
        "gen_ai_client_token_usage_count{client=anna,engine=one,gen_ai_token_type=input}": 2,
        "gen_ai_client_token_usage_sum{client=anna,engine=one,gen_ai_token_type=input}": 20,
        "gen_ai_client_token_usage_count{client=anna,engine=one,gen_ai_token_type=output}": 2,
        "gen_ai_client_token_usage_sum{client=anna,engine=one,gen_ai_token_type=output}": 60,
        "gen_ai_server_request_duration_seconds_count{client=anna,engine=one}": 2,
        "gen_ai_server_request_duration_seconds_sum{client=anna,engine=one}": 3,
        "rig_gateway_first_byte_seconds_count{client=anna,engine=one}": 2,
        "rig_gateway_first_byte_seconds_sum{client=anna,engine=one}": 0.5,
        "rig_gateway_last_request_timestamp_seconds{client=anna}": 1_800_000_000.5,
    }


@pytest.mark.parametrize("limit", ["rate", "concurrency", "address"])
def test_a_limited_request_is_counted_by_its_limit_and_is_no_work_of_an_engine(limit: str) -> None:
    found = values(line(status=429, limit=limit, client=None if limit == "address" else "anna"))
    client = "unknown" if limit == "address" else "anna"
    assert found == {
        f"rig_gateway_requests_total{{client={client},engine=one,status=4xx}}": 1,
        f"rig_gateway_limited_requests_total{{client={client},limit={limit}}}": 1,
        f"rig_gateway_last_request_timestamp_seconds{{client={client}}}": 1_800_000_000.5,
    }


def test_an_answer_whose_tokens_are_not_known_is_counted_as_such() -> None:
    found = values(line(prompt_tokens=None, completion_tokens=None, tokens="stream without usage"))
    assert found["rig_gateway_tokenless_answers_total{client=anna,engine=one}"] == 1
    assert not any("token_usage" in name for name in found)


def test_a_refused_answer_is_not_one_without_tokens() -> None:
    assert not any("tokenless" in name for name in values(line(status=400, tokens="no usage")))


@pytest.mark.parametrize(
    ("changes", "series"),
    [
        ({"client": None}, Series("requests", "unknown", "one", "2xx")),
        ({"client": 'a"}\n'}, Series("requests", "unknown", "one", "2xx")),
        ({"client": ["anna"]}, Series("requests", "unknown", "one", "2xx")),
        ({"client": "x" * 33}, Series("requests", "unknown", "one", "2xx")),
        ({"engine": None}, Series("requests", "anna", "none", "2xx")),
        ({"engine": "three"}, Series("requests", "anna", "none", "2xx")),
        ({"engine": {}}, Series("requests", "anna", "none", "2xx")),
        ({"status": None}, Series("requests", "anna", "one", "none")),
        ({"status": -1}, Series("requests", "anna", "one", "none")),
        ({"status": 999}, Series("requests", "anna", "one", "none")),
        ({"status": True}, Series("requests", "anna", "one", "none")),
        ({"status": "200"}, Series("requests", "anna", "one", "none")),
    ],
)
def test_what_nobody_gave_a_name_to_becomes_no_label(changes: dict[str, Any], series: Series) -> None:
    assert counted(line(**changes)).values[series] == 1


@pytest.mark.parametrize("number", [-1, 1e300, float("nan"), float("inf"), "12", True, None, [], 10**30])
def test_a_number_that_cannot_be_is_left_out(number: object) -> None:
    found = counted(line(prompt_tokens=number, total_ms=number)).values
    assert Series("input", "anna", "one", "sum") not in found
    assert found[Series("requests", "anna", "one", "2xx")] == 1


@pytest.mark.parametrize(
    "text", ["{", '{"client": "an', "{}x", '{"a":' * 100000, '{"status": ' + "9" * 5000 + "}", "{" + "x" * 500000]
)
def test_a_line_that_is_no_json_is_counted_as_unusable_and_stops_nothing(text: str) -> None:
    found = counted(text, line())
    assert (found.unusable, len(found.last)) == (1, 1)


@pytest.mark.parametrize("text", ["", "[NOTICE] (1) : New worker (2) forked", "null", "[]"])
def test_a_remark_of_haproxy_is_no_line_of_the_log(text: str) -> None:
    assert counted(text) == Counters()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(sorted(LINE)), anything))
def test_whatever_a_line_holds_the_metrics_can_be_read_and_their_labels_are_ours(changes: dict[str, Any]) -> None:
    made = counted(line(**changes))
    for family in text_string_to_metric_families(metrics.render(made)):
        for sample in family.samples:
            assert sample.labels.get("engine", "none") in (*ENGINES, "none")
            assert sample.labels.get("status", "none") in ("1xx", "2xx", "3xx", "4xx", "5xx", "none")
            assert len(sample.labels.get("client", "")) <= 32


@given(st.text())
def test_no_text_stops_the_counting(text: str) -> None:
    counted(text, "{" + text)


def test_clients_are_bounded_and_the_one_away_for_longest_is_forgotten() -> None:
    made = Counters()
    for number in range(CLIENTS + 10):
        made.count(line(client=f"client-{number}"), float(number), ENGINES)
    names = {series.client for series in made.values}
    assert names == made.last.keys() == {f"client-{number}" for number in range(10, CLIENTS + 10)}


def test_counters_are_the_same_after_they_were_saved(tmp_path: Path) -> None:
    made = counted(line(), line(client=None, status=401, limit="address"), "{")
    made.place, made.gaps = Place("s=1;i=2", 3), 4
    counters.write(tmp_path / "state.json", made)
    assert counters.read(tmp_path / "state.json") == made
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert counters.last_uses(tmp_path / "state.json") == made.last
    assert counters.last_uses(tmp_path / "missing") == {}


# The journal


class Log:
    """A journal of its own, in files of the real format, that the program finds instead of the machine's."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.files = root, root / "journal"
        self.files.mkdir()
        (root / "bin").mkdir()
        program = root / "bin/journalctl"
        program.write_text(f'#!/bin/sh\nexec {shutil.which("journalctl")} --directory={self.files} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
        self._numbers = count(1)
        self.file = "a"
        self.config = Config(
            engines=ENGINES, reader=str(root / "state.json"), metrics=str(root / "rig_gateway.prom"), interval=0.05
        )

    def write(self, *messages: str | bytes, unit: str = configs.UNIT) -> None:
        """Add entries to the present file."""
        export = b""
        for message in messages:
            number = next(self._numbers)
            data = message if isinstance(message, bytes) else message.encode()
            export += (
                f"__REALTIME_TIMESTAMP={1_800_000_000_000_000 + number * 1000}\n"
                f"__MONOTONIC_TIMESTAMP={number * 1000}\n_BOOT_ID={'a' * 32}\n_SYSTEMD_UNIT={unit}\n"
            ).encode()
            export += b"MESSAGE\n" + len(data).to_bytes(8, "little") + data + b"\n\n"
        words = [REMOTE, f"--output={self.files}/{self.file}.journal", "-"]
        subprocess.run(words, input=export, check=True, capture_output=True, timeout=60)

    def start(self) -> subprocess.Popen[bytes]:
        path = self.root / "gateway.json"
        path.write_text(configs.dump(self.config))
        return subprocess.Popen([sys.executable, "-m", "rigd.gateway.reader", "--config", str(path)], cwd=ROOT)

    def requests(self) -> float:
        """Number of requests in the file for node_exporter."""
        path = Path(self.config.metrics)
        found = samples(path.read_text()) if path.exists() else {}
        return sum(value for name, value in found.items() if name.startswith("rig_gateway_requests_total"))

    def log(self, name: str) -> float:
        """A metric of the log itself."""
        (value,) = [
            float(row.split()[1])
            for row in Path(self.config.metrics).read_text().splitlines()
            if row.startswith(f"rig_gateway_log_{name}_total")
        ]
        return value


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(tmp_path, monkeypatch)


@pytest.fixture
def following() -> Iterator[Callable[[Log], reader.Reader]]:
    made: list[reader.Reader] = []

    def follow(log: Log) -> reader.Reader:
        made.append(reader.Reader(log.config))
        return made[-1]

    yield follow
    for one in made:
        one.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def counts(service: reader.Reader, log: Log, number: int) -> None:
    """Let it work until it has counted so many requests."""
    end = time.monotonic() + 60
    while log.requests() != number:
        assert time.monotonic() < end, f"it counted {log.requests()} of {number}"
        service.round(0.05)


Following = Callable[[Log], reader.Reader]


@needs_journal
def test_lines_are_counted_as_they_come_and_those_before_it_first_ran_too(log: Log, following: Following) -> None:
    log.write(line(), line())
    service = following(log)
    counts(service, log, 2)
    log.write(line())
    counts(service, log, 3)
    assert log.log("gaps") == log.log("unusable") == 0


@needs_journal
def test_lines_of_other_units_are_not_counted(log: Log, following: Following) -> None:
    log.write(line(), unit="other.service")
    log.write(line())
    service = following(log)
    counts(service, log, 1)
    service.round(0.2)
    assert log.requests() == 1


@needs_journal
def test_hostile_lines_are_passed_over_and_the_next_one_counts(log: Log, following: Following) -> None:
    log.write(
        b"\xff\xfe{", "{" + "x" * 40000, b'{"client": "\xff"}', "\n", line(), "{" * 2_000_000, line(id="x" * 9000)
    )
    service = following(log)
    # The first is no JSON at all; the third is, and becomes a request of somebody unknown.
    counts(service, log, 3)
    assert log.log("unusable") == 1


@needs_journal
def test_a_rotated_journal_is_followed(log: Log, following: Following) -> None:
    log.write(line())
    service = following(log)
    counts(service, log, 1)
    log.file = "b"
    log.write(line(), line())
    counts(service, log, 3)
    service.close()
    counts(following(log), log, 3)
    assert log.log("gaps") == 0


@needs_journal
def test_a_deleted_part_of_the_journal_is_reported_and_what_came_after_it_is_counted_once(
    log: Log, following: Following, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write(line(), line())
    service = following(log)
    counts(service, log, 2)
    service.close()
    (log.files / "a.journal").unlink()
    log.file = "b"
    log.write(line(), line(), line())
    later = following(log)
    counts(later, log, 5)
    assert log.log("gaps") == 1
    assert "is no longer in the journal" in capsys.readouterr().err
    # What follows is read once, and the report is made once.
    log.write(line())
    counts(later, log, 6)
    later.close()
    last = following(log)
    last.round(0.3)
    assert (log.requests(), log.log("gaps")) == (6, 1)


@needs_journal
def test_a_place_that_a_power_cut_took_from_the_journal_does_not_count_older_lines_again(
    log: Log, following: Following
) -> None:
    """The journal's last lines were not synced; their numbers are given to others after the boot."""
    log.write(line(), line(), line())
    service = following(log)
    counts(service, log, 3)
    service.close()
    saved = counters.read(Path(log.config.reader))
    assert saved.place is not None
    saved.place = Place(saved.place.cursor.replace(";i=3;", ";i=9;"), saved.place.time)
    counters.write(Path(log.config.reader), saved)
    log.write(line())
    counts(following(log), log, 4)
    assert log.log("gaps") == 1


@needs_journal
def test_a_program_killed_at_any_moment_counts_every_line_once_and_no_counter_falls(log: Log) -> None:
    process, seen = log.start(), [0.0]
    try:
        for number in range(1, 9):
            log.write(*[line()] * 25)
            if number % 3 == 0:
                # In the middle of its work, as far as that can be had.
                until(lambda: log.requests() > seen[-1])
            process.send_signal(signal.SIGKILL)
            process.wait()
            seen.append(log.requests())
            process = log.start()
        until(lambda: log.requests() == 200)
        seen.append(log.requests())
    finally:
        process.kill()
        process.wait()
    assert seen == sorted(seen)
    assert log.log("gaps") == 0


@needs_journal
def test_damaged_counters_begin_at_zero_and_say_so(
    log: Log, following: Following, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write(line())
    Path(log.config.reader).write_text("{")
    counts(following(log), log, 1)
    assert log.log("gaps") == 1
    assert "counting begins at zero" in capsys.readouterr().err


@needs_journal
def test_on_a_full_disk_nothing_is_shown_that_a_restart_would_take_back(
    log: Log, following: Following, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write(line())
    service = following(log)
    counts(service, log, 1)

    def fails(path: Path, counted: Counters) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(counters, "write", fails)
        log.write(line())
        for _ in range(5):
            service.round(0.1)
        assert log.requests() == 1
    assert capsys.readouterr().err.count("cannot be saved: No space left on device") == 1
    counts(service, log, 2)


def test_a_journalctl_that_ends_ends_the_program_with_a_sentence(log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    (log.root / "bin/journalctl").write_text("#!/bin/sh\nexit 3\n")
    process = log.start()
    assert process.wait(60) == 1
    assert capfd.readouterr().err == "rig-gateway-reader: journalctl ended with 3\n"


def test_lines_that_are_too_long_are_left_out_and_no_memory_is_kept_for_them(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST", 1000)
    entry = '{"__CURSOR": "s=%d", "__REALTIME_TIMESTAMP": "%d", "MESSAGE": "%s"}'
    lines = [entry % (1, 1, "one"), entry % (2, 2, "x" * 300000), entry % (3, 3, "three")]
    (log.root / "lines").write_text("".join(f"{text}\n" for text in lines))
    (log.root / "bin/journalctl").write_text(f"#!/bin/sh\ncat {log.root}/lines; exec sleep 60\n")
    follower = Follower("x.service", None)
    try:
        found: list[str] = []

        def read() -> bool:
            found.extend(entry.message for entry in follower.entries(0.2))
            return "three" in found

        until(read)
        assert found == ["one", "three"]
    finally:
        follower.close()


def test_every_metric_is_described_to_its_reader() -> None:
    page = (ROOT / "docs/gateway.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:rig_gateway|gen_ai)_\w+)`", page))
    found = {re.sub("_(sum|count)$", "", name) for name in named} - {"gen_ai_token_type"}
    assert found == metrics.METRICS.keys()
