"""The program rig-gateway-reader: follows the gateway's log, and writes what each client used as metrics."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from rigd.base import configuration, files
from rigd.base.errors import BadInput, Failed
from rigd.gateway import config as configs
from rigd.gateway import counters, metrics
from rigd.gateway.config import Config
from rigd.gateway.counters import Counters
from rigd.gateway.journal import Follower, Place

FAILED, BAD_INPUT = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Be the service; return the exit status once the journal cannot be followed any more."""
    options = _parser().parse_args(arguments)
    try:
        _run(configuration.read(options.config, configs.parse))
    except BadInput as error:
        _say(str(error))
        return BAD_INPUT
    except Failed as error:
        _say(str(error))
        return FAILED
    except OSError as error:
        _say(f"{error.filename or 'the machine'}: {error.strerror}")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-gateway-reader",
        description="Counts from the gateway's log what each client used, and writes it where node_exporter reads it.",
        epilog="Exits with 1 when the journal cannot be read or the counters cannot be saved, 2 without a "
        "configuration; killed at any moment, the next one goes on where it was.",
    )
    parser.add_argument("--config", default=configs.PATH, metavar="FILE", help="default: %(default)s")
    return parser


def _run(config: Config) -> NoReturn:
    """Follow the log for ever. Raises Failed or OSError."""
    service = Reader(config)
    try:
        service.round(0)
        while True:
            service.round(config.interval)
    finally:
        service.close()


class Reader:
    """The counters, and the log that they count."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._counted = _saved(Path(config.reader))
        self._follower = Follower(config.unit, self._counted.place)
        self._written: Place | None = None
        self._gap = self._failing = False

    def round(self, seconds: float) -> None:
        """Count what comes within a time, and write it."""
        for entry in self._follower.entries(seconds):
            self._counted.count(entry.message, entry.place.time / 1e6, self._config.engines)
            self._counted.place = entry.place
        if self._follower.gap and not self._gap:
            self._gap = True
            self._counted.gaps += 1
            _say("the last line that was read is no longer in the journal; some after it may be missing in the metrics")
        self._write()

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _write(self) -> None:
        """Save the counters, and show them only then: a power cut must not make a counter fall that was seen."""
        try:
            if self._counted.place != self._written:
                counters.write(Path(self._config.reader), self._counted)
                self._written = self._counted.place
            files.replace(Path(self._config.metrics), metrics.render(self._counted), lasting=False)
        except OSError as error:
            if not self._failing:
                _say(f"the counters cannot be saved: {error.strerror}; they are kept, and saved as soon as they can be")
            self._failing = True
        else:
            self._failing = False


def _saved(path: Path) -> Counters:
    """The counters of an earlier run. A damaged file begins at zero, with what the journal still has."""
    try:
        return counters.read(path)
    except ValueError as error:
        _say(f"{path} cannot be used ({error}); counting begins at zero, with the oldest line of the journal")
        return Counters(gaps=1)


def _say(sentence: str) -> None:
    print(f"rig-gateway-reader: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
