"""What was decided for a deployment, and why."""

import dataclasses
import html
import json
import os
import sys
from typing import Any


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run the model that was looked at. Times are of whole runs; 0 and no runs: not measured."""

    backend: str
    device: str
    threads: int
    precision: str
    median_us: float
    min_us: float
    runs: int
    chosen: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Fallback:
    """A node that does not run on a native kernel of the chosen backend; `runs_on` is generic, reference or host."""

    node: str
    op: str
    runs_on: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Bytes that went from one memory to another over all runs, and why; `ahead_bytes` of the copied ones were brought
    while the device before was at work."""

    source: str
    target: str
    why: str
    times: int
    copied_bytes: int
    shared_bytes: int
    ahead_bytes: int


def _fill(row_type: type, row: dict[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(row_type)}
    return row_type(**{k: v for k, v in row.items() if k in known})


class Report:
    """The record of a deployment. Every key of the library's report is an attribute; `as_dict` gives them all."""

    def __init__(self, text: str):
        self._json = text
        self._values: dict[str, Any] = json.loads(text)
        self.candidates: list[Candidate] = [_fill(Candidate, c) for c in self._values["candidates"]]
        self.fallbacks: list[Fallback] = [_fill(Fallback, f) for f in self._values["fallbacks"]]
        self.transfers: list[Transfer] = [_fill(Transfer, {"source": t["from"], "target": t["to"], **t})
                                          for t in self._values["transfers"]]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"A report has no {name!r}; it has {', '.join(self.__dict__.get('_values', ()))}.") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def as_dict(self) -> dict[str, Any]:
        return json.loads(self._json)

    def to_json(self) -> str:
        return self._json

    def __repr__(self) -> str:
        return f"Report({self.model}: {self.backend} on {self.device}, {self.threads} threads, {self.nodes} nodes)"


def _time(us: float) -> str:
    return f"{us / 1e6:.3f} s" if us >= 1e6 else f"{us / 1e3:.3f} ms" if us >= 1e3 else f"{us:.2f} µs"


def _size(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.2f} GiB"


class Explanation:
    """Why a deployment runs as it does: text when printed (coloured in a terminal), a table in Jupyter."""

    _CANDIDATE_HEADS = ("", "backend", "threads", "precision", "median", "least", "runs", "reason")
    _FALLBACK_HEADS = ("node", "operator", "runs on", "reason")

    def __init__(self, report: Report):
        self.report = report

    def _facts(self) -> list[tuple[str, str]]:
        r = self.report
        return [
            ("Model", f"{r.model}, {r.model_kind}, {r.nodes} nodes in {r.regions} regions"),
            ("Device", f"{r.device}: backend {r.backend}, {r.threads} threads, {r.precision}"),
            ("Because", next((c.reason for c in r.candidates if c.chosen), "it is the only candidate")),
            ("Time", f"loading {_time(r.load_us)}, compiling and measuring {_time(r.compile_us)}"),
            ("Memory", f"packed weights {_size(r.weight_bytes)}, working memory {_size(r.arena_bytes)}"),
            *[("Moved", f"{t.source} to {t.target}, {t.why}: {_size(t.copied_bytes)} copied, "
                        f"{_size(t.shared_bytes)} shared in {t.times} transfers") for t in r.transfers],
        ]

    def _candidates(self) -> list[tuple[str, ...]]:
        return [("*" if c.chosen else "", c.backend, str(c.threads or ""), c.precision,
                 _time(c.median_us) if c.runs else "not measured", _time(c.min_us) if c.runs else "", str(c.runs or ""),
                 c.reason) for c in self.report.candidates]

    def _fallbacks(self) -> list[tuple[str, ...]]:
        return [(f.node, f.op, f.runs_on, f.reason) for f in self.report.fallbacks]

    def text(self, colour: bool = False) -> str:
        """Plain text, or with terminal colours."""
        bold, dim, good, plain = ("\033[1m", "\033[2m", "\033[32m", "\033[0m") if colour else ("",) * 4
        lines = [f"{bold}{name:8}{plain}  {value}" for name, value in self._facts()]

        def table(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
            widths = [max(map(len, column)) for column in zip(heads, *rows)]
            lines.extend(["", f"{bold}{title}{plain}",
                          dim + "  ".join(h.ljust(w) for h, w in zip(heads, widths)).rstrip() + plain])
            for row in rows:
                line = "  ".join(v.ljust(w) for v, w in zip(row, widths)).rstrip()
                lines.append(good + line + plain if row[0] == "*" else line)

        table("Candidates", self._CANDIDATE_HEADS, self._candidates())
        if self.report.fallbacks:
            table("Nodes without a native kernel", self._FALLBACK_HEADS, self._fallbacks())
        else:
            lines += ["", "Every node runs on a native kernel."]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text(colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
            head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
            body = "".join("<tr>" + "".join(f"<td>{html.escape(v)}</td>" for v in row) + "</tr>" for row in rows)
            return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

        facts = "".join(f"<tr><th>{n}</th><td>{html.escape(v)}</td></tr>" for n, v in self._facts())
        parts = [f"<table>{facts}</table>", "<h4>Candidates</h4>", table(self._CANDIDATE_HEADS, self._candidates())]
        if self.report.fallbacks:
            parts += ["<h4>Nodes without a native kernel</h4>", table(self._FALLBACK_HEADS, self._fallbacks())]
        return "\n".join(parts)
