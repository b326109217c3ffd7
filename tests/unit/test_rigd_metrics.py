"""rig-metrics measures the present state, in Prometheus' format, and never writes half a file."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rigd.base import card, command, exposition, files
from rigd.base.command import Command, NoAnswer, Programs
from rigd.base.exposition import Metric, Sample
from rigd.metrics import cli, look
from rigd.metrics.config import Config, Engine, dump
from tests.unit.sample import needs

CONFIG = Config(output="/nowhere", records="/nowhere", engines=(), models=(), certificates=(), alertmanager=0)


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers everything with this status; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_text_is_in_the_format_that_prometheus_reads() -> None:
    metrics = [
        Metric("one", "What it is.", (Sample(1, {}), Sample(0.5, {"a": 'x"\\\n', "b": "y"}))),
        Metric("none", "Nothing to say.", ()),
        Metric("two_total", "A count.", (Sample(1795239156.25, {}),), "counter"),
    ]
    assert exposition.text(metrics) == (
        "# HELP one What it is.\n# TYPE one gauge\none 1.0\n"
        'one{a="x\\"\\\\\\n",b="y"} 0.5\n'
        "# HELP two_total A count.\n# TYPE two_total counter\ntwo_total 1.79523915625e+09\n"
    )


@pytest.mark.parametrize("lasting", [True, False])
def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path, lasting: bool) -> None:
    path = tmp_path / "x.prom"
    (tmp_path / ".x.prom.new").write_text("half of an ol")
    files.replace(path, "new\n", lasting=lasting)
    assert path.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.prom"
    path.write_text("old\n")
    seen = []

    def rename(self: Path, target: Path) -> Path:
        seen.append((path.read_text(), self.read_text(), self.suffix))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        files.replace(path, "new\n")
    assert seen == [("old\n", "new\n", ".new")]
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reboot_that_a_package_asked_for_is_pending(tmp_path: Path) -> None:
    assert not look.reboot_pending(tmp_path, "6.12.1-amd64")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").touch()
    assert look.reboot_pending(tmp_path, "6.12.1-amd64")


@pytest.mark.parametrize(("running", "pending"), [("6.12.1-amd64", True), ("6.12.2-amd64", False)])
def test_a_kernel_that_the_next_boot_takes_makes_a_reboot_pending(tmp_path: Path, running: str, pending: bool) -> None:
    (tmp_path / "vmlinuz").symlink_to("boot/vmlinuz-6.12.2-amd64")
    assert look.reboot_pending(tmp_path, running) is pending


@needs("openssl")
def test_end_of_a_certificate_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    subprocess.run([*make, "-subj", "/CN=x", "-keyout", "/dev/null", "-out", path], check=True, capture_output=True)
    days = (look.certificate_end(str(path), Programs(10)) - datetime.now(UTC).timestamp()) / 86400
    assert 29.9 < days <= 30


@needs("openssl")
def test_a_certificate_that_cannot_be_read_has_ended_long_ago(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no certificate")
    for name in ("x", "missing"):
        assert look.certificate_end(str(tmp_path / name), Programs(10)) == 0


@pytest.mark.parametrize(("status", "loading"), [(503, 1), (200, 0), (500, 0)])
def test_an_engine_that_says_so_is_loading(status: int, loading: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_wanted", lambda engines, ask: ())
    with answering(status) as port:
        config = Config("", "/nowhere", (Engine("one", "one.service", "127.0.0.1", port),), (), (), 0)
        found = {gauge.name: gauge.samples for gauge in look.gauges(config, pytest.fail)}
    assert found["rig_engine_loading"] == (Sample(loading, {"engine": "one"}),)


def test_an_engine_that_does_not_answer_is_not_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_wanted", lambda engines, ask: ())
    with answering(200) as port:
        pass
    config = Config("", "/nowhere", (Engine("one", "one.service", "127.0.0.1", port),), (), (), 0)
    found = {gauge.name: gauge.samples for gauge in look.gauges(config, pytest.fail)}
    assert found["rig_engine_loading"] == (Sample(0, {"engine": "one"}),)


def test_a_model_is_said_to_have_changed_while_its_mark_is_there(tmp_path: Path) -> None:
    (tmp_path / "two.failed").touch()
    config = Config("", str(tmp_path), (), ("one", "two"), (), 0)
    found = {gauge.name: gauge.samples for gauge in look.gauges(config, pytest.fail)}
    assert found["rig_model_changed"] == (Sample(0, {"model": "one"}), Sample(1, {"model": "two"}))


def test_the_program_writes_where_it_is_told(tmp_path: Path) -> None:
    config = tmp_path / "metrics.json"
    config.write_text(dump(Config(str(tmp_path), str(tmp_path), (), ("one",), (), 0)))
    assert cli.main(["--config", str(config)]) == 0
    assert 'rig_model_changed{model="one"} 0.0\n' in (tmp_path / "rig_machine.prom").read_text()


def test_a_missing_or_broken_configuration_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "metrics.json"
    assert cli.main(["--config", str(config)]) == 2
    config.write_text(json.dumps({"engines": 1}))
    assert cli.main(["--config", str(config)]) == 2
    missing, broken = capsys.readouterr().err.splitlines()
    assert missing == f"rig-metrics: there is no {config}; a deploy writes it"
    assert broken.startswith(f"rig-metrics: {config} cannot be used (")


def test_a_folder_that_is_not_there_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "metrics.json"
    config.write_text(dump(Config(str(tmp_path / "missing"), str(tmp_path), (), (), (), 0)))
    assert cli.main(["--config", str(config)]) == 1
    assert "No such file or directory" in capsys.readouterr().err


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts programs first on the search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setitem(command.ENVIRONMENT, "PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def on_gpu(*engines: Engine) -> tuple[Sample, ...]:
    made = look.gauges(Config("", "/nowhere", engines, (), (), 0), pytest.fail)
    return next(gauge.samples for gauge in made if gauge.name == "rig_engine_on_gpu")


CONTAINER = Engine("one", "rig-container@one.service", "127.0.0.1", 1, container="rig-one", gpu=True)
SERVICE = Engine("two", "rig-native@two.service", "127.0.0.1", 1, gpu=True)
NEITHER = Engine("three", "rig-native@three.service", "127.0.0.1", 1)


def test_an_engine_is_on_the_card_when_a_process_of_its_unit_or_container_is(
    programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {
        "11": "0::/system.slice/docker-abc123.scope",
        "12": "0::/system.slice/rig-native@two.service",
        "13": "0::/",
    }
    monkeypatch.setattr(card, "control_group", lambda pid: groups.get(pid, ""))
    programs("systemctl", "exit 0")
    programs("docker", 'case "$*" in *rig-one) echo abc123 ;; *) exit 1 ;; esac')
    programs("nvidia-smi", "printf '11\\n12\\n'")
    assert on_gpu(CONTAINER, SERVICE, NEITHER) == (Sample(1, {"engine": "one"}), Sample(1, {"engine": "two"}))
    programs("nvidia-smi", "echo 13")
    assert on_gpu(CONTAINER, SERVICE, NEITHER) == (Sample(0, {"engine": "one"}), Sample(0, {"engine": "two"}))
    programs("docker", "exit 1")
    programs("nvidia-smi", "printf '11\\n13\\n'")
    assert on_gpu(CONTAINER) == (Sample(0, {"engine": "one"}),)


@pytest.mark.parametrize(
    "said",
    [
        "echo 12; echo 'WARNING: infoROM is corrupted at gpu 0000:01:00.0'; exit 14",
        "echo 'WARNING: infoROM is corrupted at gpu 0000:01:00.0' >&2; echo 12; exit 14",
        "echo 'Unable to determine the device handle for GPU0000:02:00.0: Unknown Error'; echo 12; exit 255",
    ],
)
def test_a_remark_of_nvidia_smi_takes_no_engine_off_the_card(
    programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(card, "control_group", lambda pid: {"12": "0::/system.slice/rig-native@two.service"}[pid])
    programs("systemctl", "exit 0")
    programs("nvidia-smi", said)
    assert on_gpu(SERVICE) == (Sample(1, {"engine": "two"}),)


@pytest.mark.parametrize("code", [9, 15, 255])
def test_of_a_card_that_does_not_answer_nothing_is_said(programs: Callable[[str, str], None], code: int) -> None:
    programs("systemctl", "exit 0")
    programs("nvidia-smi", f"echo Unable to determine the device handle; exit {code}")
    assert on_gpu(SERVICE) == ()


def test_an_engine_is_wanted_when_its_unit_starts_at_boot(programs: Callable[[str, str], None]) -> None:
    shown = f"Id={CONTAINER.unit}\\nUnitFileState=enabled\\n\\nId={SERVICE.unit}\\nUnitFileState=disabled\\n"
    programs("systemctl", f"printf '{shown}'")
    made = look.gauges(Config("", "/nowhere", (CONTAINER, SERVICE), (), (), 0), pytest.fail)
    assert next(made).samples == (Sample(1, {"engine": "one"}), Sample(0, {"engine": "two"}))


@pytest.mark.parametrize(
    ("following", "modules", "missing"),
    [
        ("6.12.2", {"6.12.1": True, "6.12.2": False}, (Sample(True, {}),)),
        ("6.12.2", {"6.12.1": True, "6.12.2": True}, (Sample(False, {}),)),
        ("6.12.2", {"6.12.1": True}, (Sample(True, {}),)),
        ("6.12.1", {"6.12.1": True}, (Sample(False, {}),)),
        ("6.12.2", {"6.12.1": False, "6.12.2": False}, ()),
        (None, {"6.12.1": True}, ()),
    ],
)
def test_a_next_kernel_without_the_cards_module_is_told_before_the_reboot(
    tmp_path: Path, following: str | None, modules: dict[str, bool], missing: tuple[Sample, ...]
) -> None:
    if following is not None:
        (tmp_path / "vmlinuz").symlink_to(f"boot/vmlinuz-{following}")
    for kernel, there in modules.items():
        (tmp_path / "lib/modules" / kernel).mkdir(parents=True)
        own = "updates/dkms/nvidia.ko.xz: kernel/drivers/video/x.ko\n" if there else ""
        text = f"kernel/drivers/nvidia-uvm.ko:\n{own}kernel/fs/ext4.ko: updates/dkms/nvidia.ko.xz\n"
        (tmp_path / "lib/modules" / kernel / "modules.dep").write_text(text)
    assert tuple(look._module_missing(tmp_path, "6.12.1")) == missing


EVERY_FIGURE = {
    "rig_engine_wanted",
    "rig_engine_loading",
    "rig_engine_on_gpu",
    "rig_model_changed",
    "rig_reboot_pending",
}
"""Of a machine without certificates and without a card."""


@pytest.mark.parametrize("hanging", ["systemctl", "nvidia-smi", "docker"])
def test_a_program_that_hangs_costs_its_own_figure_and_no_other(
    programs: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    hanging: str,
) -> None:
    monkeypatch.setattr(look, "TIMEOUT", 1)
    for name, script in (("systemctl", "exit 0"), ("nvidia-smi", "echo 11"), ("docker", "echo abc123")):
        programs(name, "exec sleep 600" if name == hanging else script)
    config = tmp_path / "metrics.json"
    config.write_text(dump(Config(str(tmp_path), "/nowhere", (CONTAINER,), ("one",), (), 0)))
    failed = cli.main(["--config", str(config)])
    written = (tmp_path / "rig_machine.prom").read_text()
    names = {line.split()[2] for line in written.splitlines() if line.startswith("# TYPE")}
    lost = "rig_engine_wanted" if hanging == "systemctl" else "rig_engine_on_gpu"
    told = capsys.readouterr().err
    assert names == EVERY_FIGURE - {lost}
    # A card that does not answer is told elsewhere.
    assert (failed, f"{lost} is left out" in told) == ((0, False) if hanging == "nvidia-smi" else (1, True))


def test_a_program_that_was_killed_and_is_still_there_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever killed it: a service of which each run is a new process knows nothing of the one before."""

    def process(pid: int, name: str, pending: int, state: str = "D (disk sleep)", threads: int = 1) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(
            f"Name:\t{name}\nState:\t{state}\nThreads:\t{threads}\nShdPnd:\t{pending:016x}\n"
        )

    process(11, "nvidia-smi", 0)
    process(12, "other", 1 << 8)
    process(13, "nvidia-smi", 1 << 14)
    process(15, "nvidia-smi", 1 << 8, "Z (zombie)")
    assert command.left_over("nvidia-smi", tmp_path) is None
    process(16, "nvidia-smi", 1 << 8, "Z (zombie)", threads=2)
    assert command.left_over("nvidia-smi", tmp_path) == 16
    shutil.rmtree(tmp_path / "16")
    process(14, "nvidia-smi", 1 << 8 | 1 << 14)
    assert command.left_over("nvidia-smi", tmp_path) == 14
    monkeypatch.setattr(command, "GRACE", 0.2)
    dying = iter([14, None])
    monkeypatch.setattr(command, "left_over", lambda name: next(dying))
    assert Command(60).run(["/bin/true"]).code == 0
    monkeypatch.setattr(command, "left_over", lambda name: 14)
    with pytest.raises(NoAnswer, match=r"an earlier true \(PID 14\) hangs and cannot be killed; reboot"):
        Command(1).run(["/bin/true"])


def test_this_machines_processes_can_be_looked_through() -> None:
    assert command.left_over("no-such-program") is None
