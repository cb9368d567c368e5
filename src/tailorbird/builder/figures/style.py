"""The look of the report and its plots: one sheet, light and dark, no network."""

from __future__ import annotations

_LIGHT = {
    "ink": "#1c2530", "soft": "#5d6875", "line": "#d9dee4", "bar": "#9db4cc", "win": "#1f7a4d", "bad": "#b3423a",
    "page": "#ffffff", "panel": "#f5f7f9", "fp32": "#5f6b7a", "half": "#2a6fbb", "int8": "#c4620a", "mixed": "#8a3fb0",
    "weights": "#0f7d70",
}  # fmt: skip
_DARK = {
    "ink": "#e6eaee", "soft": "#9aa5b1", "line": "#333c46", "bar": "#4d6680", "win": "#4fc38a", "bad": "#e8827a",
    "page": "#14191f", "panel": "#1b222a", "fp32": "#a3afbc", "half": "#6fb1f2", "int8": "#f0a050", "mixed": "#cf9bf0",
    "weights": "#4fc7b5",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "; ".join(f"--{name}: {value}" for name, value in colours.items())


def _fixed(sheet: str) -> str:
    """The sheet with light colours written in: a viewer of pictures need not know CSS variables."""
    for name, value in _LIGHT.items():
        sheet = sheet.replace(f"var(--{name})", value)
    return sheet


_MARKS = "".join(
    f".scatter .{name} {{ fill: var(--{name}); stroke: var(--{name}) }}\n"
    for name in ("fp32", "half", "int8", "mixed", "weights")
)

_PLOT = f"""
.scatter {{ font: 11px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; display: block; width: 100%;
  height: auto }}
.scatter .page {{ fill: var(--page) }} .scatter path {{ stroke-width: 1.6 }}
.scatter .grid {{ stroke: var(--line); stroke-width: 1; fill: none }}
.scatter .axis {{ stroke: var(--soft); stroke-width: 1; fill: none }}
.scatter text {{ fill: var(--ink) }} .scatter .tick, .scatter .title {{ fill: var(--soft) }}
.scatter .title {{ font-weight: 600 }} .scatter .end {{ text-anchor: end }} .scatter .middle {{ text-anchor: middle }}
.scatter .budget {{ stroke: var(--bad); stroke-dasharray: 6 4; fill: none }}
.scatter .budget-text {{ fill: var(--bad) }}
.scatter .search {{ stroke: var(--mixed); fill: none; stroke-width: 1.2; opacity: .8 }}
.scatter .plain {{ fill: var(--soft); stroke: var(--soft) }}
{_MARKS}.scatter .refused {{ fill: var(--page) }}
.scatter .ring {{ fill: none; stroke: var(--win); stroke-width: 2.2 }}
.scatter .leader {{ stroke: var(--soft); stroke-width: .8; fill: none }}
.scatter .label {{ paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round }}
.scatter .step {{ fill: var(--mixed) }} .scatter .best {{ font-weight: 700; fill: var(--win) }}
"""

PLOT_STYLE = _fixed(_PLOT)
"""For a plot that is a file of its own: light colours, fixed."""

PAGE_STYLE = f"""
:root {{ color-scheme: light dark; {_variables(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK)} }} }}
body {{ margin: 0 auto; max-width: 80rem; padding: 2rem 1.2rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }}
h1 {{ font-size: 1.6rem; margin: 0; overflow-wrap: anywhere }} h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .6rem }}
h3 {{ font-size: .95rem; margin: .8rem 0 .3rem }}
.lead {{ color: var(--soft); margin: .3rem 0 0 }} .won {{ color: var(--win) }} .lost {{ color: var(--bad) }}
.scroll {{ overflow-x: auto }} table {{ border-collapse: collapse; width: 100%; font-size: .9rem }}
th, td {{ text-align: left; padding: .35rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
td.name {{ white-space: nowrap; font-family: ui-monospace, monospace; font-size: .85rem }}
td.w {{ white-space: nowrap }}
td.why {{ min-width: 13rem }} .track {{ width: 5rem; height: .7rem; margin-top: .4rem; background: var(--panel) }}
.fill {{ height: 100%; background: var(--bar) }} .chosen .fill {{ background: var(--win) }}
.refused td.v, .failed td.v {{ color: var(--bad) }} .early td {{ color: var(--soft) }}
.chosen td {{ font-weight: 600 }} code {{ background: var(--panel); padding: .1rem .3rem; overflow-wrap: anywhere }}
details {{ margin: .6rem 0 0; font-size: .9rem }} summary {{ cursor: pointer; color: var(--soft) }}
ul {{ margin: .3rem 0 0; padding-left: 1.2rem; font-size: .9rem }}
.beside {{ display: grid; grid-template-columns: minmax(0, 8fr) minmax(0, 5fr); gap: 2rem; align-items: start }}
.alone {{ max-width: 54rem }} .narrow {{ display: none }}
.bars {{ display: grid; grid-template-columns: minmax(0, 1fr) 5rem auto; gap: .25rem .6rem; font-size: .85rem;
  align-items: center; margin: .5rem 0 1.2rem }}
.bars .track {{ width: 100%; margin: 0 }} .bars .fill {{ background: var(--int8) }}
.bars .unit {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap }}
.bars .n {{ text-align: right; color: var(--soft); font-variant-numeric: tabular-nums }}
.even .scatter {{ max-width: 28rem }} .even {{ grid-template-columns: minmax(0, 1fr) minmax(0, 1fr) }}
.fill.fp32, .track .fp32 {{ background: var(--fp32) }} .fill.half, .track .half {{ background: var(--half) }}
.fill.int8, .track .int8 {{ background: var(--int8) }} .fill.other, .track .other {{ background: var(--bar) }}
.wide-names {{ grid-template-columns: minmax(0, 1fr) 40% auto }}
.wide-names .unit {{ white-space: normal; overflow-wrap: anywhere }}
.lanes {{ display: grid; grid-template-columns: auto minmax(0, 1fr) auto; gap: .3rem .8rem; align-items: center;
  font-size: .85rem; margin: .6rem 0 1.2rem }}
.lanes .row {{ display: contents }} .lanes .lane {{ overflow-wrap: anywhere; max-width: 17rem }}
.lanes .n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; color: var(--soft) }}
.strip {{ width: 100%; height: 1.5rem; background: var(--panel); display: block }}
.swatch {{ display: inline-block; width: .7rem; height: .7rem; margin-right: .45rem }}
.strip.fp32 {{ fill: var(--fp32) }} .strip.half {{ fill: var(--half) }} .strip.int8 {{ fill: var(--int8) }}
.strip.other, .strip.work {{ fill: var(--bar) }} .swatch.fp32 {{ background: var(--fp32) }}
.swatch.half {{ background: var(--half) }} .swatch.int8 {{ background: var(--int8) }}
.swatch.other {{ background: var(--bar) }} .swatch.work {{ display: none }}
.soft {{ color: var(--soft) }} .legend {{ display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: .4rem 0 .8rem;
  font-size: .85rem; color: var(--soft) }}
.scatter.key {{ display: inline-block; width: .9rem; vertical-align: -.15rem }}
.scatter .series {{ fill: none; stroke-width: 1.4 }} .scatter .spread {{ stroke: var(--soft); stroke-width: 1 }}
.scatter .s0 {{ stroke: var(--half) }} .scatter .s1 {{ stroke: var(--int8); stroke-dasharray: 6 3 }}
.scatter .s2 {{ stroke: var(--weights); stroke-dasharray: 2 3 }} .scatter .s3 {{ stroke: var(--mixed);
  stroke-dasharray: 8 3 2 3 }} .scatter .mark {{ stroke-dasharray: none; stroke-width: 1 }}
.scatter .mark.s0 {{ fill: var(--half) }} .scatter .mark.s1 {{ fill: var(--int8) }}
.scatter .mark.s2 {{ fill: var(--weights) }} .scatter .mark.s3 {{ fill: var(--mixed) }}
.parts td.code {{ font-family: ui-monospace, monospace; font-size: .8rem; overflow-wrap: anywhere; min-width: 10rem }}
.facts th {{ white-space: nowrap; font-weight: 600 }} .facts td {{ width: 100% }}
@media print {{ :root {{ color-scheme: light; {_variables(_LIGHT)} }} * {{ print-color-adjust: exact }}
  body {{ max-width: none; padding: 0 }} .scroll {{ overflow: visible }}
  section, tr, .lanes, h2, h3 {{ break-inside: avoid }} h2, h3 {{ break-after: avoid }} }}
@media (max-width: 60rem) {{ .beside {{ grid-template-columns: minmax(0, 1fr) }} }}
@media (max-width: 40rem) {{ .parts {{ min-width: 42rem }}
  body {{ padding: 1.2rem .8rem }} .wide {{ display: none }} .narrow {{ display: block }}
  .wordy td.name {{ white-space: normal; min-width: 9rem }} .minor {{ display: none }}
  .bars {{ grid-template-columns: minmax(0, 1fr) auto }} .bars .unit {{ grid-column: 1 / -1; margin-top: .3rem }}
  td, th {{ padding: .3rem .4rem }}
  .lanes {{ display: block }} .strip {{ order: 3; grid-column: 1 / -1 }}
  .lanes .row {{ display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: .15rem .6rem; margin-top: .6rem }} }}
{_PLOT}"""
"""For the page, which follows the reader's choice of light or dark."""
