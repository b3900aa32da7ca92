"""``braze fuzz``: random programs, eagerly and compiled, and whatever differs as a small script."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from braze.cli.tables import add_row, table
from braze.errors import BrazeError
from braze.inspect.fuzz.campaign import Account, Finding, Plan, Session, run_plan
from braze.inspect.fuzz.generate import MODES
from braze.inspect.fuzz.program import Mode
from braze.inspect.fuzz.script import script_of
from braze.words import count

__all__ = ["fuzz"]

_MEANS = {
    "agrees": "results, memory, strides, aliases, gradients and errors are eager's",
    "by float64": "off by more than the tolerances, by at most twice eager's own error",
    "both raise": "eager PyTorch refuses the program, and so does compiled code",
    "undecidable": "rounding alone changes the result as much",
    "shared": "aot_eager, which compiles nothing, differs from eager too",
    "discarded": "eager PyTorch refuses some of the calls, or ends its process",
    "nothing drawn": "no statement fitted",
    "fault": "compiled code is wrong",
}
_PLAIN_EVERY = 50
_SHOWN = 25


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="For how long. [default: 1, without --programs]",
)
@click.option("--programs", type=click.IntRange(min=1), help="How many.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed gives the same programs.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@click.option(
    "--mode",
    "modes",
    type=click.Choice(MODES),
    multiple=True,
    help="Only programs of this mode; may be repeated. [default: all]",
)
@click.option("--strict", is_flag=True, help="A fallback to eager PyTorch is a fault.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that a program may take.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each fault there as a script.",
)
@click.option("--repeat", metavar="SEED:INDEX", help="Show and try this one program.")
def fuzz(
    minutes: float | None,
    programs: int | None,
    seed: int,
    jobs: int,
    modes: tuple[Mode, ...],
    strict: bool,
    limit: float,
    out: Path | None,
    repeat: str | None,
) -> None:
    """Try random PyTorch programs, and compare compiled code with eager PyTorch.

    Programs are of four modes that take turns: of static sizes, of dynamic ones (each called with three
    sets), with gradients, and as packages of exported programs. What differs is made smaller while it
    differs, and shown as a script.

        braze fuzz --minutes 10 --seed 1 --jobs 4 --out faults

    The command ends with 1 where a fault was found.
    """
    console = Console(highlight=False)
    if repeat is not None:
        sys.exit(_repeat(console, repeat, Plan(strict=strict, limit=limit, out=out)))
    if minutes is None and programs is None:
        minutes = 1.0
    plan = Plan(seed, modes or MODES, programs, minutes, 0, jobs, strict, limit, out=out)
    account = _watched(console, plan)
    for finding in _one_of_each(account):
        for part in _shown(finding):
            console.print(part, soft_wrap=True)
    for part in _summary(account):
        console.print(part)
    if account.findings:
        sys.exit(1)


def _repeat(console: Console, name: str, plan: Plan) -> int:
    seed, colon, index = name.partition(":")
    if not (colon and seed.isdigit() and index.isdigit()):
        raise BrazeError(
            f"{name!r} is not a program", hint="write SEED:INDEX, as a report of `braze fuzz` does"
        )
    session = Session(Plan(int(seed), strict=plan.strict, limit=plan.limit))
    try:
        with console.status("runs"):
            explored = session.explore(int(index))
        program, verdict = explored.program, explored.verdict
        if program is None or verdict is None:
            raise BrazeError(f"no program came of {name}")
        console.print(_code(script_of(program)), soft_wrap=True)
        words = verdict.why if verdict.fault is None else str(verdict.fault)
        console.print(Text.assemble("  ", (verdict.status, _style(verdict.status)), f"  {words}"))
        for op, reason in verdict.fallbacks:
            console.print(Text(f"  runs as eager PyTorch: {op}: {reason}", "yellow"))
        if verdict.fault is None:
            return 0
        with console.status("makes it smaller"):
            small, fault = session.shrunk(program, verdict.fault)
    finally:
        session.close()
    finding = Finding(fault, program, small)
    for part in _shown(finding):
        console.print(part, soft_wrap=True)
    if plan.out is not None:
        plan.out.mkdir(parents=True, exist_ok=True)
        (plan.out / f"fault_{seed}_{index}.py").write_text(finding.script(), encoding="utf-8")
    return 1


def _watched(console: Console, plan: Plan) -> Account:
    if not console.is_terminal:
        return run_plan(plan, _plainly(console))
    latest = Account()

    def tell(account: Account, words: str) -> None:
        nonlocal latest
        latest = account
        if words:
            live.console.print(Text.assemble(("fault  ", "bold red"), words))

    with Live(
        get_renderable=lambda: _progress(latest, plan), console=console, refresh_per_second=4, transient=True
    ) as live:
        return run_plan(plan, tell)


def _plainly(console: Console) -> Callable[[Account, str], None]:
    def tell(account: Account, words: str) -> None:
        if words:
            console.print(Text(f"fault  {words}"), soft_wrap=True)
        elif account.programs % _PLAIN_EVERY == 0 and account.programs:
            said = count(account.programs, "program"), _rate(account), count(len(account.findings), "fault")
            console.print(Text(", ".join(said)))

    return tell


def _progress(account: Account, plan: Plan) -> RenderableType:
    end = (
        f"of {count(plan.programs, 'program')}"
        if plan.programs
        else f"of {plan.minutes:g} minutes"
        if plan.minutes
        else ""
    )
    done = f"{count(account.programs, 'program')} in {account.seconds / 60:.1f} minutes"
    counts = "  ·  ".join(f"{name} {number}" for name, number in account.statuses.most_common())
    faults = Text(count(len(account.findings), "fault"), "bold red" if account.findings else "green")
    line = Text.assemble(f" seed {plan.seed}  ·  {done}  {end}  ·  {_rate(account)}  ·  ", faults)
    return Group(Spinner("dots", text=line), Text(f"   {counts}", "dim"))


def _rate(account: Account) -> str:
    return f"{account.programs / account.seconds:.1f} a second" if account.seconds else "starts"


def _style(status: str) -> str:
    return {"fault": "bold red", "agrees": "green", "by float64": "green", "both raise": "green"}.get(
        status, "yellow"
    )


def _summary(account: Account) -> list[RenderableType]:
    minutes = account.seconds / 60
    counts = [(account.programs, "program"), (len(account.operators), "operator"), (account.graphs, "graph")]
    programs, operators, graphs = (count(number, noun) for number, noun in counts)
    said = f"{programs} of {operators}, {graphs} compiled"
    parts: list[RenderableType] = []
    parts.append(
        Text.assemble("\n  ", (said, "bold"), (f"  ·  {minutes:.1f} minutes, {_rate(account)}", "dim"))
    )
    modes = ", ".join(f"{name} {number}" for name, number in sorted(account.modes.items()))
    parts.append(Text(f"  {modes}", "dim"))
    rows = [
        (name, str(account.statuses[name]), means) for name, means in _MEANS.items() if account.statuses[name]
    ]
    parts.append(_table(("result", ">programs", ""), rows))
    if account.fallbacks:
        ranked = account.fallbacks.most_common(_SHOWN)
        parts.append(
            Text(f"  {count(account.with_fallback, 'program')} ran partly as eager PyTorch", "yellow")
        )
        parts.append(
            _table(("operator", ">programs", "since"), [(op, str(n), why) for (op, why), n in ranked])
        )
    if account.undecided:
        parts.append(Text("  undecidable", "dim"))
        parts += [Text(f"    {line}", "dim") for line in account.undecided[:_SHOWN]]
    kinds = account.kinds()
    if kinds:
        parts.append(
            Text(f"  {count(len(account.findings), 'fault')} of {count(len(kinds), 'kind')}", "bold red")
        )
        faults = [
            (
                " ".join(f.program.origin for f in found[:4]) + (" ..." if len(found) > 4 else ""),
                str(len(found)),
                f"{operators}: {found[0].fault}" if operators else str(found[0].fault),
            )
            for (_, operators), found in kinds.items()
        ]
        parts.append(_table(("SEED:INDEX", ">times", "fault"), faults))
    else:
        parts.append(Text("  no faults\n", "green"))
    return parts


def _one_of_each(account: Account) -> list[Finding]:
    """The shortest of each kind."""
    return [min(found, key=lambda f: len(f.script())) for found in account.kinds().values()]


def _shown(finding: Finding) -> list[RenderableType]:
    heading = Text.assemble("\n  ", ("fault", "bold red"), f"  {finding.fault}")
    place = [] if finding.path is None else [Text(f"  {finding.path}", "dim")]
    return [heading, *place, _code(finding.script())]


def _code(script: str) -> Text:
    """Coloured, and of whole lines, so that it can be copied."""
    return Syntax("", "python", background_color="default").highlight(script)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    shown = table(*columns)
    for first, *cells in rows:
        add_row(shown, Text(first, _style(first)), *cells)
    return Padding(shown, (0, 0, 0, 2))
