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

WRAPPER = """<!doctype html><meta charset="utf-8"><body style="margin:0">{frames}<pre id="result"></pre>
<script>
const found = {{}}, frames = [...document.querySelectorAll("iframe")];
for (const frame of frames) frame.onload = () => {{
  const page = frame.contentDocument, width = frame.clientWidth, wide = [], shapes = [];
  for (const details of page.querySelectorAll("details")) details.open = true;
  for (const one of page.querySelectorAll("html, body *")) {{
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    const told = one.tagName + "." + one.className + " " + one.textContent.trim().slice(0, 40);
    if (box.right > width + 0.5 || box.left < -0.5) wide.push("outside: " + told);
    else if (style.display != "inline" && one.scrollWidth > one.clientWidth + 1) wide.push("scrolls: " + told);
    if (one.tagName == "IMG") shapes.push([one.alt, box.width, box.height]);
  }}
  found[width] = {{wide, shapes, size: [page.documentElement.scrollWidth, page.documentElement.scrollHeight]}};
  if (Object.keys(found).length == frames.length)
    document.querySelector("#result").textContent = JSON.stringify(found);
}};
</script>"""

FRAME = '<iframe style="border:0;display:block;width:{width}px;height:800px" srcdoc="{page}"></iframe>'


def find_chromium() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def lay_out(page: Path, widths: tuple[int, ...], folder: Path) -> dict[int, dict[str, Any]]:
    """{"wide": what scrolls sideways or sticks out, "shapes": [alt, width, height] of images, "size": of the page} for
    every width.

    Every `details` is open.
    """
    text = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(FRAME.format(width=width, page=text) for width in widths)
    wrapper = folder / f"{page.stem}.html"
    wrapper.write_text(WRAPPER.format(frames=frames), encoding="utf-8")
    chromium = find_chromium()
    assert chromium is not None
    command = [
        chromium, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--window-size={max(widths)},800",
        "--virtual-time-budget=3000", "--dump-dom", wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=90, check=True)
    (found,) = re.findall(r'<pre id="result">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
    return {int(width): told for width, told in json.loads(html.unescape(found)).items()}
