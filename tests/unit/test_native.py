"""A native engine's ExecStart= gives exactly the intended words, and fingerprints tell texts apart."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.engines import modes, native
from rig.render import render
from rig.settings.engines import NativeEngine
from tests.unit.sample import examples, folder, needs, settings

CREDENTIAL = "/run/credentials/rig-native@two.service"
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n", "%%": "%", "$$": "$", "%d": CREDENTIAL}


def _words_of_systemd(line: str) -> list[str]:
    """systemd's words for a command line, by the rules of systemd.service(5) and systemd.syntax(7)."""
    words = []
    rest = line
    while rest := rest.lstrip(" "):
        quoted = re.match(r'"((?:[^"\\]|\\.)*)"(?= |$)', rest)
        plain = re.match(r'[^ "]+', rest)
        found = quoted or plain
        assert found, f"a stray quote in {rest!r}"
        text = quoted[1] if quoted else found[0]
        assert not re.search(r"(?<!\$)\$(?:\$\$)*(?!\$)", text), f"a variable in {text!r}"
        words.append(re.sub(r"\\.|%.|\$\$", lambda escape: UNESCAPED[escape[0]], text))
        rest = rest[found.end() :]
    return words


@pytest.mark.parametrize(
    "word",
    [
        "plain",
        "two words",
        'a "quote"',
        "back\\slash",
        "100%",
        "%d",
        "$HOME",
        "${HOME}",
        "$$",
        "",
        ";",
        "a\nb",
        "\\n",
        "'",
    ],
)
def test_a_word_arrives_as_it_is(word: str) -> None:
    line = native.exec_start(["/opt/server", word])
    assert _words_of_systemd(line) == ["/opt/server", word, "--api-key-file", f"{CREDENTIAL}/key"]


@examples
@given(words=st.lists(st.text("ab \\\"%$\n;'{}", max_size=6), max_size=4))
def test_any_words_arrive_as_they_are(words: list[str]) -> None:
    line = native.exec_start(["/opt/server", *words])
    assert "\n" not in line
    assert _words_of_systemd(line) == ["/opt/server", *words, "--api-key-file", f"{CREDENTIAL}/key"]


@needs("systemd-analyze")
def test_systemd_itself_finds_no_fault_with_an_awkward_command(tmp_path: Path) -> None:
    unit = tmp_path / "awkward.service"
    line = native.exec_start(["/bin/true", 'a "b" %d ${X} $Y \\ ;', ";", ""])
    unit.write_text(f"[Service]\nExecStart={line}\n", encoding="utf-8")
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "awkward.service" not in said.stderr


def _engine(**changes: object) -> tuple[list[str], NativeEngine]:
    made = settings({f"engines/two/{key}": value for key, value in changes.items()})
    engine = made.engines["two"]
    assert isinstance(engine, NativeEngine)
    return native.command_line(made, engine), engine


def test_the_program_comes_from_a_directory_named_by_its_hash() -> None:
    command, engine = _engine()
    assert command[0] == f"/opt/rig/llama.cpp/{'a' * 12}/bin/llama-server"
    assert str(native.directory(engine)) == f"/opt/rig/llama.cpp/{'a' * 12}"


def test_it_reads_the_models_where_they_lie_and_listens_on_its_address() -> None:
    command, _ = _engine(projector="qwen3-vl-4b-mmproj", address="127.0.0.3")
    assert f"{folder('llama-3.1-8b-q4')}/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf" in command
    assert f"{folder('qwen3-vl-4b-mmproj')}/mmproj-Qwen3VL-4B-Instruct-F16.gguf" in command
    assert command[command.index("--host") + 1] == "127.0.0.3"


def test_the_key_is_named_by_its_file_and_stands_in_no_argument() -> None:
    command, _ = _engine()
    assert not [word for word in command if "key" in word]
    assert native.exec_start(command).endswith(" --api-key-file %d/key")


def test_only_enabled_native_engines_are_services() -> None:
    assert list(native.engines(settings())) == ["two"]
    assert native.engines(settings({"engines/two/enabled": False})) == {}


@pytest.mark.parametrize(
    ("path", "hidden"), [("/home/models", True), ("/root/m", True), ("/mnt/models", False), ("/homes/m", False)]
)
def test_models_below_a_home_are_shown_to_the_server_and_nothing_else_of_it(path: str, hidden: bool) -> None:
    assert native.hidden(path) == hidden
    values = dict.fromkeys(("engine", "fingerprint", "timezone", "key", "exec_start", "memory", "cpu_percent"), "x")
    exclusion = modes.exclusion(settings(), "two")
    text = render(
        "/etc/systemd/system/rig-native@ENGINE.service.d/engine.conf",
        **values,
        models=path,
        in_home=hidden,
        markers=[],
        exclusion=exclusion,
        backup="/mnt/backup",
    )
    assert (f"ProtectHome=tmpfs\nBindReadOnlyPaths={path}\n" in text) == hidden


def test_a_fingerprint_tells_texts_apart_however_they_are_cut() -> None:
    made = {native.fingerprint(*texts) for texts in (("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("c", "ab"))}
    assert len(made) == 5
    assert native.fingerprint("ab", "c") == native.fingerprint("ab", "c")
