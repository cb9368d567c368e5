"""The look of the demo's page: light and dark, wide and narrow, no script, no network."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2622; --soft: #5c6862; --line: #dde3de; --page: #fbfaf6; --card: #ffffff;
  --leaf: #2c7a52; --leaf-pale: #e3f0e8; --bar: #b9c4bd; --rival: #c98a3a; --bad: #b3423a;
  --mono: ui-monospace, "SF Mono", Menlo, monospace }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ece9; --soft: #9aa7a0; --line: #323b36; --page: #141816;
  --card: #1b211e; --leaf: #58c48e; --leaf-pale: #1f3429; --bar: #4c5a53; --rival: #dba45c; --bad: #e8827a } }

* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 3rem }
header svg { width: 3rem; height: 3rem; color: var(--leaf) }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; margin: .4rem 0 .6rem; letter-spacing: -.01em;
  text-wrap: balance }
h2 { font-size: 1.25rem; margin: 3rem 0 .3rem }
h3 { font-size: 1.05rem; margin: 0 }
p { margin: .3rem 0; max-width: 46rem }
.soft { color: var(--soft) }
code { font-family: var(--mono); font-size: .85em; overflow-wrap: anywhere }

.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1rem; margin: 1.8rem 0 0 }
.facts div { border-top: 3px solid var(--leaf); padding: .6rem 0 0 }
.facts dd { margin: 0; font-size: 1.9rem; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums }
.facts dt { color: var(--soft); font-size: .92rem; line-height: 1.35; max-width: 15rem }

.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.2rem; margin: 1rem 0 }
.title { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: center }
.tag { background: var(--leaf-pale); color: var(--leaf); border-radius: 1rem; padding: .1rem .65rem; font-size: .85rem;
  font-weight: 600 }

.reading { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 1.5rem; align-items: start }
.shot { position: relative; margin: 0; line-height: 0; border-radius: 6px; overflow: hidden }
.shot img { width: 100%; height: auto }
.shot svg { position: absolute; inset: 0; width: 100%; height: 100% }
.shot rect { fill: #16a06b; fill-opacity: .13; stroke: #16a06b; stroke-width: 2 }
.shot circle { fill: #0e7a50 }
.shot text { fill: #fff; font: 600 13px system-ui, sans-serif; text-anchor: middle }

.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .93rem }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .85rem }
th, td { padding: .38rem .6rem .38rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere }
tr:last-child td { border-bottom: 0 }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.n:last-child, th.n:last-child { padding-right: 0 }
.no { color: var(--soft); width: 2rem; white-space: nowrap }
.right::after, .wrong::after { display: inline-block; width: 1.3rem; color: var(--leaf); content: "✓" }
.wrong::after { color: var(--bad); content: "✗" }
details td, details th { padding-right: 1.2rem; white-space: nowrap; overflow-wrap: normal }
td.why { min-width: 16rem; white-space: normal }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; padding: .3rem 0 }

.plot { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .45rem .9rem; align-items: center;
  margin: 1rem 0 .6rem; font-size: .9rem }
.plot .name { font-family: var(--mono); font-size: .82rem }
.plot .row { display: grid; grid-template-columns: minmax(0, 1fr) 7rem; gap: .7rem; align-items: center }
.plot .bar { height: 1.05rem; border-radius: 0 4px 4px 0; background: var(--bar); min-width: 2px }
.plot .first .bar { background: repeating-linear-gradient(135deg, var(--bar) 0 4px, transparent 4px 8px) }
.plot .rival .bar { background: var(--rival) }
.plot .chosen .bar { background: var(--leaf) }
.plot .ms { font-variant-numeric: tabular-nums; white-space: nowrap }
.plot .chosen .ms { font-weight: 650; color: var(--leaf) }
.plot .none { color: var(--soft) }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; font-size: .85rem; color: var(--soft); margin: .2rem 0 .6rem;
  padding: 0; list-style: none }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .4rem;
  vertical-align: -.08rem; background: var(--bar) }
.key .chosen i { background: var(--leaf) }
.key .rival i { background: var(--rival) }
.key .first i { background: repeating-linear-gradient(135deg, var(--bar) 0 3px, transparent 3px 6px) }

.about { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1.2rem; margin: .8rem 0 0;
  font-size: .92rem }
.about dt { color: var(--soft) }
.about dd { margin: 0; overflow-wrap: anywhere }

@media (max-width: 44rem) {
  main { padding-top: 1.5rem } .card { padding: 1rem }
  .reading, .plot, .about { grid-template-columns: minmax(0, 1fr) }
  .plot { gap: .1rem } .plot .row { margin-bottom: .6rem }
  .about { gap: 0 } .about dd { margin-bottom: .6rem }
}
"""

BIRD = """<svg viewBox="0 0 48 48" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round"
stroke-linejoin="round" aria-hidden="true"><path d="M6 30C8 17 19 7 42 6 42 28 31 40 18 41 10 41 6 37 6 30Z"/>
<path d="M6 42 29 19"/><path stroke-dasharray="3 4.4" d="M13 29C16 20 24 14 35 12"/></svg>"""
"""A leaf with a seam in it: what the bird makes."""
