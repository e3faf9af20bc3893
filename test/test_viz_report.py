"""The HTML report: one file that needs nothing else, escapes everything and is well formed and accessible."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from come_nav.core.errors import ShapeError, StorageError
from come_nav.viz.figures import contact_sheet
from come_nav.viz.report import HtmlReport

VOID = {"meta", "img", "source", "br", "hr", "link", "input"}
NASTY = "<script>alert('x')</script> & \"quoted\""


class Page(HTMLParser):
    """Collects tags and text, and fails on a tag that closes out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def full_report() -> tuple[HtmlReport, bytes]:
    png = contact_sheet([np.zeros((4, 6, 3), np.uint8)], 1, gap_px=0)
    report = HtmlReport(f"title {NASTY}", f"subtitle {NASTY}", footer=f"footer {NASTY}")
    for heading in ("Results", "Results", NASTY):
        report.heading(heading)
    report.heading("Detail", level=3)
    report.text(f"first {NASTY}\n\nsecond, see http://example.org")
    report.table([NASTY, "ATE [m]"], [[NASTY, 0.5], ["world model", "0.25"]], NASTY, highlight=["world model", (0, 1)])
    report.figure(png, f"caption {NASTY}", alt=f"alt {NASTY}")
    report.video(b"not really a video", f"caption {NASTY}")
    report.key_values({NASTY: NASTY})
    report.code(NASTY, summary=NASTY)
    return report, png


def test_page_is_well_formed_and_escaped() -> None:
    page = Page(full_report()[0].html())
    assert not page.all("script")
    text = " ".join(page.words)
    for part in ("title", "subtitle", "footer", "first", "caption"):
        assert f"{part} {NASTY}" in text
    assert page.all("img")[0]["alt"] == f"alt {NASTY}"


def test_page_needs_nothing_from_elsewhere() -> None:
    html = full_report()[0].html()
    for tag, attributes in Page(html).tags:
        for name in ("src", "href", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]}>"
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in html
    assert not re.search(r"url\(", html)


def test_images_are_the_bytes_that_were_given() -> None:
    report, png = full_report()
    page = Page(report.html())
    image = page.all("img")[0]
    assert base64.b64decode(str(image["src"]).split(",", 1)[1]) == png
    assert (image["width"], image["height"]) == ("6", "4")
    assert base64.b64decode(str(page.all("source")[0]["src"]).split(",", 1)[1]) == b"not really a video"


def test_contents_point_at_distinct_headings() -> None:
    page = Page(full_report()[0].html())
    anchors = [str(attributes["id"]) for attributes in page.all("h2")]
    assert len(set(anchors)) == 3
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{anchor}" for anchor in anchors]


def test_table_marks_rows_and_cells() -> None:
    html = full_report()[0].html()
    assert '<tr class="highlight"><th scope="row">world model</th><td>0.25</td></tr>' in html
    assert '<td class="highlight">0.5</td>' in html


def test_accessible_basics() -> None:
    page = Page(full_report()[0].html())
    assert page.all("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert all(image.get("alt") for image in page.all("img"))
    assert all(video.get("aria-label") and "controls" in video for video in page.all("video"))
    assert all(cell.get("scope") for cell in page.all("th"))


def test_write_is_atomic_and_refuses_a_file_as_folder(tmp_path: Path) -> None:
    report, _ = full_report()
    target = report.write(tmp_path / "a" / "report.html")
    assert target.read_text(encoding="utf-8") == report.html()
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    with pytest.raises(StorageError):
        report.write(target / "below.html")


def test_wrong_blocks_are_refused() -> None:
    report = HtmlReport("t")
    with pytest.raises(ShapeError, match="row 0"):
        report.table(["a", "b"], [["only one"]])
    with pytest.raises(ShapeError, match="PNG"):
        report.figure(b"GIF89a", "caption")
    with pytest.raises(ShapeError, match="level"):
        report.heading("x", level=4)


def test_intervals_take_a_line_of_their_own() -> None:
    report = HtmlReport("t")
    report.table(["row", "ATE [m]"], [["a", "0.5 [0.4, 0.6]"], ["c", "no [interval] here"]])
    assert '<td>0.5 <span class="interval">[0.4, 0.6]</span></td>' in report.html()
    assert "<td>no [interval] here</td>" in report.html()
