"""A plan on a terminal: a table and the totals with bars, within 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rig.capacity.units import in_words
from rig.plan import words
from rig.plan.figures import EnginePlan, Plan, Total
from rig.plan.fits import Fit
from rig.settings.machine import Hardware

WIDTH = 100
BAR = 30
NEARLY_FULL = 0.9


def show(plan: Plan, console: Console) -> None:
    """Print the plan."""
    console.print(Text.assemble((plan.machine, "bold"), ": ", words.hardware(plan.hardware)))
    console.print(Padding(f"With a prompt of {plan.prompt:,} tokens:", (0, 1)))
    console.print(_engines(plan))
    console.print(Padding(_totals(plan, console.options.ascii_only), (0, 0, 1, 1)))
    console.print(Padding(Group(*(Text(note, "dim") for note in words.NOTES)), (0, 1)))


def show_fits(machine: str, hardware: Hardware, found: Sequence[Fit], console: Console) -> None:
    """Print the models that fit the machine, the fastest first, and why the others do not."""
    console.print(Text.assemble((machine, "bold"), ": ", words.hardware(hardware)))
    table = _table("model", "layers on GPU", "GPU", "RAM", "longest context", "tokens/s")
    for fit in found:
        if fit.gpu is not None and fit.ram is not None and fit.tokens_per_second is not None:
            layers = f"{fit.on_card} of {fit.layers}"
            memory = words.memory(fit.gpu), words.memory(fit.ram)
            table.add_row(fit.model, layers, *memory, words.context(fit), f"< {fit.tokens_per_second:,.1f}")
    console.print(table)
    for fit in found:
        if fit.missing is not None:
            console.print(Padding(f"{fit.model} {fit.missing}.", (0, 1)))
    console.print(Padding(Text(words.FITS_NOTE, "dim"), (1, 1)))


def console() -> Console:
    """Standard output: colours only on a terminal, and a fixed width elsewhere."""
    real = Console(highlight=False)
    return real if real.is_terminal else Console(highlight=False, width=WIDTH)


def _engines(plan: Plan) -> Table:
    table = _table("engine", "GPU", "RAM", "limit", "context", "sequences", "tokens/s", "first token")
    for engine in plan.engines:
        cells = [
            words.name(engine),
            words.memory(engine.gpu),
            words.memory(engine.ram),
            in_words(engine.limit),
            f"{engine.context:,}",
            words.sequences(engine),
            words.speed(engine),
            words.first_token(engine),
        ]
        table.add_row(*cells, style=_style(engine))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=True, header_style="bold")
    # A truncated name could be that of two engines; figures can wrap over two lines.
    table.add_column(first, no_wrap=True, overflow="fold")
    for other in others:
        table.add_column(other, justify="right")
    return table


def _style(engine: EnginePlan) -> str:
    return "" if engine.enabled else "dim"


def _totals(plan: Plan, ascii_only: bool) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("RAM limits", *_bar(plan.ram, ascii_only))
    if plan.gpu is not None:
        rows.add_row("GPU memory", *_bar(plan.gpu, ascii_only))
    rows.add_row("Models on disk", *_bar(plan.disk, ascii_only))
    return Group("", rows, f"Fit together, also those that are off: {words.sets(plan.together, plan.more_together)}")


def _bar(total: Total, ascii_only: bool) -> tuple[Text, str]:
    """The used part, as a bar and in words."""
    if total.there is None:
        return Text(""), f"{in_words(total.taken)} (size of the disk unknown)"
    full = total.taken / total.there if total.there else 1.0
    filled = min(BAR, round(full * BAR))
    style = "red" if full > 1 else "yellow" if full > NEARLY_FULL else "green"
    full_mark, empty_mark = "#-" if ascii_only else "█░"
    bar = Text.assemble((full_mark * filled, style), (empty_mark * (BAR - filled), "dim"))
    return bar, f"{in_words(total.taken)} of {in_words(total.there)}, {in_words(total.there - total.taken)} left"
