"""The look of the status page, light and dark, on a desk and on a phone."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #596675; --line: #dfe4e9; --page: #f6f8f9; --card: #fff;
  --bar: #6b93b8; --good: #1b6a47; --good-page: #e3f3ea; --bad: #a8332b; --bad-page: #fbe9e7; --mid: #5b4aa3;
  --mid-page: #ece9f8; --warn: #7a4a00; --warn-page: #fff3d6; --warn-line: #d9a520 }
@media (prefers-color-scheme: dark) { :root { --ink: #e5eaef; --soft: #9ba7b4; --line: #2c353f; --page: #12171d;
  --card: #1a2129; --bar: #5c83a8; --good: #5fcb96; --good-page: #15322a; --bad: #f2978f; --bad-page: #3a201f;
  --mid: #b9aef0; --mid-page: #292448; --warn: #f5c65a; --warn-page: #2e2610; --warn-line: #8a6a14 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 2.2rem 1.2rem 3rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0; letter-spacing: -.01em } .lead { color: var(--soft); margin: .1rem 0 1.8rem }
h2 { font-size: 1.12rem; margin: 0; overflow-wrap: anywhere } h3 { font-size: .95rem; margin: 0 0 .35rem }
.banner { margin: 0 0 1.6rem; padding: .7rem 1rem; border: 1px solid var(--warn-line); border-radius: .5rem;
  background: var(--warn-page); color: var(--warn); font-weight: 600 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: 1.1rem 1.3rem;
  margin: 0 0 1.1rem }
.head { display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: baseline }
.version { display: grid; grid-template-columns: minmax(0, 17rem) minmax(0, 15rem) minmax(0, 1fr); gap: 1.8rem;
  padding: .95rem 0; border-top: 1px solid var(--line) } .head + .version { margin-top: .7rem }
.version:last-child { padding-bottom: 0 } .version p { margin: 0 }
.minor { color: var(--soft); font-size: .86rem } code { font: .82rem ui-monospace, monospace; white-space: nowrap }
.mark { display: inline-block; padding: 0 .55rem; border-radius: 1rem; font-size: .84rem; font-weight: 600;
  background: var(--line); color: var(--ink) }
.mark.good { background: var(--good-page); color: var(--good) }
.mark.bad { background: var(--bad-page); color: var(--bad) }
.mark.mid { background: var(--mid-page); color: var(--mid) }
.mark.warn { background: var(--warn-page); color: var(--warn); box-shadow: inset 0 0 0 1px var(--warn-line) }
.bad { color: var(--bad) }
figure { margin: 0 } figure svg { display: block; width: 100%; height: 3.6rem }
figcaption { display: flex; justify-content: space-between; gap: .5rem; color: var(--soft); font-size: .8rem;
  border-top: 1px solid var(--line); padding-top: .2rem; font-variant-numeric: tabular-nums; white-space: nowrap }
.bars { fill: var(--bar) } .p50 { stroke: var(--ink) } .p99 { stroke: var(--bad) }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); gap: .6rem 1rem; margin: 0;
  align-content: start }
.numbers dt { color: var(--soft); font-size: .8rem } .numbers dd { margin: 0; font-variant-numeric: tabular-nums }
.beside { padding: .95rem 0 0; margin-top: .95rem; border-top: 1px solid var(--line) } .beside p { margin: 0 0 .5rem }
.split { display: block; width: 100%; height: .5rem; margin: .2rem 0 .5rem; border-radius: .3rem }
.split .live { fill: var(--bar) } .split .canary { fill: var(--mid) } .split .rest { fill: var(--line) }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .22rem 1.4rem .22rem 0; vertical-align: top } th { color: var(--soft);
  font-weight: 500 } tbody th { overflow-wrap: anywhere } td { white-space: nowrap }
.lists { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.1rem }
.lists .card { margin: 0 } ol { list-style: none; margin: .5rem 0 0; padding: 0; font-size: .9rem }
li { padding: .3rem 0; border-top: 1px solid var(--line) }
time { color: var(--soft); font-variant-numeric: tabular-nums; padding-right: .4rem }
@media (max-width: 56rem) { .version { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem 1.6rem }
  .numbers { grid-column: 1 / -1 } }
@media (max-width: 34rem) { body { padding: 1.2rem .8rem 2rem } .card { padding: .9rem 1rem }
  .version { grid-template-columns: minmax(0, 1fr) } .numbers { grid-template-columns: repeat(3, minmax(0, 1fr)) }
  th, td { padding-right: .8rem } .outputs thead { display: none }
  .outputs tr, .outputs td, .outputs th { display: block } .outputs td.none { display: none }
  .outputs td[data-of]::before { content: attr(data-of) " "; color: var(--soft) } }
"""
