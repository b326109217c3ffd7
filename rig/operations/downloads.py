"""Archives from the network that are unpacked only when their SHA-256 is right."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import operation
from pyinfra.facts.files import File

from rig.operations import Commands

CURL = (
    "curl --fail --location --silent --show-error --proto =http,https --connect-timeout 30 "
    "--speed-limit 1024 --speed-time 120 --retry 5 --retry-connrefused"
)


@operation()
def archive(url: str, sha256: str, directory: str, program: str) -> Commands:
    """The archive is unpacked in ``directory``, which holds an executable ``program`` (a path inside the archive).

    Unpacked beside its place and renamed: a directory under this name is complete.
    """
    found = host.get_fact(File, path=f"{directory}/{program}")
    if found:
        return
    parent = str(PurePosixPath(directory).parent)
    script = f"""set -eu
rm -rf {shlex.quote(directory)} {shlex.quote(parent)}/.new.*
new=$(mktemp -d {shlex.quote(parent)}/.new.XXXXXX)
trap 'rm -rf "$new"' EXIT
{CURL} --output "$new/archive" {shlex.quote(url)}
if ! echo "{sha256}  $new/archive" | sha256sum --check --status; then
  echo "{url} has SHA-256 $(sha256sum "$new/archive" | cut -d" " -f1), the settings pin {sha256};" \\
    "nothing of it was unpacked; correct the engine's archive.sha256, or find out who changed the file" >&2
  exit 1
fi
mkdir "$new/tree"
tar --extract --file "$new/archive" --directory "$new/tree" --no-same-owner
if [ ! -x "$new/tree/"{shlex.quote(program)} ]; then
  there=$(cd "$new/tree" && find . -name {shlex.quote(PurePosixPath(program).name)} | head -n 1)
  echo "{url} holds no program {program}; write archive.binary: ${{there#./}}" >&2
  exit 1
fi
chmod -R u=rwX,go=rX "$new/tree"
rm "$new/archive"
sync
mv "$new/tree" {shlex.quote(directory)}
"""
    yield (f"install -d -m 0755 {shlex.quote(parent)} && flock {shlex.quote(parent)} sh -c {shlex.quote(script)}")
