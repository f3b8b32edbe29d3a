"""The plan and the ledger as a person reads them in a terminal, and as a program reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dagster_project.command_line.text_table import GAP, aligned
from nift_assets.costs.plan import Cost, Plan, PlanRow
from nift_assets.costs.tokens import BASES, TokenCount
from nift_assets.ledger.report import Account, Report

OF_ACCOUNT = ("sent", "tokens in", "tokens out", "spent USD", "reserved")
SIZE_COLUMNS = ("tokens in", "tokens out", "basis")


def render(plan: Plan, width: int) -> str:
    """One entry per model that is asked with what is still to be asked of it, then their sum; for so many columns."""
    header = ["who is asked", "requests", *SIZE_COLUMNS, "online USD", "batch USD"]
    rows = [_cells(line) for line in plan.lines]
    free = all(line.state == "free" for line in plan.lines)
    money = ["free", "free"] if free else [_dollars(plan.online), _dollars(plan.batch, none="-")]
    sums = ["together", "", "", "", "", *money]
    table = [header, *rows, sums]
    statuses = [_status(line) for line in plan.lines]
    if _width(table) > width:
        table = [[*cells[:2], *cells[-2:]] for cells in table]
    lines = aligned(table, left=1)
    inline = max(map(len, lines)) + len(GAP) + max(map(len, statuses), default=0) <= width
    body: list[str] = []
    for text, status in zip(lines[1:-1], statuses, strict=True):
        body += (
            [f"{text.ljust(_width(table))}{GAP}{status}".rstrip()]
            if inline
            else [text, *([f"    {status}"] if status else [])]
        )
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *body, rule, lines[-1], "", *_notes(plan)])


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan with money in dollars; what is not known is null."""
    lines = [
        asdict(line)
        | {
            "online": _usd(line.online),
            "batch": _usd(line.batch),
            "cap": _in_dollars(line.cap),
            "taken": _in_dollars(line.taken),
        }
        for line in plan.lines
    ]
    return {
        "study": plan.study,
        "lines": lines,
        "online": _usd(plan.online),
        "batch": _usd(plan.batch),
        "unknown": list(plan.unknown),
        "cap": _in_dollars(plan.cap),
        "taken": _in_dollars(plan.taken),
        "over": plan.over,
        "warnings": list(plan.warnings),
    }


def render_ledger(report: Report, caps: Mapping[tuple[str, str], float | None], width: int | None = None) -> str:
    """One entry per teacher and judge of each study, then each study's money, and what is open.

    `caps` are in dollars, by study and row; a study's own is under ''.
    """
    if not report.accounts:
        return "The ledger is empty: nothing has been asked yet."
    header = ["", "", *OF_ACCOUNT]
    table = [header, *([account.study, account.who, *_account(account)] for account in report.accounts)]
    lines = aligned(table, left=2)
    if width and len(lines[0]) > width:
        # Each number with its name, under who was asked.
        lines = ["", *map(_account_in_words, report.accounts)]
    body: list[str] = []
    for text, account in zip(lines[1:], report.accounts, strict=True):
        states = ", ".join(f"{count:,} {state}" for state, count in account.states.items())
        reused = f" ({account.reused:,} from under a smaller limit of tokens)" if account.reused else ""
        cap = _of_cap(caps.get((account.study, account.who)))
        body += [text, f"    {states or 'nothing wanted'}{reused}{cap}"]
    totals = [
        f"{study}: ${spent / 1e9:,.2f} spent, ${reserved / 1e9:,.2f} reserved{_of_cap(caps.get((study, '')))}"
        for study, (spent, reserved) in report.totals.items()
    ]
    head = [lines[0], "-" * len(lines[0])] if lines[0] else []
    return "\n".join([*head, *body, "", *totals, *_open(report)])


def ledger_as_json(report: Report, caps: Mapping[tuple[str, str], float | None]) -> dict[str, Any]:
    """The report with money in dollars and each account's cap."""
    return {
        "accounts": [
            _money(asdict(account)) | {"cap": caps.get((account.study, account.who))} for account in report.accounts
        ],
        "studies": {
            study: {"spent": spent / 1e9, "reserved": reserved / 1e9, "cap": caps.get((study, ""))}
            for study, (spent, reserved) in report.totals.items()
        },
        "unknown": [_money(asdict(lost)) for lost in report.lost],
        "batches": [asdict(batch) for batch in report.batches],
    }


def _cells(line: PlanRow) -> list[str]:
    requests = "?" if line.missing is None else f"{line.missing:,}"
    if line.answered and line.requests is not None:
        requests = f"{requests} of {line.requests:,}"
    basis = [size.basis for size in (line.input, line.output) if size]
    return [
        line.name if line.role == "teacher" else f"{line.name} ({line.role})",
        requests,
        _size(line.input),
        _size(line.output),
        max(basis, key=BASES.index, default="?"),
        "free" if line.state == "free" else _dollars(line.online),
        "free" if line.state == "free" else _dollars(line.batch, none="-" if line.online else "?"),
    ]


def _status(line: PlanRow) -> str:
    if line.state == "free":
        return ""  # the columns say so
    cap = f", cap ${line.cap / 1e9:,.2f}" if line.cap is not None else ""
    taken = f", ${line.taken / 1e9:,.2f} spent or reserved" if line.taken else ""
    return f"{line.status}{cap}{taken}"


def _notes(plan: Plan) -> list[str]:
    """What a person should know about the sum: the cap, what is missing from it, and what ends soon."""
    notes = []
    if plan.cap is not None:
        left = plan.cap - plan.taken
        verdict = (
            "less than this" if plan.over else "the most of it may be more" if plan.online.high > left else "enough"
        )
        taken = f"${plan.taken / 1e9:,.2f} are spent or reserved"
        notes.append(f"The study's cap is ${plan.cap / 1e9:,.2f}, of which {taken}: {verdict}.")
    elif plan.online.high:
        notes.append("The study has no cap; NIFT_BUDGET_USD sets one.")
    if plan.unknown:
        notes.append(f"Not known, and in no sum: {', '.join(plan.unknown)}.")
    if any(line.online for line in plan.lines if line.state != "free"):
        notes.append("USD at list price: most likely [least-most]. Batch answers within a day, at half the price.")
    return [*notes, *(f"Soon: {warning}." for warning in plan.warnings)]


def _open(report: Report) -> list[str]:
    """The attempts nobody knows the end of, and the batches."""
    lines: list[str] = []
    if report.lost:
        lines += ["", "Unknown: may have been billed; look them up at the provider by the id they left with."]
        lines += [
            f"    {lost.sent_as}  {lost.sent_at[:19]}  {lost.study}/{lost.who}  {lost.cause or '?'}  "
            f"${lost.reserved / 1e9:,.4f} reserved  {lost.key[:16]}" + ("  answered since" if lost.answered else "")
            for lost in report.lost
        ]
        lines += [
            "nift ledger --ask-unknown-again books them as spent and lets the next run ask what is not answered since;",
            "with --not-billed they are freed instead, once the provider's usage page shows that they cost nothing.",
        ]
    if report.batches:
        lines += ["", "Batches:"]
        lines += [
            f"    {batch.id[:16]}  {batch.study}/{batch.who}  {batch.requests:,} requests  {batch.state}"
            + (f"  {batch.provider_id}" if batch.provider_id else "")
            + (f"  {batch.detail}" if batch.detail else "")
            for batch in report.batches
        ]
    return lines


def _account_in_words(account: Account) -> str:
    said = [f"{name} {number}" for name, number in zip(OF_ACCOUNT, _account(account), strict=True)]
    return f"{account.study}/{account.who}\n    {', '.join(said)}"


def _account(account: Account) -> list[str]:
    numbers = (account.sent, account.input_tokens, account.output_tokens)
    return [*(f"{number:,}" for number in numbers), f"{account.spent / 1e9:,.2f}", f"{account.reserved / 1e9:,.2f}"]


def _of_cap(cap: float | None) -> str:
    return f", cap ${cap:,.2f}" if cap is not None else ""


def _size(size: TokenCount | None) -> str:
    """A number of tokens in three digits or so."""
    if size is None:
        return "?"
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size.expected >= unit:
            return f"{size.expected / unit:.1f}{letter}"
    return str(size.expected)


def _dollars(cost: Cost | None, none: str = "?") -> str:
    if cost is None:
        return none
    if cost.low == cost.high:
        return _amount(cost.expected)
    return f"{_amount(cost.expected)} [{_amount(cost.low)}-{_amount(cost.high)}]"


def _amount(billionths: int) -> str:
    return f"{billionths / 1e9:,.0f}" if billionths >= 100e9 else f"{billionths / 1e9:,.2f}"


def _usd(cost: Cost | None) -> dict[str, float] | None:
    return None if cost is None else {name: amount / 1e9 for name, amount in asdict(cost).items()}


def _in_dollars(billionths: int | None) -> float | None:
    return None if billionths is None else billionths / 1e9


def _money(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: row[name] / 1e9 for name in ("spent", "reserved") if name in row}


def _width(table: Sequence[Sequence[str]]) -> int:
    return len(aligned(table)[0])
