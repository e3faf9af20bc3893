"""One self-contained HTML file: text, tables, figures and videos, readable offline, on a phone and in print."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from come_nav.core.errors import ShapeError
from come_nav.core.files import atomic_write_text
from come_nav.viz.report_style import CSS

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INTERVAL = re.compile(r"^(\S+) (\[[^\[\]]+\])$")  # "0.123 [0.100, 0.150]": the interval goes on a line of its own


class HtmlReport:
    """Builds a page block by block; all text is escaped, images and videos are inside the file.

    Example:
        >>> report = HtmlReport("Planning in world 20003", "built-in tour, 40 windows")
        >>> report.heading("Results")
        >>> report.table(["row", "ATE [m]"], [["stand still", "0.90"]], caption="n = 40 windows")
        >>> "stand still" in report.html()
        True
    """

    def __init__(self, title: str, subtitle: str = "", footer: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.footer = footer
        self._blocks: list[str] = []
        self._contents: list[tuple[str, str]] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Start a section (level 2, listed at the top of the page) or a subsection (level 3)."""
        if level not in (2, 3):
            raise ShapeError(f"a report has headings of level 2 and 3, got {level}")
        anchor = self._anchor(text)
        if level == 2:
            self._contents.append((anchor, text))
        self._blocks.append(f'<h{level} id="{anchor}">{escape(text)}</h{level}>')

    def text(self, text: str) -> None:
        """Add plain text; an empty line starts a new paragraph."""
        paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
        self._blocks.extend(f"<p>{escape(part)}</p>" for part in paragraphs)

    def code(self, text: str, summary: str = "") -> None:
        """Add preformatted text such as a command; with ``summary`` it is folded away until clicked."""
        block = f"<pre><code>{escape(text)}</code></pre>"
        if summary:
            block = f"<details><summary>{escape(summary)}</summary>{block}</details>"
        self._blocks.append(block)

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
        caption: str = "",
        highlight: Collection[str | int | tuple[int, int]] = (),
    ) -> None:
        """Add a table: first column flush left (row names), the others flush right.

        Args:
            header: column names, with units.
            rows: cells; anything but text is shown with ``str``.
            caption: what the numbers are, with n and the kind of interval.
            highlight: rows to mark by their first cell or index, and single cells as (row, column) indices.
        """
        for index, row in enumerate(rows):
            if len(row) != len(header):
                raise ShapeError(f"row {index} of the table has {len(row)} cells, the header has {len(header)}")
        head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
        body = "".join(_table_row(index, row, highlight) for index, row in enumerate(rows))
        note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._blocks.append(
            f'<figure><div class="scroll" role="region" aria-label="{escape(caption or "table")}" tabindex="0">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}</figure>"
        )

    def figure(self, png: bytes, caption: str, alt: str = "") -> None:
        """Add a PNG with a caption; ``alt`` tells people who cannot see it what it shows (default: the caption)."""
        if not png.startswith(_PNG_SIGNATURE):
            raise ShapeError("HtmlReport.figure takes PNG bytes")
        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
        self._blocks.append(
            f'<figure><img src="data:image/png;base64,{_base64(png)}" width="{width}" height="{height}" '
            f'alt="{escape(alt or caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        )

    def video(self, mp4: bytes, caption: str, alt: str = "") -> None:
        """Add an MP4 with controls; it loops and does not start by itself."""
        self._blocks.append(
            f'<figure><video controls loop muted playsinline preload="metadata" aria-label="{escape(alt or caption)}">'
            f'<source src="data:video/mp4;base64,{_base64(mp4)}" type="video/mp4">'
            f"This browser does not play the video.</video><figcaption>{escape(caption)}</figcaption></figure>"
        )

    def key_values(self, mapping: Mapping[str, Any]) -> None:
        """Add settings or facts as pairs of name and value."""
        pairs = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in mapping.items())
        self._blocks.append(f"<dl>{pairs}</dl>")

    def html(self) -> str:
        """Return the whole page."""
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ""
        footer = f"<footer>{escape(self.footer)}</footer>" if self.footer else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{escape(self.title)}</h1>{subtitle}</header>\n{self._navigation()}"
            + "\n".join(self._blocks)
            + f"\n{footer}\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: Path | str) -> Path:
        """Write the page atomically; raise StorageError when the folder cannot be written."""
        target = Path(path)
        atomic_write_text(target, self.html())
        return target

    def _anchor(self, text: str) -> str:
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        used = sum(f'id="{base}' in block for block in self._blocks)
        return f"{base}-{used + 1}" if used else base

    def _navigation(self) -> str:
        if len(self._contents) < 3:
            return ""
        items = "".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for anchor, text in self._contents)
        return f'<nav aria-label="Contents"><ul>{items}</ul></nav>\n'


def _table_row(index: int, row: Sequence[Any], highlight: Collection[str | int | tuple[int, int]]) -> str:
    marked = index in highlight or (len(row) > 0 and str(row[0]) in highlight)
    cells = []
    for column, cell in enumerate(row):
        text = _INTERVAL.sub(r'\1 <span class="interval">\2</span>', escape(str(cell)))
        if column == 0:
            cells.append(f'<th scope="row">{text}</th>')
        else:
            cells.append(f'<td class="highlight">{text}</td>' if (index, column) in highlight else f"<td>{text}</td>")
    return f'<tr class="highlight">{"".join(cells)}</tr>' if marked else f"<tr>{''.join(cells)}</tr>"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
