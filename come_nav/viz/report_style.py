"""The report's style sheet: system fonts, light and dark, narrow and wide, screen and paper."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --card: #f6f8fa; --accent: #0072b2;
  --mark: #e8f2fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --ink: #e6e9ee; --quiet: #a3adb9; --line: #343b45; --card: #1c2128; --accent: #6cb8ee;
    --mark: #1b3146;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
header { border-bottom: 1px solid var(--line); margin-bottom: 1.5rem; padding-bottom: 1rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-top: .4rem; line-height: 1.3; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; max-width: 46rem; }
.subtitle { color: var(--quiet); margin: 0; }
nav { font-size: .92rem; margin: 0 0 1rem; }
nav ul { list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; }
a { color: var(--accent); text-underline-offset: .15em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: .38rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; color: var(--quiet); font-size: .86rem; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 400; }
tr.highlight > * { background: var(--mark); font-weight: 600; }
.interval { display: block; font-size: .8rem; font-weight: 400; color: var(--quiet); }
td.highlight { color: var(--accent); font-weight: 600; }
figure { margin: 1.2rem 0; }
figure img, figure video { display: block; max-width: 100%; height: auto; border: 1px solid var(--line);
  border-radius: 6px; background: #ffffff; }
figcaption { color: var(--quiet); font-size: .9rem; margin-top: .45rem; max-width: 46rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .8rem 0;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; font-size: .93rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem 1rem;
  overflow-x: auto; font: .87rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
footer { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: .8rem; color: var(--quiet);
  font-size: .86rem; }
@media (max-width: 34rem) {
  main { padding: 1.2rem .9rem 2rem; }
  h1 { font-size: 1.45rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .45rem; }
  th, td { padding: .34rem .55rem; }
}
@media print {
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, table { break-inside: avoid; }
}
"""
