"""`rig lock`: the hub's answers go into the YAML, and everything else stays as it was typed."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab.hub
from rig.models import lock
from rig.models.lock import CannotLock, Pin, Pinned
from rig.settings import SettingsError
from rig.settings.tree import parse
from tests.unit.fetching import REPOSITORY, REVISION, Hub, serving
from tests.unit.project import Project

CONTENT = b"model" * 100
SHA = hashlib.sha256(CONTENT).hexdigest()
PIN = Pin(REVISION, (Pinned("model.gguf", len(CONTENT), SHA),))
TEXT = f"""# Mine.
models:
  hub: HUB
  catalogue:
    # The first.
    first:
      repository: {REPOSITORY}   # theirs
      revision: main # moves
      file: model.gguf
      size: 1
      sha256: {"0" * 64}
    second:
      repository: {REPOSITORY}
      file: model.gguf
    third:
      repository: a/b
      revision: {"c" * 40}
      file: x.gguf
      size: 1
      sha256: {"0" * 64}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "model").write_bytes(CONTENT)
    with serving() as running:
        running.publish(tmp_path / "model", "model.gguf")
        yield running


def _lock(
    project: Project, hub: Hub, *arguments: str, text: str = TEXT, **options: str
) -> subprocess.CompletedProcess[str]:
    (project.root / "group_data" / "mine.yml").write_text(text.replace("HUB", hub.address))
    return project.rig("lock", "--file", "group_data/mine.yml", *arguments, **options)


def _written(project: Project) -> str:
    return (project.root / "group_data" / "mine.yml").read_text()


def test_what_is_not_pinned_is_pinned_and_all_else_stays(project: Project, hub: Hub) -> None:
    done = _lock(project, hub, "--yes")
    assert done.returncode == 0, done.stderr
    pinned = f"      size: {len(CONTENT)}\n      sha256: {SHA}\n"
    expected = TEXT.replace("HUB", hub.address)
    expected = expected.replace("revision: main # moves", f"revision: {REVISION} # moves")
    first, second = f"      size: 1\n      sha256: {'0' * 64}\n    second", "      file: model.gguf\n    third"
    before = f"        revision: main\n        file: model.gguf\n        size: 1\n        sha256: {'0' * 64}\n"
    expected = expected.replace(first, f"{pinned}      previous:\n{before}    second")
    expected = expected.replace(second, f"      file: model.gguf\n      revision: {REVISION}\n{pinned}    third")
    assert _written(project) == expected
    assert f"+      sha256: {SHA}" in done.stdout
    assert hub.sent == 0


def test_nothing_is_written_without_a_yes(project: Project, hub: Hub) -> None:
    done = _lock(project, hub)
    assert done.returncode == 1
    assert "Write this?" in done.stdout
    assert _written(project) == TEXT.replace("HUB", hub.address)


def test_a_file_behind_a_link_stays_there_with_its_mode(project: Project, hub: Hub, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.yml"
    theirs.write_text(TEXT.replace("HUB", hub.address))
    theirs.chmod(0o640)
    (project.root / "group_data" / "mine.yml").symlink_to(theirs)
    done = project.rig("lock", "--file", "group_data/mine.yml", "--yes")
    assert done.returncode == 0, done.stderr
    assert (project.root / "group_data" / "mine.yml").is_symlink()
    assert SHA in theirs.read_text()
    assert theirs.stat().st_mode & 0o777 == 0o640


def test_what_is_pinned_is_left_alone_until_it_is_named(project: Project, hub: Hub) -> None:
    assert _lock(project, hub, "--yes").returncode == 0
    text = _written(project)
    assert "all is pinned" in _lock(project, hub, "--yes", text=text).stdout
    assert "the hub has what is pinned" in _lock(project, hub, "first", "--revision", "main", text=text).stdout


def test_a_file_that_names_no_hub_means_that_of_all_yml(project: Project, hub: Hub) -> None:
    project.change("all.yml", "  hub: https://huggingface.co", f"  hub: {hub.address}")
    done = _lock(project, hub, "--yes", text=TEXT.replace("  hub: HUB\n", ""))
    assert done.returncode == 0, done.stderr
    assert SHA in _written(project)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fourth"], 2, "has no fourth"),
        (["third"], 1, "answers 404 for x.gguf of a/b at cccc"),
    ],
)
def test_what_cannot_be_pinned_is_told(
    project: Project, hub: Hub, arguments: list[str], code: int, sentence: str
) -> None:
    done = _lock(project, hub, *arguments)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert _written(project) == TEXT.replace("HUB", hub.address)


@pytest.mark.parametrize("token", ["hf_secret\n", "hf_secret \u2019"])
def test_a_token_that_cannot_be_one_is_refused_and_not_shown(project: Project, hub: Hub, token: str) -> None:
    done = _lock(project, hub, "--yes", HF_TOKEN=token)
    assert done.returncode == 2
    assert done.stderr == "HF_TOKEN holds a blank, a line break or a letter that no token has; set it again\n"


def test_a_hub_that_does_not_answer_is_told(project: Project, hub: Hub) -> None:
    done = _lock(project, hub, text=TEXT.replace("HUB", "http://127.0.0.1:1"))
    assert done.returncode == 1
    assert "does not answer" in done.stderr


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_gated_repository_is_told_with_its_licence_and_locked_with_a_token(
    project: Project, hub: Hub, monkeypatch: pytest.MonkeyPatch, status: HTTPStatus
) -> None:
    resolve = lab.hub.Handler._resolve

    def gated(self: lab.hub.Handler, *asked: str) -> None:
        if self.headers.get("Authorization") == "Bearer hf_secret":
            resolve(self, *asked)
        else:
            self._refuse(status, "gated")

    monkeypatch.setattr(lab.hub.Handler, "_resolve", gated)
    done = _lock(project, hub, "--yes")
    assert done.returncode == 1
    assert f"accept its licence at {hub.address}/{REPOSITORY}, and set HF_TOKEN" in done.stderr
    # Which requests would otherwise send in its place.
    netrc = project.root / "netrc"
    netrc.write_text("default login owner password other\n")
    done = _lock(project, hub, "--yes", HF_TOKEN="hf_secret", NETRC=str(netrc))
    assert done.returncode == 0
    assert SHA in _written(project)
    assert "hf_secret" not in done.stdout + done.stderr + _written(project)


def _entry(text: str, name: str = "first") -> lock.Entry:
    (entry,) = lock.entries(parse(text, "all.yml"), [name])
    return entry


def _refusing(status: int, headers: dict[str, str], times: int) -> Any:
    """A hub that gives this answer that often, and then correct ones."""
    real = lab.hub.Handler._resolve
    left = [None] * times

    def _resolve(self: lab.hub.Handler, *asked: str) -> None:
        if not left:
            real(self, *asked)
            return
        left.pop()
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    return _resolve


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_left_alone_as_long_as_it_says_and_then_pinned_from(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("rig.models.lock.time.sleep", waits.append)
    monkeypatch.setattr(lab.hub.Handler, "_resolve", _refusing(status, {"RateLimit": '"api";r=0;t=55'}, 2))
    assert lock.ask(hub.address, _entry(TEXT), None, None) == PIN
    assert waits == [55, 55]


@pytest.mark.parametrize(("headers", "waited"), [({"Retry-After": "3600"}, 0), ({"Retry-After": "9"}, 27)])
def test_a_hub_that_stays_busy_is_told_with_the_time_to_come_back(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], waited: float
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("rig.models.lock.time.sleep", waits.append)
    monkeypatch.setattr(lab.hub.Handler, "_resolve", _refusing(429, headers, 99))
    wanted = headers["Retry-After"]
    with pytest.raises(CannotLock, match=rf"is busy \(429\); run this again in {wanted} s or later"):
        lock.ask(hub.address, _entry(TEXT), None, None)
    assert sum(waits) == waited


@pytest.mark.parametrize("status", [301, 307])
def test_a_renamed_repository_is_told_with_its_new_name(hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    where = {"Location": f"/new/name/resolve/{REVISION}/model.gguf"}
    monkeypatch.setattr(lab.hub.Handler, "_resolve", _refusing(status, where, 99))
    with pytest.raises(CannotLock, match=f"{REPOSITORY} is called new/name now; write that as its repository"):
        lock.ask(hub.address, _entry(TEXT), None, None)


def test_a_repository_that_does_not_exist_is_not_taken_for_a_gated_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.hub.Handler, "_resolve", _refusing(401, {"X-Error-Code": "RepoNotFound"}, 99))
    with pytest.raises(CannotLock, match=f"the hub has no repository {REPOSITORY}, or it is private") as refused:
        lock.ask(hub.address, _entry(TEXT), None, None)
    assert "licence" not in str(refused.value)


PARTS = f"""models:
  hub: HUB
  catalogue:
    big:
      repository: {REPOSITORY}
      revision: main
      file: Q4_K_M/big-00001-of-00003.gguf
      size: 9000 # about
      files: []
      shape: null
"""


@pytest.mark.parametrize("text", [PARTS, PARTS.replace("      files: []\n", "")], ids=["files: []", "no files"])
def test_all_parts_of_a_model_are_pinned_as_one(project: Project, hub: Hub, tmp_path: Path, text: str) -> None:
    names = [f"Q4_K_M/big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        (tmp_path / "part").mkdir(exist_ok=True)
        path = tmp_path / "part" / Path(name).name
        path.write_bytes(name.encode())
        hub.publish(path, name)
    done = _lock(project, hub, "--yes", text=text)
    assert done.returncode == 0, done.stderr
    entry = yaml.safe_load(_written(project))["models"]["catalogue"]["big"]
    assert entry["files"] == [
        {"file": name, "size": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names
    ]
    assert (entry["revision"], entry["size"], entry["file"]) == (REVISION, sum(map(len, names)), names[0])
    assert hub.sent == 0
    assert "all is pinned" in _lock(project, hub, "--yes", text=_written(project)).stdout


def test_a_part_that_the_hub_lacks_is_named(project: Project, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"first")
    hub.publish(tmp_path / "part", "Q4_K_M/big-00001-of-00003.gguf")
    done = _lock(project, hub, "--yes", text=PARTS)
    assert done.returncode == 1
    assert "answers 404 for Q4_K_M/big-00002-of-00003.gguf" in done.stderr


def test_an_entry_on_one_line_is_pinned_on_its_line() -> None:
    text = "models:\n  catalogue:\n    one: {repository: a/b, file: model.gguf} # mine\n    two:   {x:   1}\n"
    (entry,) = [entry for entry in lock.entries(parse(text, "all.yml"), []) if entry.name == "one"]
    after = lock.edited(text, entry, PIN)
    assert yaml.safe_load(after)["models"]["catalogue"]["one"] == {
        "repository": "a/b",
        "file": "model.gguf",
        "revision": PIN.revision,
        "size": PIN.size,
        "sha256": SHA,
    }
    assert after.count("\n") == text.count("\n")
    assert "} # mine\n    two:   {x:   1}\n" in after


def test_lines_outside_the_entry_keep_every_blank_and_quote() -> None:
    odd = "machine:   {cores: 0x10,   zone:  'x'}\nnothing: ~\n\n\n"
    behind = "\n\n    # about two\n    two:\n          repository: 'c/d'\n\n\n"
    text = f"{odd}models:\n  catalogue:\n    one:\n      repository: a/b\n      file: model.gguf{behind}"
    after = _edited(text, PIN)
    assert after.startswith(f"{odd}models:\n  catalogue:\n    one:\n      repository: a/b\n      file: model.gguf\n")
    assert after.endswith(f"sha256: {SHA}{behind}")


def test_an_entry_that_is_another_ones_copy_is_refused_with_its_place() -> None:
    text = "models:\n  catalogue:\n    zero: &zero\n      repository: a/b\n      file: model.gguf\n    one: *zero\n"
    with pytest.raises((CannotLock, SettingsError), match=r"all\.yml:\d+: "):
        _edited(text, PIN)


def test_the_shipped_settings_lack_only_what_could_not_be_looked_up(project: Project) -> None:
    tree = parse((project.root / "group_data" / "all.yml").read_text(), "all.yml")
    assert [entry.name for entry in lock.entries(tree, [])] == [
        "qwen3-embedding-0.6b-q8",
        *("gpt-oss-20b", "qwen3-30b-a3b-q4", "gemma-3-12b-q4", "qwen3-14b-q4"),
        "llama-3.1-8b-fp8",
    ]


# Another version


def _pinned(content: bytes, revision: str = "d" * 40) -> Pin:
    return Pin(revision, (Pinned("model.gguf", len(content), hashlib.sha256(content).hexdigest()),))


def _edited(text: str, pin: Pin) -> str:
    (entry,) = lock.entries(parse(text, "all.yml"), ["one"])
    return lock.edited(text, entry, pin)


ONE = f"""models:
  catalogue:
    one:   # mine
      repository: a/b
      revision: {REVISION} # of March
      # The only one.
      file: model.gguf
      size: {len(CONTENT)}
      sha256: {SHA}

      shape: null
    # Not part of it.
    two:
      repository: c/d
"""


def test_the_version_that_was_pinned_is_kept_to_go_back_to() -> None:
    text = _edited(ONE, _pinned(b"new"))
    one = yaml.safe_load(text)["models"]["catalogue"]["one"]
    assert one["previous"] == {"revision": REVISION, "file": "model.gguf", "size": len(CONTENT), "sha256": SHA}
    assert (one["revision"], one["size"]) == ("d" * 40, 3)
    assert one["sha256"] == hashlib.sha256(b"new").hexdigest()
    assert [line for line in ONE.splitlines() if "#" in line and "of March" not in line] == [
        line for line in text.splitlines() if "#" in line and "of March" not in line
    ]
    assert f"      revision: {'d' * 40} # of March\n" in text


def test_of_three_versions_the_last_two_stay_and_the_newest_is_used() -> None:
    text = _edited(_edited(ONE, _pinned(b"new")).replace("shape: null", "use: current"), _pinned(b"newest", "e" * 40))
    one = yaml.safe_load(text)["models"]["catalogue"]["one"]
    assert (one["size"], one["previous"]["size"], one["use"]) == (6, 3, "current")
    assert "previous" not in one["previous"]
    assert text.count("previous:") == 1
    assert yaml.safe_load(text)["models"]["catalogue"]["two"] == {"repository": "c/d"}


def test_the_same_version_again_changes_nothing() -> None:
    assert _edited(ONE, PIN) == ONE


def test_the_version_that_was_gone_back_to_is_the_one_that_is_kept() -> None:
    bad = _edited(ONE, _pinned(b"bad")).replace("shape: null", "use: previous")
    one = yaml.safe_load(_edited(bad, _pinned(b"newest", "e" * 40)))["models"]["catalogue"]["one"]
    assert (one["size"], one["use"]) == (6, "current")
    assert one["previous"] == {"revision": REVISION, "file": "model.gguf", "size": len(CONTENT), "sha256": SHA}


def test_what_has_a_hash_is_a_version_to_go_back_to_without_a_commit_too() -> None:
    text = _edited(ONE.replace(REVISION, "main"), _pinned(b"new"))
    previous = yaml.safe_load(text)["models"]["catalogue"]["one"]["previous"]
    assert previous == {"revision": "main", "file": "model.gguf", "size": len(CONTENT), "sha256": SHA}


def test_the_same_files_at_another_commit_are_no_other_version() -> None:
    assert _edited(ONE.replace(REVISION, "main"), PIN) == ONE


def test_what_has_no_hash_is_no_version_to_go_back_to() -> None:
    text = _edited(ONE.replace(f"      sha256: {SHA}\n", ""), _pinned(b"new"))
    assert "previous" not in text


# A whole repository


REPO = f"""models:
  hub: HUB
  catalogue:
    checkpoint:
      repository: {REPOSITORY}
      revision: main
      files: []
      size: 9000 # about
      shape: null
"""


@pytest.fixture
def repository(tmp_path: Path, hub: Hub) -> Hub:
    (tmp_path / "repository" / "original").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "README.md", "original/params.json", "tokenizer.json"):
        (tmp_path / "repository" / name).write_bytes(name.encode())
        hub.publish(tmp_path / "repository" / name, name)
    return hub


def test_all_files_that_an_engine_reads_are_pinned_small_ones_by_reading_them(
    project: Project, repository: Hub
) -> None:
    done = _lock(project, repository, "--yes", text=REPO)
    assert done.returncode == 0, done.stderr
    entry = yaml.safe_load(_written(project))["models"]["catalogue"]["checkpoint"]
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    assert entry["files"] == [
        {"file": name, "size": len(name), "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names
    ]
    assert (entry["revision"], entry["size"], entry["shape"]) == (REVISION, sum(map(len, names)), None)
    assert re.search(rf"size: {entry['size']} +# about\n", _written(project))
    assert "model.safetensors" in done.stdout
    # The large one is not downloaded for its hash.
    assert repository.sent == len("config.json") + len("tokenizer.json")
    assert "all is pinned" in _lock(project, repository, "--yes", text=_written(project)).stdout


def test_a_repository_that_was_pinned_is_kept_whole(project: Project, repository: Hub, tmp_path: Path) -> None:
    assert _lock(project, repository, "--yes", text=REPO).returncode == 0
    before = yaml.safe_load(_written(project))["models"]["catalogue"]["checkpoint"]
    repository.state.published = [entry for entry in repository.state.published if entry.file != "config.json"]
    (tmp_path / "repository" / "config.json").write_bytes(b"another")
    repository.publish(tmp_path / "repository" / "config.json", "config.json")
    assert _lock(project, repository, "checkpoint", "--yes", text=_written(project)).returncode == 0
    after = yaml.safe_load(_written(project))["models"]["catalogue"]["checkpoint"]
    assert after["previous"] == {key: before[key] for key in ("revision", "size", "files")}
    assert after["files"][0]["sha256"] == hashlib.sha256(b"another").hexdigest()


def test_a_small_file_that_is_not_what_the_hub_lists_is_refused(
    project: Project, repository: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hub.Published.blob", property(lambda entry: "0" * 40))
    done = _lock(project, repository, "--yes", text=REPO)
    assert done.returncode == 1
    assert "config.json is not what the hub lists" in done.stderr


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("merges.txt", True),
        ("qwen.tiktoken", True),
        ("consolidated.safetensors", False),
        ("consolidated.00.pth", False),
        ("original/params.json", False),
        ("onnx/model.safetensors", False),
        ("pytorch_model.bin", False),
        ("README.md", False),
        (".gitattributes", False),
    ],
)
def test_only_what_an_engine_reads_is_taken_and_weights_once(path: str, wanted: bool) -> None:
    assert lock.needed(path) == wanted


def test_a_list_of_several_pages_is_read_to_its_end(
    project: Project, repository: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hub.PAGE", 2)
    done = _lock(project, repository, "--yes", text=REPO)
    assert done.returncode == 0, done.stderr
    entry = yaml.safe_load(_written(project))["models"]["catalogue"]["checkpoint"]
    assert [file["file"] for file in entry["files"]] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_an_answer_that_is_no_list_of_files_is_told(
    project: Project, repository: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.hub.Handler._tree", lambda self, *_: self._file(__file__, "page"))
    monkeypatch.setattr("lab.hub.Handler._file", lambda self, *_: self._json({"error": "maintenance"}))
    done = _lock(project, repository, "--yes", text=REPO)
    assert done.returncode == 1
    assert "answers with no list of files" in done.stderr


def test_a_list_that_goes_on_elsewhere_is_refused_and_the_token_stays_here(
    project: Project, repository: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"Link": '<http://127.0.0.2:1/next>; rel="next"'}
    monkeypatch.setattr("lab.hub.Handler._tree", lambda self, *_: self._json([], elsewhere))
    done = _lock(project, repository, "--yes", text=REPO, HF_TOKEN="hf_secret")
    assert done.returncode == 1
    assert "leads elsewhere" in done.stderr
    assert "hf_secret" not in done.stderr + done.stdout


def test_a_list_over_several_lines_is_replaced(project: Project, repository: Hub) -> None:
    text = REPO.replace("      files: []\n", "      files: [\n      ]\n")
    done = _lock(project, repository, "--yes", text=text)
    assert done.returncode == 0, done.stderr
    files = yaml.safe_load(_written(project))["models"]["catalogue"]["checkpoint"]["files"]
    assert [file["file"] for file in files] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_repository_without_weights_is_refused(project: Project, hub: Hub) -> None:
    done = _lock(project, hub, "--yes", text=REPO)
    assert done.returncode == 1
    assert "has no *.safetensors" in done.stderr
