"""How a report looks and what moves in it: the one style sheet and the few lines of script that every page carries.

Series have a colour and a dash each. The colours differ for colour-blind people too (their lightness differs, and they
avoid red next to green), and stand out from the paper by 3 to 1 or more, light and dark.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --faint: #57606a; --line: #c9d1d9; --soft: #f2f4f7;
  --link: #0550ae; --good: #1a7f37; --bad: #b3261e;
  --s0: #0067a5; --s1: #c2500a; --s2: #00795c; --s3: #a2377d; --s4: #6b5fc7; --s5: #7d6608; --s6: #3b4048;
}
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #14181d; --ink: #e6e9ec; --faint: #a3adb8; --line: #3d444d; --soft: #1f252c;
  --link: #79b8ff; --good: #57c26c; --bad: #ff8a80;
  --s0: #56b4e9; --s1: #f59b42; --s2: #35c99b; --s3: #ef8fc4; --s4: #b3a8ff; --s5: #e3cf57; --s6: #c6ccd3;
} }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 0.4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 0.6rem; padding-top: 0.6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.5rem 0 0.3rem; }
p { margin: 0.4rem 0; max-width: 75ch; }
a { color: var(--link); }
.faint, caption, figcaption, legend { color: var(--faint); font-size: 0.87rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; list-style: none; padding: 0; margin: 0.8rem 0; }
.verdict { border-left: 0.4rem solid var(--faint); background: var(--soft); padding: 0.5rem 0.9rem; margin: 1rem 0; }
.verdict strong { font-size: 1.1rem; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.scroll { overflow-x: auto; margin: 0.5rem 0 1rem; }
table { border-collapse: separate; border-spacing: 0; } caption { text-align: left; padding-bottom: 0.3rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 1rem 0.25rem 0; text-align: left; vertical-align: top;
  overflow-wrap: normal; }
td { max-width: 44rem; min-width: 7em; overflow-wrap: anywhere; }
th[scope=row] { font-weight: normal; max-width: 20rem; overflow-wrap: break-word; }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; min-width: 0; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; text-align: inherit;
  cursor: pointer; text-decoration: underline dotted; }
[aria-sort=ascending] button::after { content: " \\2191"; } [aria-sort=descending] button::after { content: " \\2193"; }
details { margin: 0.6rem 0; } summary { cursor: pointer; color: var(--link); padding: 0.2rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; min-width: 0; }
.plot { max-width: 35rem; } .plot figcaption { color: var(--ink); font-weight: 600; }
.plot svg { display: block; width: 100%; height: auto; }
.plot text { fill: var(--ink); font: 12px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.plot .grid { stroke: var(--line); stroke-width: 1; fill: none; }
.plot .curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.plot .area { fill-opacity: 0.22; stroke-width: 1.5; } .plot .band { fill-opacity: 0.25; stroke: none; }
.plot .whisker, .plot .zero { stroke: var(--ink); stroke-width: 1.3; fill: none; }
.plot .touch { fill: transparent; stroke: none; }
.plot .touch:hover { fill: var(--ink); }
.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; list-style: none; padding: 0; margin: 0.2rem 0;
  font-size: 0.87rem; }
.legend svg { display: inline-block; width: 1.9em; height: 0.8em; margin-right: 0.4em; vertical-align: baseline; }
.s0 { stroke: var(--s0); fill: var(--s0); } .s1 { stroke: var(--s1); fill: var(--s1); }
.s2 { stroke: var(--s2); fill: var(--s2); } .s3 { stroke: var(--s3); fill: var(--s3); }
.s4 { stroke: var(--s4); fill: var(--s4); } .s5 { stroke: var(--s5); fill: var(--s5); }
.s6 { stroke: var(--s6); fill: var(--s6); }
.curve.s1 { stroke-dasharray: 7 4; } .curve.s2 { stroke-dasharray: 2 4; } .curve.s3 { stroke-dasharray: 9 3 2 3; }
.curve.s4 { stroke-dasharray: 12 4; } .curve.s5 { stroke-dasharray: 4 3; } .curve.s6 { stroke-dasharray: 1 5; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 33rem), 1fr)); gap: 1.2rem 1.5rem;
  margin-top: 1rem; }
.shot { min-width: 0; display: grid; grid-row: span 4; grid-template: subgrid / minmax(0, 1fr); row-gap: 0.2rem; }
.stage { align-self: start; grid-row: 4; }
.shot h3, .shot h4 { margin: 0 0 0.2rem; } h4 { font-size: 0.95rem; }
.about p, .about ul { margin: 0.2rem 0; padding-left: 0; list-style: none; }
.picks { flex-wrap: wrap; gap: 0.3rem 1.5rem; margin: 0.3rem 0; font-size: 0.87rem; }
.picks > * { display: flex; flex-wrap: wrap; gap: 0.2rem 0.3rem; align-items: baseline; min-width: 0; }
.picks button, .picks select { font: inherit; color: var(--ink); background: var(--soft);
  border: 1px solid var(--line); border-radius: 1rem; padding: 0 0.6rem; cursor: pointer; max-width: 16rem;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.picks button[aria-pressed=true] { background: var(--ink); border-color: var(--ink); color: var(--paper); }
.stage { display: grid; grid-template-columns: 1fr 1fr; gap: 0.6rem; }
.stage img { display: block; width: 100%; height: auto; }
.stage input, .stage .handle, .picks { display: none; }
@media screen {
  .live .picks { display: flex; }
  .live .stage { --at: 50%; position: relative; grid-template-columns: 1fr; overflow: hidden; background: #000; }
  .live .stage:focus-within { outline: 3px solid var(--link); outline-offset: 2px; }
  .live .layer { grid-area: 1 / 1; visibility: hidden; position: relative; }
  .live .layer.right { visibility: visible; }
  .live .layer.left { visibility: visible; z-index: 1; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
  .live .layer.left.right { clip-path: none; }
  .live .layer figcaption { position: absolute; top: 0.3rem; max-width: 46%; padding: 0 0.4rem; border-radius: 3px;
    background: #000000b3; color: #fff; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .live .layer.right figcaption { right: 0.3rem; } .live .layer.left figcaption { left: 0.3rem; right: auto; }
  .live .stage .handle { display: block; position: absolute; z-index: 2; top: 0; bottom: 0; left: var(--at); width: 2px;
    margin-left: -1px; background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
  .live .stage .handle::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; width: 1.7rem;
    height: 1.7rem; margin: -0.85rem; border-radius: 50%; background: #fff; color: #000; font: 1.1rem/1.6rem sans-serif;
    text-align: center; box-shadow: 0 0 3px #000; }
  .live .stage input { display: block; appearance: none; position: absolute; z-index: 3; inset: 0; width: 100%;
    height: 100%; margin: 0; opacity: 0; cursor: ew-resize; touch-action: pan-y; }
  .live .stage input::-webkit-slider-thumb { appearance: none; width: 2px; height: 100%; }
  .live .stage input::-moz-range-thumb { width: 2px; height: 100%; border: 0; }
  .shot:target, h2:target { scroll-margin-top: 1rem; }
}
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav, .picks { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  h1, h2, h3, h4, summary, caption, .about, section > p, .legend { break-after: avoid; }
  tr, thead, figure, .shot, .verdict { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 8pt; } th, td { padding-right: 0.5rem; }
  th button { display: contents; }
  .plots, .gallery, .shot { display: block; }
  .plot { display: inline-block; width: 47%; margin: 0 2% 0.6rem 0; vertical-align: top; }
  .stage { grid-template-columns: repeat(auto-fit, minmax(55mm, 1fr)); } .shot { margin-bottom: 1rem; }
  * { print-color-adjust: exact; }
}
"""

SCRIPT = """
"use strict";
document.documentElement.classList.add("live");
function show(pick, side, place) {
  pick.closest(".compare").querySelectorAll(".layer").forEach(
    (layer, index) => layer.classList.toggle(side, index === Number(place)));
}
document.addEventListener("input", ({ target }) => {
  const stage = target.closest(".stage");
  if (stage) stage.style.setProperty("--at", target.value + "%");
  if (target.closest(".picks")) show(target, "left", target.value);
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest(".picks button");
  if (!button) return;
  for (const other of button.parentElement.querySelectorAll("button"))
    other.setAttribute("aria-pressed", String(other === button));
  show(button, "right", button.value);
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest("th button");
  if (!button) return;
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const number = head.classList.contains("number"), before = head.getAttribute("aria-sort");
  const order = before === "descending" || (!before && !number) ? "ascending" : "descending";
  const value = row => {
    const text = row.cells[head.cellIndex].textContent.trim();
    return number ? parseFloat(text) : text;
  };
  const missing = each => Number.isNaN(each) || each === "";
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => missing(a) || missing(b) ? missing(a) - missing(b)
    : sign * (number ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
});
let closed = [];
function unfold() {
  closed.push(...document.querySelectorAll("details:not([open])"));
  closed.forEach(each => { each.open = true; });
}
function fold() {
  closed.forEach(each => { each.open = false; });
  closed = [];
}
matchMedia("print").addEventListener("change", ({ matches }) => matches ? unfold() : fold());
addEventListener("beforeprint", unfold);
addEventListener("afterprint", fold);
"""
