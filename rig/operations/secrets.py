"""Keys that are made on the machine, once, and never leave it."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import OperationError, operation

from rig.facts.secrets import KEYS, NATIVE, Keys, KeyState
from rig.operations import Commands

RENEW = "new_keys"
"""pyinfra's `--data` key to make vanished keys again, with the value yes."""


@operation()
def keys(variables: list[str], native: dict[str, str], renew: bool = False) -> Commands:
    """Every variable has a key of 256 random bits in /etc/rig/keys.env, and every native engine a file with its own.

    ``native``: engine name to variable. An existing key is never replaced: to rotate one, delete its line. Raises
    OperationError for a line without a valid key, as replacing it could lose the owner's value; and for a vanished
    store, as every client of the machine has its keys. `renew`: the owner wants new keys in that case.
    """
    state: KeyState = host.get_fact(Keys, variables=tuple(variables), native=native)
    if state.malformed:
        raise OperationError(
            f"{', '.join(state.malformed)} in {KEYS} is not one line of at least 43 letters, digits, '-' or '_'; "
            "delete the line to have a new key made, or put the right one there"
        )
    if state.vanished and not renew:
        raise OperationError(
            f"{KEYS} is missing or empty, and this machine has had keys, which its clients have; to bring them back "
            "from the backup: sudo rig-backup restore (on the machine); to make other ones, which every client must "
            f"then be given: pyinfra inventory.py deploy.py --data {RENEW}=yes"
        )
    if state.file and state.file != "600 root:root":
        yield f"chown root:root {KEYS} && chmod 0600 {KEYS}"
    if state.directory != "700 root:root":
        yield f"install -d -m 0700 -o root -g root {NATIVE}"
    if state.missing or not state.file:
        yield _locked(_generate(state.missing))
    # A new line in the store makes the derived files stale; no further look at the machine is needed.
    stale = [engine for engine, variable in native.items() if engine in state.stale or variable in state.missing]
    if stale:
        yield _locked(_derive({engine: native[engine] for engine in stale}))


def _locked(script: str) -> str:
    """The script under a lock: a killed run's shell may still run on the machine, and the second waits for it."""
    return f"flock /etc/rig sh -c {shlex.quote(script)}"


def _generate(variables: tuple[str, ...]) -> str:
    """Append missing keys to a copy that is 0600 from its first byte, and rename it into place."""
    return f"""set -eu
umask 077
# One name, so that what a power cut leaves of it is taken away by the next run.
new={KEYS}.new
trap 'rm -f "$new"' EXIT
rm -f "$new"
if [ -f {KEYS} ]; then cat {KEYS} >"$new"; [ -z "$(tail -c 1 "$new")" ] || echo >>"$new"
else echo "# Keys of this machine, one for each consumer. Delete a line to rotate it." >"$new"; fi
for variable in {shlex.join(variables)}; do
  grep -q "^$variable=" "$new" && continue
  key=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d " \\n")
  [ "${{#key}}" = 64 ]
  printf "%s=%s\\n" "$variable" "$key" >>"$new"
done
sync "$new"
mv "$new" {KEYS}
sync "$(dirname {KEYS})"
"""


def _derive(native: dict[str, str]) -> str:
    pairs = " ".join(f"{shlex.quote(engine)}={variable}" for engine, variable in native.items())
    return f"""set -eu
umask 077
new={NATIVE}/.new
rm -f "$new"
for pair in {pairs}; do
  engine=${{pair%%=*}}; variable=${{pair#*=}}
  sed -n "s/^$variable=//p" {KEYS} | tr -d "\\n" >"$new"
  sync "$new"
  mv "$new" "{NATIVE}/$engine"
done
sync {NATIVE}
"""
