"""The contracts of all tables as one HTML page that needs no network: what each table promises, and whether it does.

Whatever is data is shown as plain text, and the one script on the page, which filters it, is named by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from expectations.contract import Contract, ContractTest
from expectations.results import LastResult, verdict
from nift_assets.pages import html_templates
from nift_assets.study import Study

TEMPLATE = Path(__file__).with_name("docs.html.j2")

SCRIPT = """
const search = document.getElementById("search");
const found = document.getElementById("found");
const items = [...document.querySelectorAll("[data-text]")];
function filter() {
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const item of items) {
    item.hidden = !words.every(word => item.dataset.text.includes(word));
    shown += item.matches("section") && !item.hidden ? 1 : 0;
  }
  for (const group of document.querySelectorAll("nav div"))
    group.hidden = !group.querySelector("a:not([hidden])");
  found.textContent = words.length ? shown + (shown === 1 ? " table" : " tables") : "";
}
search.addEventListener("input", filter);
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape") { search.value = ""; filter(); }
});
"""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One stored partition of a table, or one that was not made yet or is damaged: then there are no rows to count."""

    partition: str | None
    rows: int | None
    damage: str | None = None


@dataclass(frozen=True, kw_only=True)
class DocumentedTable:
    """A table as it is documented: its contract, its place in the graph, what is stored, the last results by test."""

    contract: Contract
    group: str
    made_by: str
    partitions: str | None
    upstream: Sequence[str]
    downstream: Sequence[str]
    stored: Sequence[Stored]
    results: Mapping[str, Sequence[LastResult]]

    @property
    def name(self) -> str:
        return self.contract.table

    @property
    def grain(self) -> str:
        """The first sentence of the description, which says what a row is."""
        return self.contract.description.split(". ")[0].rstrip(".") + "."

    @property
    def more(self) -> str:
        return self.contract.description.removeprefix(self.grain).strip()

    @property
    def table_tests(self) -> list[ContractTest]:
        return [test for test in self.contract.tests if test.column is None]

    def column_tests(self, column: str) -> list[ContractTest]:
        return [test for test in self.contract.tests if test.column == column]

    def verdict(self, test: ContractTest) -> str:
        return verdict(test, self.results.get(test.name, ()))

    @property
    def state(self) -> str:
        """How the table stands: the worst of its tests."""
        verdicts = {self.verdict(test) for test in self.contract.tests}
        return next((verdict for verdict in ("failed", "warned", "passed") if verdict in verdicts), "not run")

    @property
    def words(self) -> str:
        """What the search box looks through, in small letters."""
        words = [self.name, self.contract.description, self.group]
        words += [f"{column.name} {column.type} {column.description}" for column in self.contract.columns]
        words += [f"{test.name} {test.description}" for test in self.contract.tests]
        return " ".join(words).lower()


def page(study: Study, tables: Sequence[DocumentedTable], *, made_at: datetime) -> str:
    """The page of all tables, in the order given, grouped by their groups."""
    groups: dict[str, list[DocumentedTable]] = {}
    for table in tables:
        groups.setdefault(table.group, []).append(table)
    verdicts = [table.verdict(test) for table in tables for test in table.contract.tests]
    return _template().render(
        study=study,
        groups=groups,
        known={table.name for table in tables},
        verdicts={name: verdicts.count(name) for name in ("passed", "warned", "failed", "not run")},
        made=made_at,
        script=Markup(SCRIPT),  # ours, and the policy of the page lets no other run
        script_digest=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
    )


@cache
def _template() -> jinja2.Template:
    environment = html_templates.environment(TEMPLATE.parent, at=_at, count=_count, code=_code, breakable=_breakable)
    return environment.get_template(TEMPLATE.name)


def _code(text: str) -> Markup:
    """A text in which what stands between backticks is code; all of it is escaped before."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _breakable(name: str) -> str:
    """A column's name that may break behind an underscore; `Markup` escapes what it joins."""
    return Markup("_<wbr>").join(name.split("_"))


def _at(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
