"""The gateway's configuration: what follows from the settings, without HAProxy."""

from __future__ import annotations

import json
import re

import pytest

from rig.firewall import exposures
from rig.gateway import haproxy
from rig.gateway.doors import asks, lists
from rig.gateway.log import FIELDS, FORMAT, UNPARSED
from rig.gateway.refusals import ERRORS, REFUSALS
from rig.gateway.times import LEAST, MOST, UNKNOWN, longest_answer
from rig.monitoring import prometheus
from rig.settings import Settings
from rigd.gateway.config import MAP
from tests.unit.sample import DIGEST, settings

REMOTE = {
    "gateway/remote/enabled": True,
    "gateway/remote/networks": ["10.8.0.0/24", "fd00::/8"],
    "gateway/remote/names": ["rig.example.org"],
    "gateway/remote/interface": "wg0",
}
VLLM = {
    "engines/three": {
        "runtime": "vllm",
        "image": f"example.org/vllm:v1@{DIGEST}",
        "model": "llama-3.1-8b-fp8",
        "port": 8005,
    }
}


def configuration(found: Settings) -> str:
    return haproxy.texts(found)["haproxy.cfg"]


def test_gateway_is_there_where_engines_are_unless_it_is_set_off() -> None:
    assert haproxy.packages(settings()) == ("haproxy",)
    assert haproxy.packages(settings({"gateway/enabled": False})) == ()
    assert haproxy.packages(settings({"engines": {}})) == ()


def test_without_remote_access_it_listens_on_loopback_and_sockets_only() -> None:
    binds = re.findall(r"^ *bind (\S+)", configuration(settings({"gateway/fallbacks": {"one": "two"}})), re.MULTILINE)
    assert binds
    assert [bind for bind in binds if not bind.startswith(("127.0.0.1:", "unix@/run/rig-gateway/"))] == []
    assert exposures(settings()) == []


def test_remote_access_is_encrypted_and_open_to_its_networks_by_its_interface_alone() -> None:
    found = settings(REMOTE)
    lines = [line.strip() for line in configuration(found).splitlines() if "8443" in line]
    binds = [line for line in lines if line.startswith("bind")]
    assert [" ssl crt /etc/rig/gateway-tls/remote.pem" in line for line in binds] == [True, True]
    assert "!{ src 10.8.0.0/24 fd00::/8 }" in next(line for line in lines if line.startswith("tcp-request"))
    (opened,) = exposures(found)
    assert (opened.port, opened.networks, opened.interface) == (8443, ("10.8.0.0/24", "fd00::/8"), "wg0")
    assert exposures(settings(REMOTE | {"gateway/enabled": False})) == []
    assert MAP in haproxy.made(found)
    assert haproxy.CERTIFICATE in haproxy.made(found)
    assert haproxy.CERTIFICATE in prometheus.watched(found).certificates


def test_fingerprint_follows_every_file_and_nothing_else() -> None:
    def mark(changes: dict[str, object] | None = None) -> str:
        return haproxy.fingerprint(haproxy.texts(settings(changes)))

    assert mark() == mark()
    assert re.fullmatch("[0-9a-f]{64}", mark())
    changed: list[dict[str, object]] = [
        {"gateway/port": 8081},
        {"gateway/routes": {"chat": {"one": 1}}},
        {"gateway/fallbacks": {"one": "two"}},
        {"gateway/input/patterns": [{"name": "x", "regex": "y"}]},
        {"gateway/body/request": "2M"},
    ]
    assert len({mark(), *(mark(changes) for changes in changed)}) == len(changed) + 1
    # Keys' limits are in the map, which rig-keys makes.
    assert mark({"gateway/limits/rate": 30}) == mark()


def test_every_door_is_of_an_enabled_engine_or_of_all() -> None:
    found = settings({"engines/two/enabled": False})
    assert asks(found) == [
        *(f"/v1/{ask}" for ask in ("chat/completions", "completions", "embeddings", "responses")),
        *(f"/engines/one/v1/{ask}" for ask in ("chat/completions", "completions", "embeddings", "responses")),
    ]
    assert lists(found) == ["/v1/models", "/engines/one/v1/models"]
    assert "engine_two" not in configuration(found)


def test_batches_have_no_door_before_there_is_a_batch_server() -> None:
    assert "str(batch)" not in haproxy.texts(settings())["haproxy.cfg"]
    assert "str(batch)" in haproxy.texts(settings(), batch=True)["haproxy.cfg"]


def test_answers_are_waited_for_as_long_as_the_hardware_may_need() -> None:
    found = settings({"engines/one/context": 8192})
    # 70B at 102.4 GB/s: 2.4 tokens/s at most, so that 8192 tokens take most of an hour.
    assert 3600 < longest_answer(found, "one") <= MOST
    assert longest_answer(settings({"engines/one/context": 256}), "one") >= LEAST
    unknown = settings({"models/catalogue/llama-3.3-70b-q4/shape": None})
    assert longest_answer(unknown, "one") == UNKNOWN
    text = configuration(found)
    assert f"hard-stop-after {longest_answer(found, 'one')}s" in text
    assert f"timeout server {longest_answer(found, 'one')}s" in text


def test_model_of_several_engines_is_the_first_ones_and_a_route_is_divided() -> None:
    same = {"engines/two/model": "llama-3.3-70b-q4", "gateway/routes": {"chat": {"one": 3, "two": 1}}}
    names = settings(same).served_names
    assert (list(names["llama-3.3-70b-q4"].engines), names["llama-3.3-70b-q4"].split) == (["one", "two"], False)
    assert (names["chat"].engines, names["chat"].split) == ({"one": 3, "two": 1}, True)


def test_vllm_takes_every_name_by_which_requests_come_to_it() -> None:
    routes = {"chat": {"three": 1}, "long": {"one": 1}, "other": {"two": 1}}
    found = settings(VLLM | {"gateway/fallbacks": {"one": "three"}, "gateway/routes": routes})
    assert found.aliases("three") == ("chat", "long", "llama-3.3-70b-q4")
    assert settings(VLLM).aliases("three") == ()


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_errors_in_the_shape_of_openais(name: str) -> None:
    refusal = REFUSALS[name]
    assert set(json.loads(refusal.body)["error"]) == {"message", "type", "param", "code"}
    assert 400 <= refusal.status < 500
    assert "'" not in refusal.body
    # A per cent sign outside of an expression would be HAProxy's.
    assert "%" not in re.sub(r"%\[[^]]*\]", "", refusal.body)
    assert (refusal.status == 429) == ("Retry-After" in refusal.headers)


def test_errors_of_haproxys_are_of_the_same_shape() -> None:
    assert {error.status for error in ERRORS} == {400, 408, 500, 502, 503, 504}
    assert all("code" in json.loads(error.body)["error"] for error in ERRORS)


def test_line_of_the_log_is_json_where_everything_is_unknown() -> None:
    unknown = re.sub(r"%\[var\([a-z_.]*,([a-z]+)\)\]", r"\1", FORMAT)
    unknown = re.sub(r"%\[[^]]*\]", "x", unknown).replace("%ST", "400").replace("%B", "0").replace("%Ta", "-1")
    assert list(json.loads(unknown.replace("%ts", "PR"))) == list(FIELDS)
    assert list(json.loads(re.sub(r"%\[[^]]*\]", "x", UNPARSED))) == list(FIELDS)


def test_pattern_is_one_word_of_a_map_and_matches_the_same() -> None:
    regex = "(?i)ignore [ #]+previous #1"
    text = haproxy.texts(settings({"gateway/input/patterns": [{"name": "x", "regex": regex}]}))["patterns.map"]
    key, name = text.split()
    assert name == "x"
    assert not key.startswith("#")
    for sample in ("Ignore  # previous #1", "ignore previous 1", "ignore#previous #1"):
        assert bool(re.search(key, sample)) == bool(re.search(regex, sample))
