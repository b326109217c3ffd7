"""Each operation on a throwaway root: would change, changes, would not; drifts, and so again."""

from __future__ import annotations

import pytest

from rig.facts.packages import Damaged, Installed
from rig.operations import backup, downloads, files, monitoring, packages, secrets
from tests.local.cases import CASES, HEX_KEYS, STORE, Case
from tests.local.throwaway import Refused, Throwaway
from tests.unit.sample import needs, needs_root

pytestmark = [needs_root, needs("dpkg-deb", "apt-get", "nft", "runuser", "flock", "curl")]

REPOSITORY = """
set -e
mkdir -p /srv/repository && cd /srv/repository
for version in 1 2; do for name in tool other; do
  mkdir -p tree/DEBIAN tree/opt/$name
  { printf 'Package: %s\\nVersion: %s\\nArchitecture: all\\n' $name $version
    printf 'Maintainer: Nobody <nobody@example.org>\\nDescription: A test\\n'; } >tree/DEBIAN/control
  echo $version >tree/opt/$name/version
  dpkg-deb --root-owner-group --build -Znone tree ${name}_$version.deb >/dev/null
  { cat tree/DEBIAN/control
    echo "Filename: ./${name}_$version.deb"
    echo "Size: $(stat -c %s ${name}_$version.deb)"
    echo "SHA256: $(sha256sum ${name}_$version.deb | cut -d' ' -f1)"
    echo; } >>Packages
  rm -r tree
done; done
echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list
"""
"""A repository of two packages in two versions, which needs no network."""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operation_makes_it_once_and_again_after_every_drift(root: Throwaway, case: Case) -> None:
    root.shell(REPOSITORY)
    root.shell(case.given)
    kept = None
    for drift, script in {"at first": "true", **case.drifts}.items():
        root.shell(script)
        assert root.shell(case.look, check=False) != case.expected, f"{drift}: nothing is broken"
        assert root.would_change(case.operation, **case.arguments), drift
        assert root.shell(case.look, check=False) != case.expected, f"{drift}: a dry run changed something"
        done = root.apply(case.operation, **case.arguments)
        assert done.changed and done.succeeded, (drift, done.output)
        assert root.shell(case.look) == case.expected, drift
        kept = kept or root.shell(case.keeps)
        assert root.shell(case.keeps) == kept, drift
        again = root.apply(case.operation, **case.arguments)
        assert not again.foreseen and not again.changed, drift


@pytest.mark.parametrize(
    "line", ["RIG_KEY_ONE=short", "RIG_KEY_ONE=", "RIG_KEY_ONE=a b", "RIG_KEY_ONE=" + "x" * 42 + "$"]
)
def test_a_line_that_holds_no_key_is_refused_and_left_alone(root: Throwaway, line: str) -> None:
    root.shell(f"umask 077; printf '%s\\n' '{line}' >{STORE}")
    with pytest.raises(Refused, match=r"RIG_KEY_ONE in /etc/rig/keys.env is not one line"):
        root.apply(secrets.keys, variables=["RIG_KEY_ONE", "RIG_KEY_TWO"], native={})
    assert root.shell(f"cat {STORE}") == f"{line}\n"


NO_CHMOD = """
set -e
mount -t tmpfs none /usr/local/sbin
printf '#!/bin/sh\\necho "chmod $*" >&2; exit 1\\n' >/usr/local/sbin/chmod
chmod 0755 /usr/local/sbin/chmod
hash -r
! chmod 0 /etc/passwd 2>/dev/null
"""


def test_keys_are_0600_from_the_first_byte_whatever_the_umask(root: Throwaway) -> None:
    # What nothing can change afterwards was so when it was made.
    root.shell(NO_CHMOD)
    root.umask(0)
    variables = ["RIG_KEY_ONE", "RIG_KEY_TWO"]
    for done in (
        root.apply(secrets.keys, variables=variables, native={"one": "RIG_KEY_ONE"}),
        root.apply(backup.password, repository="/mnt/restic"),
    ):
        assert done.succeeded, done.output
    assert root.shell("cd /etc/rig && find . -mindepth 1 -printf '%P %m %u\\n' | sort") == (
        "backup-password 600 root\nkeys 700 root\nkeys.env 600 root\nkeys/one 600 root\n"
    )
    assert root.shell(HEX_KEYS) == "2\n"
    assert "Permission denied" in root.shell(f"runuser -u owner -- cat {STORE}", check=False)


def test_no_password_is_made_beside_a_backup_that_it_would_not_open(root: Throwaway) -> None:
    root.shell("mkdir /mnt/restic && touch /mnt/restic/config")
    with pytest.raises(Refused, match="holds the backup of an earlier life"):
        root.apply(backup.password, repository="/mnt/restic")
    assert root.shell("ls /etc/rig") == ""


def test_a_file_whose_check_fails_is_not_put_in_place(root: Throwaway) -> None:
    root.apply(files.written, path="/etc/one", text="old\n")
    done = root.apply(files.written, path="/etc/one", text="new\n", first=("grep old /etc/one.rig-new",))
    assert not done.succeeded
    assert root.shell("cat /etc/one") == "old\n"


def test_a_set_of_files_that_a_check_refuses_changes_nothing(root: Throwaway) -> None:
    good = {"a.yml": "good: 1\n", "b.yml": "b: 1\n"}
    root.apply(monitoring.configured, texts=good, checks=["grep -q good a.yml"])
    done = root.apply(monitoring.configured, texts={"a.yml": "bad\n", "b.yml": "b: 2\n"}, checks=["grep -q good a.yml"])
    assert not done.succeeded
    assert root.shell("cd /etc/rig/prometheus && cat a.yml b.yml") == "good: 1\nb: 1\n"


def test_the_newest_version_is_installed_and_an_older_one_left_to_security_updates(root: Throwaway) -> None:
    root.shell(REPOSITORY)
    root.shell("dpkg --install /srv/repository/tool_1.deb")
    assert not root.would_change(packages.present, packages=["tool"])
    assert root.apply(packages.present, packages=["tool", "other"]).succeeded
    assert root.shell("dpkg-query -W") == "other\t2\ntool\t1\n"


def test_a_package_that_no_list_has_fails_and_installs_nothing(root: Throwaway) -> None:
    root.shell(REPOSITORY)
    done = root.apply(packages.present, packages=["tool", "nowhere"])
    assert not done.succeeded and "nowhere" in done.output
    assert root.shell("dpkg-query -W") == ""


def test_facts_tell_a_package_on_hold_and_a_half_installed_one_apart(root: Throwaway) -> None:
    root.shell(REPOSITORY)
    root.shell("dpkg --install /srv/repository/tool_1.deb; echo tool hold | dpkg --set-selections")
    assert root.fact(Installed, packages=("tool", "other")) == {"tool"}
    assert not root.fact(Damaged).unfinished
    root.shell("dpkg --unpack /srv/repository/other_1.deb")
    assert root.fact(Installed, packages=("tool", "other")) == {"tool"}
    assert root.fact(Damaged).unfinished


SERVE = """
set -e
mkdir -p /srv/www/x/bin && cd /srv/www && printf '#!/bin/sh\\necho here\\n' >x/bin/program && chmod 0755 x/bin/program
tar --create --gzip --file a.tar.gz -C x . && rm -r x
PYTHON -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 &
curl --silent --retry 50 --retry-delay 1 --retry-connrefused --output /dev/null http://127.0.0.1:8000/a.tar.gz
sha256sum a.tar.gz | cut -d' ' -f1 | tr -d '\\n'
"""


def test_an_archive_is_unpacked_when_its_hash_is_right_and_not_at_all_otherwise(root: Throwaway) -> None:
    sha256 = root.shell(SERVE.replace("PYTHON", "python3"))
    archive = {"url": "http://127.0.0.1:8000/a.tar.gz", "directory": "/opt/rig/one", "program": "bin/program"}

    wrong = root.apply(downloads.archive, **archive, sha256="0" * 64)
    assert not wrong.succeeded and f"has SHA-256 {sha256}" in wrong.output
    assert root.shell("ls -A /opt/rig") == ""

    for drift in (
        "true",
        "rm /opt/rig/one/bin/program",
        "rm -r /opt/rig/one",
        "mkdir /opt/rig/.new.x; rm -r /opt/rig/one",
    ):
        root.shell(drift)
        assert root.would_change(downloads.archive, **archive, sha256=sha256)
        assert root.apply(downloads.archive, **archive, sha256=sha256).succeeded
        assert root.shell("/opt/rig/one/bin/program; ls -A /opt/rig; stat -c %a /opt/rig/one") == "here\none\n755\n"
        assert not root.would_change(downloads.archive, **archive, sha256=sha256)
