"""What the demo prints: headings, commands, results, and a small chart that grows while a burst runs.

On a terminal the chart is redrawn in place; elsewhere (a log file, CI) it is printed as a line now and then.
"""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 60
PLAIN_SECONDS = 2.0


def bars(values: Sequence[float], width: int = WIDTH) -> str:
    """The values as a row of at most `width` bars, scaled to the largest; more values are averaged in groups."""
    group = max(1, -(-len(values) // width))
    shown = [sum(values[i : i + group]) / len(values[i : i + group]) for i in range(0, len(values), group)]
    top = max(shown, default=0) or 1
    return "".join(BARS[min(len(BARS) - 1, round(value / top * (len(BARS) - 1)))] for value in shown)


class Screen:
    """Prints to `out`; colours and redrawing only where it is a terminal."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._tty = out.isatty()
        self._drawn = 0
        self._last_plain = float("-inf")

    def heading(self, text: str) -> None:
        self._print(f"\n{self._style('1', '■ ' + text)}")

    def command(self, text: str) -> None:
        self._print(self._style("36", f"  $ {text}"))

    def output(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self._print(f"    {line}")

    def right(self, text: str) -> None:
        self._print(f"  {self._style('32', '✓')} {text}")

    def wrong(self, text: str) -> None:
        self._print(f"  {self._style('31', '✗')} {text}")

    def chart(self, rows: Sequence[tuple[str, Sequence[float], str]]) -> None:
        """Draws rows of (name, values so far, caption), over the last drawing where that is possible."""
        if not self._tty:
            if time.monotonic() - self._last_plain >= PLAIN_SECONDS:
                self._last_plain = time.monotonic()
                self._print("    " + "   ".join(f"{name.strip()} {caption}" for name, _, caption in rows))
            return
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A")
        for name, values, caption in rows:
            self._out.write(f"\x1b[2K    {name:>9} {bars(values):<{WIDTH}} {caption}\n")
        self._out.flush()
        self._drawn = len(rows)

    def chart_done(self, rows: Sequence[tuple[str, Sequence[float], str]]) -> None:
        """Ends the chart; elsewhere than on a terminal this is where its whole course is printed."""
        if not self._tty:
            for name, values, caption in rows:
                self._print(f"    {name:>9} {bars(values)} {caption}")
        self._drawn = 0
        self._last_plain = float("-inf")

    def _style(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._tty else text

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
