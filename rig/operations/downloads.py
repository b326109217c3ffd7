"""Files from the network that take their name only when their SHA-256 is right."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import operation
from pyinfra.facts.files import File

from rig.facts.models import RECORDS, STAT, Models
from rig.operations import Commands

CURL = (
    "curl --fail --location --silent --show-error --proto =http,https --connect-timeout 30 "
    "--speed-limit 1024 --speed-time 120 --retry 5 --retry-connrefused"
)


@operation()
def model(model: str, url: str, path: str, size: int, sha256: str) -> Commands:
    """The model file at ``path`` is there, of ``size`` bytes, with ``sha256``, and recorded as verified.

    An unfinished download is continued; one that turns out wrong is deleted, and nothing stands under the final name.
    A file that is there without a record (restored, or copied by hand) is hashed before it is believed, and so is one
    whose owner or mode changed, which are put right.
    """
    if host.get_fact(Models, paths={model: path})[model].verified(size, sha256):
        return
    final = PurePosixPath(path)
    script = f"""set -eu
final={shlex.quote(path)} part={shlex.quote(path + ".part")} record={shlex.quote(f"{RECORDS}/{model}.verified")}
matches() {{ [ "$(stat -c %s "$1")" = {size} ] && echo "{sha256}  $1" | sha256sum --check --status; }}
fetch() {{ {CURL} --continue-at - --max-filesize {size} --output "$part" {shlex.quote(url)}; }}
rm -f "$record"
if [ -f "$final" ] && ! matches "$final"; then
  # Kept out of every engine's sight, but not lost: it may be the only copy of something.
  mv "$final" "$final.wrong"
fi
if [ ! -f "$final" ]; then
  if [ -f "$part" ] && [ "$(stat -c %s "$part")" -gt {size} ]; then rm "$part"; fi
  if [ ! -f "$part" ] || [ "$(stat -c %s "$part")" != {size} ]; then
    # 33: the server cannot serve a part of a file, so what is there is given up.
    fetch || {{ code=$?; [ "$code" = 33 ] || exit "$code"; rm "$part"; fetch; }}
  fi
  if ! matches "$part"; then
    found="$(stat -c %s "$part") bytes with SHA-256 $(sha256sum "$part" | cut -d" " -f1)"
    rm "$part"
    echo "the model {model} is not what the settings pin ({size} bytes with SHA-256 {sha256}): {url} gave $found;" \\
      "it was deleted; correct models.catalogue.{model}, or find out who changed the file" >&2
    exit 1
  fi
  sync "$part"
  mv "$part" "$final"
  sync {shlex.quote(str(final.parent))}
fi
chown root:root "$final"
chmod 0644 "$final"
echo "$(stat -c "{STAT}" "$final") {sha256}" >"$record.new"
mv "$record.new" "$record"
"""
    # A killed run's download goes on without it: the next run waits for it instead of writing into the same file.
    yield (
        f"install -d -m 0755 {shlex.quote(str(final.parent))} {RECORDS} && "
        f"flock {shlex.quote(str(final.parent))} sh -c {shlex.quote(script)}"
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
