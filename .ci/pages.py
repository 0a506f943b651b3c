"""Open README and landing page in headless Chromium as their readers do: two widths, in light and in dark.

``python .ci/pages.py HTML [--shots FOLDER]``, where HTML is the built documentation. Every page is opened at its public
address, and every request to one of ours (`[project.urls]` in pyproject.toml) is answered from the checkout. Nothing is
asked of the network: what lies on other hosts is counted, not looked at. Exit status 1 where a link leads nowhere, a
picture is missing, a page scrolls sideways or its script fails; 3 where no browser is installed.
"""

from __future__ import annotations

import argparse
import itertools
import mimetypes
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from playwright.sync_api import Page, Route, sync_playwright
from readme_renderer import markdown

ROOT = Path(__file__).parents[1]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
SOURCE, DOCUMENTATION = URLS["Source"].rstrip("/"), URLS["Documentation"].rstrip("/") + "/"
RAW = SOURCE.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome", "chrome")
WIDTHS = (1400, 420)
SCHEMES = ("light", "dark")
#: What the documentation's header leads to
HEADER = ("API", "Examples", "Benchmarks")
#: PyPI's pages are light, whatever the reader's system is
ALWAYS_LIGHT = ("README on PyPI",)
#: Hosts of others that we name. Any other one is a mistake in an address of ours, or belongs here
OTHERS = ("img.shields.io", "readthedocs.org", "pydata-sphinx-theme.readthedocs.io", "www.sphinx-doc.org")
#: What stands for pictures of other hosts, as large as a badge
BADGE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="120" height="20"><rect width="120" height="20" fill="#888"/></svg>'
)
#: The widths and the overflow of GitHub's own style, which decide what scrolls; its colours
STYLE = """
body { margin: 0; font: 16px/1.5 sans-serif; } main { max-width: 830px; margin: auto; padding: 16px; }
table { display: block; width: max-content; max-width: 100%; overflow: auto; border-collapse: collapse; }
td, th { border: 1px solid #8888; padding: 6px 13px; } img { max-width: 100%; }
pre { overflow: auto; padding: 16px; background: #8882; } code { font-size: 85%; } a { color: #3b82f6; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; } }
"""
#: What a page tells of itself once it is loaded
LOOK = """() => {
    const seen = each => each.checkVisibility();
    const wide = [...document.querySelectorAll("body *")].filter(each => seen(each) && !each.closest("pre") &&
        (each.getBoundingClientRect().right > innerWidth + 1 || each.scrollWidth > each.clientWidth + 1));
    const scrolls = document.documentElement.scrollWidth > innerWidth;
    const images = [...document.images].filter(seen);
    return {
        wide: scrolls ? wide.slice(-3).map(each => each.outerHTML.slice(0, 80)) : [],
        scrolls,
        tables: [...document.querySelectorAll("table")].filter(
            each => [each, each.parentElement].some(box => box.scrollWidth > box.clientWidth + 1)).length,
        missing: images.filter(each => !each.naturalWidth).map(each => each.src),
        nameless: images.filter(each => !each.alt).map(each => each.src),
        shown: images.map(each => each.currentSrc),
        header: document.querySelector("header")?.textContent ?? "",
        links: [...document.querySelectorAll("a[href]")].map(each => [each.getAttribute("href"), each.href]),
    };
}"""


def found(url: str, html: Path) -> Path | None:
    """Return the file of the checkout that is at one of our addresses."""
    url = unquote(urldefrag(url)[0].split("?")[0])
    if url.startswith(DOCUMENTATION):
        file = html / url.removeprefix(DOCUMENTATION)
        return file / "index.html" if file.is_dir() else file
    if url.startswith(RAW):
        return ROOT / url.removeprefix(RAW)
    if match := re.match(rf"{re.escape(SOURCE)}/(?:blob|tree)/main/(.+)", url):
        return ROOT / match[1]
    if match := re.match(rf"{re.escape(SOURCE)}/actions/workflows/([^/]+)", url):
        return ROOT / ".github" / "workflows" / match[1]
    if url.rstrip("/") in (SOURCE, f"{SOURCE}/issues"):
        return ROOT
    return None


@dataclass
class Visit:
    """A look at one page: what is wrong with it, and which addresses of others it names."""

    url: str
    body: str | None
    html: Path
    wrong: list[str] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)

    def answer(self, route: Route) -> None:
        """Answer a request of the browser from the checkout."""
        url = route.request.url
        file = found(url, self.html)
        if url == self.url and self.body is not None:
            route.fulfill(body=self.body, content_type="text/html; charset=utf-8")
        elif file is None:
            self.leave(url)
            route.fulfill(body=BADGE, content_type="image/svg+xml")
        elif not file.exists():
            self.wrong.append(f"{url} is not there")
            route.fulfill(status=404)
        elif url.endswith("/badge.svg"):
            route.fulfill(body=BADGE, content_type="image/svg+xml")
        else:
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            route.fulfill(body=file.read_bytes(), content_type=kind)

    def leave(self, url: str) -> None:
        """Remember an address of others."""
        self.elsewhere.add(url)
        if urlsplit(url).hostname not in OTHERS:
            self.wrong.append(f"{url} is neither ours nor on a host that we know")

    def follow(self, link: str) -> None:
        """See whether a link leads somewhere."""
        page, anchor = urldefrag(link)
        file = found(page, self.html)
        if page == self.url and self.body is not None:
            target = self.body
        elif file is None:
            self.leave(page)
            return
        elif not file.exists():
            self.wrong.append(f"the link {link} leads nowhere")
            return
        else:
            target = file.read_text() if file.suffix == ".html" else ""
        # GitHub and PyPI put a prefix before the headings' names, and their own links lead there
        if anchor and target and not re.search(rf'id="(user-content-)?{re.escape(anchor)}"', target):
            self.wrong.append(f"the link {link} names a heading that is not there")

    def look(self, page: Page, scheme: str) -> None:
        """Open the page, and collect what is wrong."""
        page.on("pageerror", lambda error: self.wrong.append(f"its script fails: {error}"))
        page.route("**/*", self.answer)
        page.goto(self.url, wait_until="networkidle")
        told: dict[str, Any] = page.evaluate(LOOK)
        if told["scrolls"]:
            self.wrong.append(f"scrolls sideways: {told['wide']}")
        if told["tables"]:
            self.wrong.append(f"{told['tables']} tables are too wide")
        self.wrong += [f"the picture {url} is missing" for url in told["missing"]]
        self.wrong += [f"the picture {url} has no alternative text" for url in told["nameless"]]
        if not any(f"-{scheme}." in url for url in told["shown"]):
            self.wrong.append(f"shows no picture made for {scheme} pages")
        if self.body is None:
            self.wrong += [f"{name} is not in the header" for name in HEADER if name not in told["header"]]
        for written, link in dict.fromkeys(map(tuple, told["links"])):
            if self.body is not None and not written.startswith(("https://", "#")):
                self.wrong.append(f"the link {written} is not absolute")
            else:
                self.follow(link)


def pages() -> Iterator[tuple[str, str, str | None]]:
    """Yield the name of each page, its address, and its text where we render it."""
    text = (ROOT / "README.md").read_text()
    made = {
        "README on GitHub": markdown.variants["GFM"](text),
        "README on PyPI": markdown.render(text),
    }
    for name, body in made.items():
        yield name, SOURCE, f"<!doctype html><title>{name}</title><style>{STYLE}</style><main>{body}</main>"
    yield "landing page", DOCUMENTATION, None


def main() -> int:
    """Look at all pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("html", type=Path, help="the built documentation")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of what was seen")
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 3
    bad, elsewhere = 0, set()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser)
        for (name, url, body), width, scheme in itertools.product(pages(), WIDTHS, SCHEMES):
            visit = Visit(url, body, given.html.resolve())
            page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            visit.look(page, "light" if name in ALWAYS_LIGHT else scheme)
            if given.shots:
                file = f"{name.replace(' ', '-')}-{width}-{scheme}.png"
                page.screenshot(path=given.shots / file, full_page=True)
            page.close()
            print(f"{name}, {width} pixels, {scheme}: {'; '.join(visit.wrong) or 'fine'}")
            bad += len(visit.wrong)
            elsewhere |= visit.elsewhere
        chromium.close()
    print(f"NOT LOOKED AT, since they are on other hosts: {', '.join(sorted(elsewhere))}")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
