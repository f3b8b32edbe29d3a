"""Names that would lead out of the warehouse: refused wherever a row or a command can have one."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from nift_assets.store import Store
from nift_assets.study import KINDS, SAFE_NAME
from tests.conftest import nift_here
from tests.counting import Counts
from tests.demo import STUDY

UP = ["..", "../x", "../../etc/passwd", "a/../../x", "/etc/passwd", "//host/share", "~/x", "./x", "x/", "a/b", "."]
WINDOWS = [r"..\x", "C:\\x", "C:x", "\\\\host\\x", "a\\b", "con:", "x:y"]
WORDS = ["", " ", " x", "x ", "a b", "A", "Ä", "é", "ß", "名", "a…b", "a..b", "-", "--all", "-rf", "x" * 97, "x" * 300]
SIGNS = [f"a{sign}b" for sign in "\0\n\r\t\x1b\x7f*?[]{}()<>|&;$`'\"!#%^=+,@:~\u202e\u200b\ufeff\u2215\uff0f\u2024"]
ENDS = [
    f"{name}{end}" for name in ("x", "x.parquet") for end in ("\0", "\n", "/", "/.", "/..", "\u2028", "\x85", "%00")
]
ENCODED = [quote(name, safe="") for name in UP] + [quote(quote(name, safe=""), safe="") for name in UP]
BEGINS = [f"{begin}{name}" for begin in (".", "/", "file://", "s3://", "hf://") for name in ("x", "x/y", "hidden.y")]
LOOKALIKES = [name.translate({ord("."): "\u2024", ord("/"): "\u2044"}) for name in UP]
COMPOSED = [unicodedata.normalize("NFD", name) for name in ("é", "x-å", "ï.y")]
LONG = ["/".join([".."] * count) for count in range(2, 40)] + ["../" * count + "x" for count in range(2, 40)]
NAMES = list(dict.fromkeys([*UP, *WINDOWS, *WORDS, *SIGNS, *ENDS, *ENCODED, *BEGINS, *LOOKALIKES, *COMPOSED, *LONG]))
# A name with a NUL is refused as a text already.
REFUSED = "cannot be a partition key|has characters that no table can hold"
HARMLESS = {"-", "--all", "-rf"}  # a folder may be called so
HOSTILE = [name for name in NAMES if name not in HARMLESS]


@pytest.mark.fault("X7", runs="200 names in each kind of row")
def test_no_row_of_any_kind_has_a_name_that_leads_elsewhere(counts: Counts) -> None:
    kinds = [kind for kind in KINDS if getattr(STUDY, kind)]
    assert len(HOSTILE) >= 200
    # The row alone: the fields of all the others would be looked at again for each name.
    nothing = dict.fromkeys(KINDS, ())
    for name in HOSTILE:
        for kind in kinds:
            with pytest.raises(ValueError, match=REFUSED):
                replace(STUDY, **{**nothing, kind: (replace(getattr(STUDY, kind)[0], name=name),)})
        with pytest.raises(ValueError, match=REFUSED):
            replace(STUDY, **nothing, name=name)
    counts("X7", f"{len(HOSTILE)} names in {len(kinds)} kinds of rows and for the study: all refused")


@pytest.mark.fault("X7")
def test_no_partition_that_is_asked_for_leads_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "in" / "warehouse"
    environment = {**os.environ, "NIFT_WAREHOUSE": str(root), "DAGSTER_HOME": str(tmp_path / "in" / "home")}
    for name in ("../../x", "/etc/passwd", ".."):
        said = nift_here("run", "completions", "--partition", name, environment=environment)
        assert said.returncode != 0, name
        assert said.stderr.count("\n") == 1, said.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert list(root.rglob("*.parquet")) == []


def test_a_name_that_is_taken_lies_in_the_warehouse_whatever_it_is(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path / "warehouse"), study="demo")
    taken = [name for name in (*NAMES, "a.b", "x.parquet", "a-b", "x" * 96, "0") if SAFE_NAME.fullmatch(name)]
    assert len(taken) >= 4
    for name in taken:
        assert store.path("t", name).resolve().parent == (tmp_path / "warehouse" / "demo" / "t").resolve()
