"""The compose file hardens every container, gives it its own key alone, and changes for its own settings only."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from rig.engines import compose
from rig.render import render
from rig.settings import Settings
from rig.settings.engines import ContainerEngine
from tests.unit.sample import IMAGE, folder, settings

SECOND = {"runtime": "container", "image": IMAGE, "model": "qwen3-vl-4b-q4", "port": 8010}


def _two(changes: dict[str, Any] | None = None) -> Settings:
    return settings({"engines/other-one": SECOND, **(changes or {})})


def _service(changes: dict[str, Any] | None = None, name: str = "one") -> dict[str, Any]:
    service: dict[str, Any] = compose.document(_two(changes))["services"][name]
    return service


def _fingerprint(made: Settings, name: str) -> str:
    engine = made.engines[name]
    assert isinstance(engine, ContainerEngine)
    return compose.fingerprint(made, name, engine)


@pytest.mark.parametrize("name", ["one", "other-one"])
def test_every_container_is_hardened(name: str) -> None:
    service = _service(name=name)
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges=true"]
    assert service["pids_limit"] > 0
    assert not {"cap_add", "privileged", "network_mode", "pid", "ipc", "devices", "env_file"} & set(service)
    assert all(volume["read_only"] for volume in service["volumes"])


def test_a_container_is_published_on_loopback_and_nowhere_else() -> None:
    assert _service()["ports"] == ["127.0.0.1:8002:8002"]
    assert _service({"engines/one/address": "127.0.0.5"})["ports"] == ["127.0.0.5:8002:8002"]


def test_limits_and_time_zone_are_those_of_the_settings() -> None:
    changes = {"engines/one/memory": "3G", "engines/one/cpus": 1.5, "machine/timezone": "Europe/Paris"}
    service = _service(changes)
    assert service["mem_limit"] == service["memswap_limit"] == "3g"
    assert service["cpu_quota"] / service["cpu_period"] == 1.5
    assert service["environment"]["TZ"] == "Europe/Paris"


def test_the_image_is_named_by_its_digest() -> None:
    assert _service()["image"] == IMAGE


def test_a_container_sees_the_folders_of_its_own_models_and_no_other() -> None:
    assert [volume["source"] for volume in _service()["volumes"]] == [folder("llama-3.3-70b-q4")]
    seeing = _service({"engines/one/projector": "qwen3-vl-4b-mmproj"})
    assert [volume["source"] for volume in seeing["volumes"]] == [
        folder("llama-3.3-70b-q4"),
        folder("qwen3-vl-4b-mmproj"),
    ]


def test_a_container_gets_its_own_key_by_name_and_no_other() -> None:
    service = json.dumps(_service(name="other-one"))
    assert "${RIG_KEY_OTHER_ONE:?" in service
    assert "RIG_KEY_ONE" not in service
    assert service.count("RIG_KEY_") == 1


def test_no_key_is_an_argument() -> None:
    assert not [argument for argument in _service()["command"] if "KEY" in argument.upper()]


def test_engines_that_are_native_or_not_enabled_have_no_container() -> None:
    made = _two({"engines/other-one/enabled": False} | {"engines/other-one": SECOND | {"enabled": False}})
    assert list(compose.document(made)["services"]) == ["one"]


def test_the_network_has_the_name_that_the_firewall_knows() -> None:
    (network,) = compose.document(_two())["networks"].values()
    assert network["driver_opts"]["com.docker.network.bridge.name"] == compose.BRIDGE
    assert len(compose.BRIDGE) < 16


VLLM = {
    "runtime": "vllm",
    "image": IMAGE,
    "model": "llama-3.1-8b-fp8",
    "port": 8000,
    "sequences": 32,
    "cpus": 4,
}


def _vllm(**changes: Any) -> dict[str, Any]:
    return _service({"engines/card": {**VLLM, **changes}}, "card")


def _option(service: dict[str, Any], option: str) -> str:
    command: list[str] = service["command"]
    assert command.count(option) == 1
    return command[command.index(option) + 1]


def test_vllm_is_hardened_as_everything_else_and_has_what_it_needs_to_start() -> None:
    service = _vllm()
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges=true"]
    # The one user that the image was made for, and places to write that are not the image.
    assert service["user"] == "2000:0"
    assert service["environment"]["HOME"] == "/home/vllm"
    assert service["tmpfs"] == ["/tmp:exec,size=2g,mode=1777"]
    assert service["shm_size"] == "2g"
    assert [(v["source"], v["target"]) for v in service["volumes"] if not v["read_only"]] == [
        ("/var/lib/rig/caches/card", "/home/vllm/.cache")
    ]


def test_vllm_serves_what_the_settings_say() -> None:
    service = _vllm(context=4096, gpu_utilization=0.85, kv_cache="fp8", arguments=["--enforce-eager"])
    assert service["entrypoint"] == ["vllm", "serve"]
    assert service["command"][0] == "/models/llama-3.1-8b-fp8"
    expected = {
        "--served-model-name": "llama-3.1-8b-fp8",
        "--host": "0.0.0.0",
        "--port": "8000",
        "--max-model-len": "4096",
        "--max-num-seqs": "32",
        "--gpu-memory-utilization": "0.85",
        "--kv-cache-dtype": "fp8",
    }
    assert {option: _option(service, option) for option in expected} == expected
    assert service["command"][-1] == "--enforce-eager"
    assert "--quantization" not in service["command"]


def test_vllms_key_is_in_its_environment_and_in_no_argument_and_it_asks_no_hub() -> None:
    service = _vllm()
    assert service["environment"]["VLLM_API_KEY"].startswith("${RIG_KEY_CARD:?")
    assert not [word for word in service["command"] if "key" in word]
    assert service["environment"]["HF_HUB_OFFLINE"] == "1"


def test_an_engine_gets_the_graphics_card_by_its_cdi_name_exactly_when_it_computes_there() -> None:
    asked = {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]}
    for service in (_vllm(), _service({"engines/one/gpu_layers": 25})):
        assert service["deploy"]["resources"]["reservations"]["devices"] == [asked]
    assert "deploy" not in _service()


def test_weights_that_are_locked_in_ram_count_against_no_limit_of_locked_memory() -> None:
    assert "memlock" not in _service()["ulimits"]
    assert _service({"engines/one/arguments": ["--load-mode", "mlock"]})["ulimits"]["memlock"] == -1


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--api-key=x", "is already passed, from the key that secrets generates"),
        ("--max_model_len", "is already passed, from context"),
        ("--quantization", "must not be passed: the checkpoint says how it is quantized"),
        ("--trust-remote-code", "must not be passed"),
    ],
)
def test_arguments_of_vllm_that_the_deploy_decides_are_refused(argument: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _vllm(arguments=[argument])


def test_every_service_carries_the_fingerprint_by_which_it_is_found_current() -> None:
    made = _two()
    for name in ("one", "other-one"):
        assert compose.document(made)["services"][name]["labels"]["rig.settings"] == _fingerprint(made, name)


OWN_CHANGES: dict[str, dict[str, Any]] = {
    "image": {"engines/one/image": IMAGE.replace("d", "e")},
    "model": {"engines/one/model": "llama-3.1-8b-q4"},
    "projector": {"engines/one/projector": "qwen3-vl-4b-mmproj"},
    "address": {"engines/one/address": "127.0.0.2"},
    "port": {"engines/one/port": 8020},
    "context": {"engines/one/context": 512},
    "sequences": {"engines/one/sequences": 2},
    "threads": {"engines/one/threads": 3},
    "memory": {"engines/one/memory": "1G"},
    "cpus": {"engines/one/cpus": 1},
    "health_timeout": {"engines/one/health_timeout": 30},
    "arguments": {"engines/one/arguments": ["--mlock"]},
}
OTHERS_CHANGES: dict[str, dict[str, Any]] = {
    "another engine's limits": {"engines/other-one/memory": "1G"},
    "another engine's retirement": {"engines/other-one": SECOND | {"enabled": False}},
    "a native engine": {"engines/two/context": 512},
    "the hub": {"models/hub": "http://example.org"},
    "another model of the catalogue": {"models/catalogue/llama-3.1-8b-q4/revision": "main"},
    "the firewall": {"firewall/enabled": False},
    "the packages": {"machine/packages": []},
    "a consumer": {"secrets/consumers": ["web-ui"]},
    "daemon.json": {"containers/daemon": {}},
}


@pytest.mark.parametrize("changes", OWN_CHANGES.values(), ids=OWN_CHANGES)
def test_a_setting_of_an_engine_changes_its_fingerprint_and_no_others(changes: dict[str, Any]) -> None:
    assert _fingerprint(_two(changes), "one") != _fingerprint(_two(), "one")
    assert _fingerprint(_two(changes), "other-one") == _fingerprint(_two(), "other-one")


@pytest.mark.parametrize("changes", OTHERS_CHANGES.values(), ids=OTHERS_CHANGES)
def test_nothing_else_changes_an_engines_fingerprint(changes: dict[str, Any]) -> None:
    assert _fingerprint(_two(changes), "one") == _fingerprint(_two(), "one")


def test_a_time_zone_is_seen_by_every_engine() -> None:
    changed = _two({"machine/timezone": "Asia/Tokyo"})
    for name in ("one", "other-one"):
        assert _fingerprint(changed, name) != _fingerprint(_two(), name)


def test_the_content_of_a_served_model_changes_the_fingerprint() -> None:
    """Same name, other bytes: without this the engine would go on serving the old file."""
    changes = {"models/catalogue/llama-3.3-70b-q4/sha256": "0" * 64}
    assert _fingerprint(_two(changes), "one") != _fingerprint(_two(), "one")
    assert _fingerprint(_two(changes), "other-one") == _fingerprint(_two(), "other-one")


def test_the_written_file_says_exactly_what_was_computed() -> None:
    document = compose.document(_two())
    assert yaml.safe_load(render("/etc/rig/compose.yaml", compose=document)) == document
