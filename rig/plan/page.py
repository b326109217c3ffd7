"""A plan as Markdown, and its place in a handwritten page."""

from __future__ import annotations

from collections.abc import Sequence

from rig.capacity.units import in_words
from rig.page import place
from rig.plan import words
from rig.plan.figures import EnginePlan, Plan, Total

BEGIN = "<!-- Computed by `rig plan --into PAGE`; what stands between these two lines is replaced. -->"


def placed(page: str, plans: Sequence[Plan]) -> str:
    """The page with these plans between its two marks. Raises NoPlace without the marks."""
    return place(page, BEGIN, "\n".join(markdown(plan) for plan in plans), "plan")


def markdown(plan: Plan) -> str:
    """The plan's tables and totals."""
    return "\n".join(_paragraphs(plan)) + "\n"


def _paragraphs(plan: Plan) -> list[str]:
    lines = [f"**{plan.machine}**: {words.hardware(plan.hardware)}.", ""]
    lines += _engines(plan)
    lines += ["", f"- RAM: limits of {in_words(plan.ram.taken)} at most at once, of {_there(plan.ram)} for engines."]
    if plan.gpu is not None:
        lines += [f"- GPU memory: {in_words(plan.gpu.taken)} at most at once, of {_there(plan.gpu)}."]
    lines += [f"- Disk: {in_words(plan.disk.taken)} of models for the enabled engines, of {_there(plan.disk)}."]
    return [*lines, f"- Fit together, also those that are off: {words.sets(plan.together, plan.more_together)}."]


def _there(total: Total) -> str:
    return "an unknown size" if total.there is None else in_words(total.there)


def _engines(plan: Plan) -> list[str]:
    titles = ["engine", "GPU memory", "layers there", "RAM", "limit", "context", "sequences", "tokens/s"]
    titles += [f"first token after {plan.prompt:,}"]
    return _table(titles, [_engine_cells(engine) for engine in plan.engines])


def _engine_cells(engine: EnginePlan) -> list[str]:
    card = [words.memory(engine.gpu), words.layers(engine)]
    sizes = [*card, words.memory(engine.ram), in_words(engine.limit), f"{engine.context:,}"]
    return [words.name(engine), *sizes, words.sequences(engine), words.speed(engine), words.first_token(engine)]


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in titles[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows)]
