"""The output of nvidia-smi and the kernel's log is parsed strictly, and nothing in it is trusted blindly."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rigd.thermal import journal, xid
from rigd.thermal.levels import Level
from rigd.thermal.metrics import METRICS, Snapshot, render
from rigd.thermal.reading import FIELDS, Card, Unreadable, bus, parse
from tests.unit.project import ROOT
from tests.unit.sample import examples

HOT = (
    "GPU-5c1b6d2e, NVIDIA GeForce RTX 5070 Ti, 00000000:01:00.0, P2, 84, 4, N/A, 287.31, 300.00, 2610, 14001, 71, "
    "15211, 16303, 99, 0x0000000000000004\n"
)
NOTHING = (
    "GPU-1, A card, 00000000:41:00.0, [N/A], [N/A], [N/A], N/A, [Not Supported], [N/A], [Unknown Error], [N/A], [N/A], "
    "[N/A], [N/A], [N/A], [N/A]\n"
)


def snapshot(*cards: Card, failure: str | None = None) -> Snapshot:
    return Snapshot(
        time=1000.5,
        cards=cards,
        levels={card.uuid: Level.WARNING for card in cards},
        failure=failure,
        succeeded=None if failure else 1000.5,
        failures={failure: 3} if failure else {},
        xids={("0000:01:00", 79): 2},
        cooling_wanted={"power_limit": True},
        cooling_applied={"power_limit": False},
    )


# nvidia-smi


def test_every_value_of_a_card_is_read() -> None:
    assert parse(FIELDS, HOT).cards == (
        Card(
            uuid="GPU-5c1b6d2e",
            name="NVIDIA GeForce RTX 5070 Ti",
            bus="0000:01:00",
            performance_state=2,
            temperature=84,
            margin=4,
            memory_temperature=None,
            power=287.31,
            power_limit=300,
            sm_clock=2610,
            memory_clock=14001,
            fan=71,
            memory_used=15211,
            memory_total=16303,
            utilization=99,
            reasons=("sw_power_cap",),
        ),
    )


def test_what_is_not_available_is_nothing_and_not_zero() -> None:
    (card,) = parse(FIELDS, NOTHING).cards
    assert card == Card("GPU-1", "A card", "0000:41:00")
    assert not card.heat.known


def test_a_field_that_was_left_out_is_nothing() -> None:
    (card,) = parse(("uuid", "temperature.gpu"), "GPU-1, 50\n").cards
    assert card == Card("GPU-1", "unknown", "unknown", temperature=50)


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "-", "", "9999", "-274", "0x50", "50 C", "5" * 300, "\u0665"])
def test_a_temperature_that_cannot_be_is_none(text: str) -> None:
    assert parse(("uuid", "temperature.gpu"), f"GPU-1, {text}\n").cards[0].temperature is None


@pytest.mark.parametrize("text", ["", "\n\n", "No devices were found\n", "half, a line\n", HOT + HOT])
def test_what_is_no_answer_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(FIELDS, text)


CASES = ROOT / "tests/unit/data/smi"
CARD = "GPU-00000000-1111-2222-3333-444444444444"


@pytest.mark.parametrize(
    ("case", "temperature", "remark"),
    [
        ("plain", 41, None),
        ("crlf", 41, None),
        ("comma", 41, None),
        ("comma-name", 41, None),
        ("paren-na", 41, None),
        ("fan-over", 41, None),
        ("neg", 92, None),
        ("inforom", 41, "WARNING: infoROM is corrupted at gpu 0000:01:00.0"),
        ("inforom0", 41, "WARNING: infoROM is corrupted at gpu 0000:01:00.0"),
        ("lost-one0", 41, "Unable to determine the device handle for GPU0000:02:00.0: Unknown Error"),
        ("lost-one255", 41, "Unable to determine the device handle for GPU0000:02:00.0: Unknown Error"),
    ],
)
def test_a_card_is_read_beside_remarks_and_odd_values(case: str, temperature: float, remark: str | None) -> None:
    reading = parse(FIELDS, (CASES / f"{case}.out").read_text())
    (card,) = reading.cards
    assert (card.uuid, card.bus, card.temperature, card.memory_total) == (CARD, "0000:01:00", temperature, 16303)
    assert card.heat.known
    assert reading.remarks == (() if remark is None else (remark,))


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("comma", "power", 12.34),
        ("comma-name", "name", "NVIDIA GeForce RTX 5070 Ti D"),
        ("fan-over", "fan", 104),
        ("neg", "margin", -3),
        ("paren-na", "memory_temperature", None),
    ],
)
def test_an_odd_value_is_the_value_that_it_is(case: str, field: str, value: object) -> None:
    assert getattr(parse(FIELDS, (CASES / f"{case}.out").read_text()).cards[0], field) == value


def test_cards_without_a_name_of_their_own_are_told_apart_by_their_place() -> None:
    """The number of its line would be another card's when one is lost."""
    text = (CASES / "nouuid.out").read_text()
    both = parse(FIELDS, text).cards
    (second,) = parse(FIELDS, text.splitlines()[1]).cards
    assert [card.uuid for card in both] == ["GPU-0000:01:00", "GPU-0000:02:00"]
    assert second.uuid == both[1].uuid


@pytest.mark.parametrize("case", ["reset-cells", "unknown-cells"])
@pytest.mark.parametrize("cut", [0, 3])
def test_a_card_that_answers_with_errors_is_there_and_tells_nothing(case: str, cut: int) -> None:
    """Also where values are missing, and nobody can say which."""
    text = (CASES / f"{case}.out").read_text().strip()
    (card,) = parse(FIELDS, ", ".join(text.split(", ")[: len(FIELDS) - cut])).cards
    assert card == Card("GPU-0-1-2", "NVIDIA GeForce RTX 5070 Ti", "0000:01:00")


@pytest.mark.parametrize("case", ["mismatch", "nodev", "nodrv", "noml", "oldfield"])
def test_an_answer_without_a_card_is_none(case: str) -> None:
    with pytest.raises(Unreadable, match="it shows no card, and says '"):
        parse(FIELDS, (CASES / f"{case}.out").read_text())


@examples
@given(st.one_of(st.text(), st.lists(st.text(alphabet=st.characters(exclude_characters=",\n"))).map(",".join)))
def test_no_answer_does_harm(text: str) -> None:
    try:
        cards = parse(FIELDS, text).cards
    except Unreadable:
        return
    for line in render(snapshot(*cards)).splitlines():
        assert re.fullmatch(r'#.*|[a-z_]+(\{([a-z]+="[^"\n]*",?)+\})? -?[0-9.e+-]+', line)


@pytest.mark.parametrize(
    ("text", "known"),
    [("00000000:01:00.0", "0000:01:00"), ("0000:41:00", "0000:41:00"), ("0000:C1:00", "0000:c1:00"), ("[N/A]", None)],
)
def test_an_address_has_one_spelling(text: str, known: str | None) -> None:
    assert bus(text) == known


# The kernel's log


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            xid.Xid("0000:01:00", 79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
        ),
        ("NVRM: Xid (0000:03:00): 8, Channel 0000000c", xid.Xid("0000:03:00", 8, "Channel 0000000c")),
        ("[ 12.5] NVRM: Xid (PCI:0000:65:00 GPU-I:05): 31, pid=2, MMU", xid.Xid("0000:65:00", 31, "pid=2, MMU")),
        ("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  595.91.07", None),
        ("somebody writes about Xid 79", None),
    ],
)
def test_xid_lines_are_told_from_others(line: str, found: xid.Xid | None) -> None:
    assert xid.parse(line) == found


def test_entries_of_the_journal_are_read_up_to_the_last_cursor() -> None:
    message = "NVRM: Xid (PCI:0000:01:00): 13, x"
    lines = [
        json.dumps({"__CURSOR": "a", "MESSAGE": message}),
        "not json",
        "[1]",
        json.dumps({"__CURSOR": "b", "MESSAGE": [*message.encode(), 0xFF]}),
        json.dumps({"__CURSOR": "c", "MESSAGE": None}),
    ]
    found, cursor = xid.parse_entries(lines)
    assert [entry.number for entry in found] == [13, 13]
    assert cursor == "c"


@examples
@given(st.text())
def test_no_kernel_message_does_harm(text: str) -> None:
    xid.parse(f"NVRM: Xid (PCI:0000:01:00): 31, {text}")
    xid.parse(text)
    xid.parse_entries([text])


# Metrics


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    page = (ROOT / "docs" / "thermal.md").read_text(encoding="utf-8")
    assert set(re.findall(r"rig_gpu_\w+", page)) - {"rig_gpu_prom"} >= set(METRICS)
    assert set(re.findall(r"`(rig_gpu_\w+)`", page)) == set(METRICS)


def test_figures_have_the_units_of_their_names() -> None:
    text = render(snapshot(*parse(FIELDS, HOT).cards))
    figures = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    card = ("gpu", "GPU-5c1b6d2e")
    assert figures.items() >= {
        ("rig_gpu_temperature_margin_celsius", card): 4.0,
        ("rig_gpu_clock_hertz", ("clock", "sm"), card): 2610000000.0,
        ("rig_gpu_fan_ratio", card): 0.71,
        ("rig_gpu_memory_used_bytes", card): 15949889536.0,
        ("rig_gpu_thermal_level", card): 1.0,
        ("rig_gpu_throttling", card, ("reason", "sw_power_cap")): 1.0,
        ("rig_gpu_throttling", card, ("reason", "hw_thermal_slowdown")): 0.0,
        ("rig_gpu_xid_errors_total", ("bus", "0000:01:00"), ("xid", "79")): 2.0,
        ("rig_gpu_cooling", ("measure", "power_limit")): 0.0,
        ("rig_gpu_reading_success",): 1.0,
    }.items()


def test_what_a_card_does_not_report_has_no_figure() -> None:
    text = render(snapshot(*parse(FIELDS, NOTHING).cards))
    assert "temperature" not in text and "throttling" not in text
    assert "rig_gpu_info" in text


def test_a_failed_reading_shows_that_it_failed_and_no_old_figure() -> None:
    text = render(snapshot(failure="timeout"))
    assert 'rig_gpu_reading_failures_total{cause="timeout"} 3.0' in text
    assert "rig_gpu_reading_success 0.0" in text
    assert "rig_gpu_temperature" not in text


# The journal's protocol


def test_an_entry_arrives_with_its_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        journal.send(4, "warm", {"temperature": 84.0, "margin": None, "two": "a\nb"}, path=str(tmp_path / "socket"))
        assert listener.recv(4096) == (
            b"MESSAGE=warm\nPRIORITY=4\nSYSLOG_IDENTIFIER=rig-thermal\nRIG_TEMPERATURE=84.0\n"
            b"RIG_TWO\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n"
        )


def test_without_a_journal_the_message_is_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal.send(3, "hot", path=str(tmp_path / "nobody"))
    assert capsys.readouterr().err == "<3>hot\n"
