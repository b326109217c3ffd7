"""Concern containers: the engine runs as set, comes from the configured source, and restricts every container."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rig.settings import Settings, size_bytes
from tests.host.conftest import skip_stopped
from tests.host.machine import Machine

Inspected = dict[str, Any]


@pytest.fixture(scope="module")
def inspected(machine: Machine, settings: Settings, container: str) -> Inspected:
    """Docker's description of a container, without its environment, which has a key."""
    skip_stopped(machine, settings, container)
    parts = ("Id", "Image", "State", "HostConfig", "Mounts", "NetworkSettings", "RestartCount")
    config = ("Image", "User", "Labels")
    fields = [f'"{part}":{{{{json .{part}}}}}' for part in parts]
    fields.append('"Config":{' + ",".join(f'"{part}":{{{{json .Config.{part}}}}}' for part in config) + "}")
    found: Inspected = machine.json(f"docker inspect --format '{{{','.join(fields)}}}' rig-{container}")
    return found


def test_container_engine_runs_and_starts_at_boot(machine: Machine) -> None:
    assert machine.unit("docker.service", "ActiveState", "UnitFileState") == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
    }
    assert machine.run("docker version --format '{{.Server.Os}}'") == "linux"


def test_compose_is_of_the_second_generation(machine: Machine) -> None:
    assert int(machine.run("docker compose version --short").lstrip("v").split(".")[0]) >= 2


def _lacks(whole: Any, part: Any, path: str = "") -> list[str]:
    """Paths of values in ``part`` that ``whole`` lacks."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return [lack for key, value in part.items() for lack in _lacks(whole.get(key), value, f"{path}/{key}")]
    return [] if whole == part else [path]


def test_daemon_json_holds_what_the_settings_say(machine: Machine, settings: Settings) -> None:
    assert _lacks(machine.json("cat /etc/docker/daemon.json"), settings.containers.daemon) == []
    assert machine.stat("/etc/docker/daemon.json") == "644 root root"


def test_daemon_runs_with_what_the_settings_say(machine: Machine, settings: Settings) -> None:
    info = machine.json("docker info --format '{{json .}}'")
    daemon = settings.containers.daemon
    if "live-restore" in daemon:
        assert info["LiveRestoreEnabled"] == daemon["live-restore"]
    if "log-driver" in daemon:
        assert info["LoggingDriver"] == daemon["log-driver"]
    changed = machine.run("stat -c %Z /etc/docker/daemon.json")
    started = machine.run('date +%s -d "$(systemctl show --property=ActiveEnterTimestamp --value docker.service)"')
    assert int(started) >= int(changed), "daemon.json changed after the daemon started"


def test_nobody_reaches_the_daemon_over_the_network(machine: Machine) -> None:
    assert [name for name in machine.listeners.values() if "dockerd" in name] == []
    assert machine.run("stat -c '%a %U %G' /run/docker.sock") == "660 root docker"


def test_container_engine_comes_from_where_the_settings_say(machine: Machine, settings: Settings) -> None:
    owner = machine.run('dpkg-query --search "$(readlink -f /usr/bin/dockerd /usr/sbin/dockerd | tail -n 1)"')
    package = owner.split(":")[0]
    if settings.containers.source == "distribution":
        assert package == "docker.io"
        return
    assert package == "docker-ce"
    policy = machine.run("apt-cache policy docker-ce")
    installed = policy[policy.index(" *** ") :].splitlines()[1:]
    origins = [line for line in installed[:4] if "://" in line or "/" in line]
    assert any(settings.containers.vendor.repository in line for line in origins), policy


def test_container_engine_is_of_the_version_of_the_settings(machine: Machine, settings: Settings) -> None:
    """By the daemon's own version: the upstream version, without a distribution's suffix."""
    wanted = settings.containers.version
    if wanted is None:
        pytest.skip("the settings name none")
    upstream = wanted.rpartition(":")[2].partition("-")[0].partition("+")[0]
    runs = machine.run("docker version --format '{{.Server.Version}}'").partition("+")[0]
    assert runs == upstream or runs.startswith(f"{upstream}.")


def _signed_by(machine: Machine, settings: Settings) -> set[str]:
    """Key rings that verify the vendor's lists, from the sources that apt itself reports for them.

    Debian 12's apt does not report the ring (SIGNED_BY), so the source's own entry gives it.
    """
    targets = machine.lines("apt-get indextargets --format '$(REPO_URI) $(SOURCESENTRY)|$(TRUSTED)'")
    ours = [line.split(" ", 1)[1] for line in targets if line.startswith(settings.containers.vendor.repository)]
    assert ours, "apt knows no list of the vendor's repository"
    assert {line.partition("|")[2] for line in ours} == {"yes"}, "apt could not verify the signature of its lists"
    files = {line.partition("|")[0].rpartition(":")[0] for line in ours}
    return set(machine.lines(f"sed -n 's/^Signed-By: *//p' {shlex.join(sorted(files))}"))


def test_vendors_repository_is_checked_with_a_key_ring_of_its_own(machine: Machine, settings: Settings) -> None:
    if settings.containers.source == "vendor":
        (ring,) = _signed_by(machine, settings)
        assert machine.stat(ring) == "644 root root"
        assert machine.lines("ls /etc/apt/trusted.gpg.d/*docker* 2>/dev/null || true") == []


def test_no_package_source_is_believed_without_a_signature(machine: Machine) -> None:
    search = "grep --recursive --ignore-case --extended-regexp '^ *trusted: *yes|trusted *= *yes'"
    assert machine.lines(f"{search} /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true") == []


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg, which reads fingerprints, is not installed here")
def test_key_ring_holds_the_pinned_keys_and_no_other(machine: Machine, settings: Settings, tmp_path: Path) -> None:
    if settings.containers.source == "vendor":
        (ring,) = _signed_by(machine, settings)
        shown = subprocess.run(
            ["gpg", "--homedir", str(tmp_path), "--batch", "--show-keys", "--with-colons"],
            input=machine.run(f"cat {ring}") + "\n",
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        rows = [line.split(":") for line in shown.splitlines()]
        primary = {rows[at + 1][9] for at, row in enumerate(rows) if row[0] == "pub"}
        assert primary
        assert primary <= set(settings.containers.vendor.key_fingerprints)


def test_only_containers_of_the_settings_run(machine: Machine, settings: Settings) -> None:
    shown = "docker ps {} --filter label=rig.engine --format '{{{{.Names}}}}'"
    ours, running = (machine.lines(shown.format(which)) for which in ("--all", ""))
    kept = {f"rig-{name}" for name, engine in settings.enabled_engines.items() if engine.runtime != "native"}
    wanted = [f"rig-{name}" for name in machine.running(settings)]
    assert sorted(running) == sorted(name for name in wanted if name in kept)
    assert set(ours) <= kept


def test_container_runs_and_is_healthy(machine: Machine, container: str) -> None:
    """A daemon that was just restarted has no verdict on a running container before its next health check."""
    shown = f"docker inspect --format '{{{{.State.Status}}}} {{{{.State.Health.Status}}}}' rig-{container}"
    waiting = f'while [ "$({shown})" = "running starting" ]; do sleep 0.5; done'
    assert machine.run(f"timeout 30 sh -c {shlex.quote(waiting)}; {shown}") == "running healthy"


def test_container_runs_the_image_of_the_settings(
    machine: Machine, settings: Settings, container: str, inspected: Inspected
) -> None:
    """By the digest of the running image, whatever its name."""
    image = getattr(settings.engines[container], "image", None)
    assert image is not None
    digest = image.partition("@")[2]
    digests = machine.json(f"docker image inspect --format '{{{{json .RepoDigests}}}}' {inspected['Image']}")
    assert digest in [known.partition("@")[2] for known in digests]
    assert inspected["Config"]["Image"] == image


def test_container_is_hardened(inspected: Inspected) -> None:
    configured = inspected["HostConfig"]
    assert configured["ReadonlyRootfs"] is True
    assert configured["CapDrop"] == ["ALL"]
    assert not configured["CapAdd"]
    assert configured["Privileged"] is False
    assert [option for option in configured["SecurityOpt"] if re.fullmatch("no-new-privileges([:=]true)?", option)]
    assert not [option for option in configured["SecurityOpt"] if "unconfined" in option]
    assert configured["PidMode"] == ""
    assert configured["IpcMode"] in ("", "private")
    assert configured["UsernsMode"] != "host"
    assert not configured["Devices"]
    assert configured["NetworkMode"] not in ("host", "bridge")


def test_container_is_on_its_own_network_and_no_other(inspected: Inspected) -> None:
    assert list(inspected["NetworkSettings"]["Networks"]) == ["rig_rig"]


def test_container_is_started_again_after_a_failure_alone(inspected: Inspected) -> None:
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"


def test_container_does_not_run_as_root(settings: Settings, container: str, inspected: Inspected) -> None:
    user, _, group = inspected["Config"]["User"].partition(":")
    assert int(user) > 0
    # vLLM's image was made for a user of group 0, which has only the rights that the image gives to the group.
    assert int(group) > 0 or settings.engines[container].runtime == "vllm"


def test_container_is_asked_to_keep_the_limits_of_the_settings(
    machine: Machine, settings: Settings, container: str
) -> None:
    """In compose's own reading of its file, because a kernel without such limits leaves no trace of them in a
    container."""
    shown = machine.json("docker compose --file /etc/rig/compose.yaml config --no-interpolate --format json")
    service, engine = shown["services"][container], settings.engines[container]
    for limit in ("mem_limit", "memswap_limit"):
        assert size_bytes(str(service[limit]).upper()) == size_bytes(engine.memory)
    assert service["cpu_quota"] / service["cpu_period"] == pytest.approx(engine.cpus)
    assert service["pids_limit"] > 0


def test_container_is_held_to_its_limits(
    machine: Machine, settings: Settings, container: str, inspected: Inspected
) -> None:
    able = machine.json("docker info --format '[{{.MemoryLimit}},{{.SwapLimit}},{{.CPUCfsQuota}},{{.PidsLimit}}]'")
    if not all(able):
        pytest.skip("the kernel of this machine cannot limit memory, processors and processes of a container")
    engine, configured = settings.engines[container], inspected["HostConfig"]
    assert configured["Memory"] == configured["MemorySwap"] == size_bytes(engine.memory)
    assert configured["CpuQuota"] / configured["CpuPeriod"] == pytest.approx(engine.cpus)
    assert configured["PidsLimit"] > 0


def test_container_is_published_on_loopback_alone(settings: Settings, container: str, inspected: Inspected) -> None:
    engine = settings.engines[container]
    expected = [{"HostIp": engine.address, "HostPort": str(engine.port)}]
    assert inspected["HostConfig"]["PortBindings"] == {f"{engine.port}/tcp": expected}
    assert inspected["HostConfig"]["PublishAllPorts"] is False
    published = [binding for bindings in inspected["NetworkSettings"]["Ports"].values() for binding in bindings or ()]
    assert published == expected


def test_container_sees_its_models_and_cannot_change_them(
    settings: Settings, container: str, inspected: Inspected
) -> None:
    engine = settings.engines[container]
    wanted = {str(settings.model_folder(name)) for name in engine.model_names}
    kept = {f"/var/lib/rig/caches/{container}"} if engine.runtime == "vllm" else set()
    assert {mount["Source"] for mount in inspected["Mounts"] if mount["Type"] == "bind"} == wanted | kept
    writable = [mount for mount in inspected["Mounts"] if mount["RW"] and mount["Type"] != "tmpfs"]
    assert {mount["Source"] for mount in writable} == kept


def test_container_has_the_time_zone_of_the_settings(machine: Machine, settings: Settings, container: str) -> None:
    zone = "docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}'"
    assert machine.run(f"{zone} rig-{container} | grep ^TZ=") == f"TZ={settings.machine.timezone}"


def test_containers_process_has_no_privilege_and_can_get_none(
    machine: Machine, settings: Settings, container: str, inspected: Inspected
) -> None:
    status = machine.process(str(inspected["State"]["Pid"]))
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split() or settings.engines[container].runtime == "vllm"
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_container_cannot_write_to_its_own_file_system(machine: Machine, inspected: Inspected) -> None:
    """By the kernel: the mount that the process sees as its root is read-only."""
    mounts = machine.lines(f"cat /proc/{inspected['State']['Pid']}/mountinfo")
    (root,) = [line.split()[5] for line in mounts if line.split()[4] == "/"]
    assert "ro" in root.split(",")
