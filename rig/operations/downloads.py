"""Archives from the network, unpacked only if their SHA-256 is correct."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import operation

from rig.facts.engines import LINKS, LIST_LINKS, OWN, SUMS, Unpacked
from rig.operations import Commands

CURL = (
    "curl --fail --location --silent --show-error --proto =http,https --connect-timeout 30 "
    "--speed-limit 1024 --speed-time 120 --retry 5 --retry-connrefused"
)


@operation()
def archive(url: str, sha256: str, directory: str, program: str) -> Commands:
    """The archive is unpacked in ``directory``, which holds an executable ``program`` (a path inside the archive).

    It is unpacked beside its place and renamed, with the hashes of its files: a folder changed since is unpacked again.
    """
    if host.get_fact(Unpacked, directory=directory, program=program):
        return
    parent = str(PurePosixPath(directory).parent)
    script = f"""set -eu
rm -rf {shlex.quote(parent)}/.new.*
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
(cd "$new/tree" && find . -type f {OWN} -print0 | LC_ALL=C sort -z | xargs -0 sha256sum >"$new/sums")
(cd "$new/tree" && {LIST_LINKS} >"$new/links")
mv "$new/sums" "$new/tree/{SUMS}"
mv "$new/links" "$new/tree/{LINKS}"
sync --file-system "$new"
# Not before the new one is whole: an engine may be started from the old one meanwhile.
rm -rf {shlex.quote(directory)}
mv "$new/tree" {shlex.quote(directory)}
sync {shlex.quote(parent)}
"""
    yield (f"install -d -m 0755 {shlex.quote(parent)} && flock {shlex.quote(parent)} sh -c {shlex.quote(script)}")
