"""Reading an HTML page as a browser would, and texts that try to be more than text on one."""

from __future__ import annotations

from html.parser import HTMLParser

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://example.org/pixel.png'>",
    "<svg onload=alert(1)>",
    "<iframe src=https://example.org></iframe>",
    "<a href='javascript:alert(1)'>here</a>",
    "<link rel=stylesheet href=//example.org/a.css>",
    "<style>body{display:none}</style>",
    "<style>@import 'https://example.org/a.css'</style>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "<base href=https://example.org/>",
    "<form action=https://example.org><input name=a></form>",
    '"><b>bold</b>',
    "' onmouseover='alert(1)",
    '" style="position:fixed',
    "</title><h1>title</h1>",
    "</td></tr></table><h1>out of the table</h1>",
    "--><!-- <![CDATA[ ]]> <?xml?>",
    "&lt;script&gt; &amp; &#60;b&#62; &NotAnEntity;",
    "{{ 7 * 7 }} {% raw %} {# no comment #}",
    "![image](https://example.org/a.png) [link](javascript:alert(1))",
    "\u202egpj.exe\u202c <b>\u0000</b>",
]

# What they would be on a page, as a selector of a browser, if anything took them for more than text.
ALIVE = (
    "[src='x'], [src*='example.org'], [href^='javascript'], [onerror], [onload], [onmouseover], "
    # A link to the rows of what is called so stays on this server.
    "[href*='example.org']:not([href^='/study/look/'])"
)


class Reading(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
