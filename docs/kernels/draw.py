"""Draws the four pictures of docs/kernels.md: `python docs/kernels/draw.py`. Plain SVG, no package needed."""

from __future__ import annotations

from pathlib import Path

INK, LINE, PAPER = "#222222", "#666666", "#ffffff"
BLUE, ORANGE, GREEN, GREY, RED = "#a8c8ec", "#f5b971", "#b5dba5", "#dddddd", "#c0392b"
COLUMNS = ("#a8c8ec", "#c5b0e0", "#b5dba5", "#f5b971")
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" font-family="sans-serif" font-size="13" '
    'fill="{2}">\n<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{3}"/></marker></defs>\n'
    '<rect width="{0}" height="{1}" fill="{4}"/>'
)


class Picture:
    """Boxes, words and arrows, written as one SVG."""

    def __init__(self, name: str, width: int, height: int) -> None:
        self.name = name
        self.parts = [HEAD.format(width, height, INK, LINE, PAPER)]

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        fill: str,
        text: str = "",
        size: int = 12,
    ) -> None:
        """A filled box with a word in its middle."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}" stroke="{LINE}"/>'
        )
        if text:
            self.word(
                x + w / 2, y + h / 2 + size * 0.36, text, size=size, anchor="middle"
            )

    def word(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 13,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text; y is its base line."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight}>{text}</text>'
        )

    def arrow(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        color: str = LINE,
        dashed: bool = False,
    ) -> None:
        """A straight arrow."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" stroke-width="1.6"{dash} '
            'marker-end="url(#tip)"/>'
        )

    def write(self) -> None:
        """Write NAME.svg beside this script."""
        path = Path(__file__).with_name(f"{self.name}.svg")
        path.write_text("\n".join([*self.parts, "</svg>"]) + "\n")


def layout() -> None:
    """One block's gates as a matrix, and where its columns lie in memory on a GPU and on a CPU."""
    p = Picture("layout", 760, 330)
    p.word(20, 28, "one block at one step (m = 3)", bold=True)
    for i in range(3):
        for j, color in enumerate(COLUMNS):
            p.box(
                20 + 52 * j,
                44 + 36 * i,
                48,
                32,
                color,
                f"a{i + 1}{j + 1}" if j < 3 else f"a{i + 1}0",
            )
    p.word(20, 172, "columns 1 … m: transitions")
    p.word(20, 190, "last column: input gate")
    p.word(280, 28, "GPU: gate columns outermost", bold=True)
    p.word(280, 46, "one step t, from left to right in memory", size=12)
    for j, color in enumerate(COLUMNS):
        x = 280 + 115 * j
        for n in range(3):
            for i in range(3):
                p.box(x + 36 * n + 12 * i, 56, 12, 30, color)
            p.word(x + 36 * n + 18, 100, f"n{n + 1}", size=11, anchor="middle")
    for j, name in enumerate(["column 1", "column 2", "column 3", "input gates"]):
        p.word(280 + 115 * j + 54, 118, name, size=12, anchor="middle")
    for n in range(3):
        for i in range(3):
            p.box(280 + 36 * n + 12 * i, 136, 12, 30, GREY)
    p.word(400, 156, "values and states: the same order (block, row)", size=12)
    p.word(
        280,
        196,
        "Each column is laid out like the values, so one index serves all.",
        size=12,
    )
    p.word(20, 238, "CPU: blocks innermost", bold=True)
    p.word(
        20,
        256,
        "one step t: for every row i and column j the N blocks side by side, in vector registers",
        size=12,
    )
    for k in range(12):
        i, j = divmod(k, 4)
        for n in range(3):
            p.box(20 + 60 * k + 18 * n, 268, 18, 30, COLUMNS[j])
        p.word(
            20 + 60 * k + 27, 314, f"a{i + 1}{(j + 1) % 4}", size=11, anchor="middle"
        )
    p.write()


def passes() -> None:
    """Warps of one program over time: load, normalise, scan; the state is handed from warp to warp."""
    p = Picture("passes", 760, 300)
    p.word(20, 26, "four warps of one program, time from left to right", bold=True)
    row, step = 46, 84
    for w in range(4):
        y = 44 + row * w
        p.word(20, y + 22, f"warp {w + 1}")
        for round_ in range(2):
            x = 84 + step * w + 4 * step * round_
            if x > 84:
                p.box(x - 84, y, 34, 34, GREY, "load", 11)
            p.box(
                x - 50 if x > 84 else 84,
                y,
                50 if x > 84 else 0,
                34,
                BLUE,
                "norm." if x > 84 else "",
                11,
            )
            if x + step <= 750:
                p.box(x, y, step, 34, ORANGE, f"scan tile {4 * round_ + w + 1}", 12)
            if w < 3 and x + step <= 740:
                p.arrow(x + step, y + 34, x + step, y + row, RED)
    y = 44 + row * 4 + 10
    for k, (color, text) in enumerate(
        [
            (GREY, "copy gates of a tile to shared memory"),
            (BLUE, "raw gates → weights, in registers"),
            (ORANGE, "h = A h + a0 v, step by step"),
        ]
    ):
        p.box(20 + 250 * k, y, 16, 16, color)
        p.word(42 + 250 * k, y + 13, text, size=12)
    note = "Arrows hand the state over through shared memory. Only the orange part is sequential; the rest overlaps."
    p.word(20, y + 42, note, size=12)
    p.write()


def chunks() -> None:
    """A long sequence cut into chunks: local pass, inter-chunk scan, fix-up pass."""
    p = Picture("chunks", 760, 330)
    left, width = 190, 130
    names = ["chunk 1", "chunk 2", "chunk 3", "chunk 4"]
    p.word(20, 30, "1  local pass", bold=True)
    p.word(20, 48, "all chunks at once,", size=12)
    p.word(20, 64, "each from zero", size=12)
    p.word(20, 150, "2  inter-chunk scan", bold=True)
    p.word(20, 168, "states at boundaries,", size=12)
    p.word(20, 184, "one after another", size=12)
    p.word(20, 254, "3  fix-up pass", bold=True)
    p.word(20, 272, "all chunks at once", size=12)
    for k, name in enumerate(names):
        x = left + (width + 10) * k
        p.box(x, 24, width, 36, BLUE, name)
        p.arrow(x + width / 2, 60, x + width / 2, 84)
        keeps = k == 2
        p.box(
            x + 15,
            88,
            width - 30,
            34,
            ORANGE if keeps else GREEN,
            "A, b" if keeps else "forgets",
            12,
        )
        if k < 3:
            p.box(x + width - 20, 152, 50, 30, GREY, f"h{k + 1}")
        if k < 2:
            p.arrow(x + width + 30, 167, x + width + 120, 167, RED)
        if k > 0:
            p.arrow(x + 6, 184, x + 6, 240)
            part = width if keeps else 34
            p.box(x, 244, part, 36, ORANGE)
            if not keeps:
                p.box(x + part, 244, width - part, 36, PAPER, "kept", 12)
            p.word(
                x + 4,
                300,
                "all steps again" if keeps else "active steps again",
                size=12,
            )
        else:
            p.box(x, 244, width, 36, PAPER, "kept", 12)
    p.write()


def backward() -> None:
    """What the backward pass keeps, reads and computes again."""
    p = Picture("backward", 760, 300)
    p.word(20, 30, "forward", bold=True)
    p.word(20, 190, "backward", bold=True)
    x0, gap = 120, 150
    for t in range(4):
        x = x0 + gap * t
        p.box(x, 60, 70, 36, GREEN, f"h{t}" if t else "h0", 13)
        p.word(x + 35, 50, "stored", size=11, anchor="middle")
        if t < 3:
            p.arrow(x + 70, 78, x + gap, 78)
            p.word(x + 70 + (gap - 70) / 2, 70, f"W{t + 1}", anchor="middle")
            p.box(x + 82, 100, 56, 26, BLUE, f"gates {t + 1}", 11)
            p.arrow(x + 110, 100, x + 110, 82)
        p.box(x, 206, 70, 36, ORANGE, f"λ{t}", 13)
        if t < 3:
            p.arrow(x + gap, 224, x + 70, 224, RED)
            p.word(x + 70 + (gap - 70) / 2, 216, f"W{t + 1}ᵀ", anchor="middle")
            p.arrow(x + 110, 126, x + 110, 200, dashed=True)
            p.arrow(x + 35, 96, x + 96, 250, dashed=True)
            p.box(x + 82, 252, 62, 28, PAPER, f"∂ gates {t + 1}", 11)
    p.word(660, 160, "dashed:", size=12)
    p.word(660, 176, "read again", size=12)
    p.write()


if __name__ == "__main__":
    for draw in (layout, passes, chunks, backward):
        draw()
