"""A page as Chromium lays it out at a given width."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip

WRAPPER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe style="border:0;width:{width}px;height:{height}px" srcdoc="{page}"></iframe><pre id="result"></pre>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument, wide = [], shapes = [];
  for (const details of page.querySelectorAll("details")) details.open = true;
  for (const one of page.querySelectorAll("html, body *")) {{
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    const told = one.tagName + "." + one.className + " " + one.textContent.trim().slice(0, 40);
    if (box.right > {width} + 0.5 || box.left < -0.5) wide.push("outside: " + told);
    else if (style.display != "inline" && one.scrollWidth > one.clientWidth + 1) wide.push("scrolls: " + told);
    if (one.tagName == "IMG") shapes.push([one.alt, box.width, box.height]);
  }}
  const size = [page.documentElement.scrollWidth, page.documentElement.scrollHeight];
  document.querySelector("#result").textContent = JSON.stringify({{wide, shapes, size}});
}};
</script>"""


def find_chromium() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def lay_out(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """{"wide": what scrolls sideways or sticks out, "shapes": [alt, width, height] of images, "size": of the page}.

    Every `details` is open.
    """
    found = _run(page, width, 800, folder, "--virtual-time-budget=3000", "--dump-dom")
    (text,) = re.findall(r'<pre id="result">(.*?)</pre>', found, re.DOTALL)
    return json.loads(html.unescape(text))


def take_picture(page: Path, width: int, height: int, folder: Path, png: Path) -> Path:
    """A screenshot of the page from its beginning; every `details` is open."""
    _run(page, width, height, folder, "--virtual-time-budget=3000", f"--screenshot={png}")
    return png


def _run(page: Path, width: int, height: int, folder: Path, *options: str) -> str:
    wrapper = folder / f"{page.stem}-{width}.html"
    text = html.escape(page.read_text(encoding="utf-8"))
    wrapper.write_text(WRAPPER.format(width=width, height=height, page=text), encoding="utf-8")
    chromium = find_chromium()
    assert chromium is not None
    command = [
        chromium,
        *QUIET,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(width, 500)},{height}",
    ]
    done = subprocess.run([*command, *options, wrapper.as_uri()], capture_output=True, timeout=90, check=True)
    return done.stdout.decode()
