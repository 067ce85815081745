// SPDX-License-Identifier: MIT
#pragma once

namespace kvsieve::report {

/// Series colours are distinguishable with the common colour vision deficiencies (after Okabe and Ito, darkened or
/// lightened for contrast with the page).
inline constexpr const char * kStyle = R"css(
:root { --paper:#fff; --ink:#1c2026; --soft:#5b6470; --rule:#d9dde3; --shade:#f4f6f8; --accent:#0b63b6; --heat:#0b63b6;
  --c0:#0072b2; --c1:#d55e00; --c2:#00875f; --c3:#b5518c; --c4:#997404; --c5:#3597cf; --c6:#6a45b0; --c7:#7d4b2a;
  --c8:#5f6f1f; --c9:#c2294e; --warn:#fff3d6; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171b; --ink:#e8ebef; --soft:#9aa4b1; --rule:#343b44;
  --shade:#1d2127; --accent:#7db9f2; --heat:#5aa5ec; --c0:#5aaeea; --c1:#ff8a3d; --c2:#2fc79a; --c3:#e58cc0; --c4:#e0b83c;
  --c5:#9bd4f7; --c6:#b197f0; --c7:#cf9b74; --c8:#b4c665; --c9:#ff7f97; --warn:#43361a; } }
@media print { :root { --paper:#fff; --ink:#000; --soft:#444; --rule:#bbb; --shade:#fff; --accent:#000; --heat:#0b63b6;
  --c0:#0072b2; --c1:#d55e00; --c2:#00875f; --c3:#b5518c; --c4:#997404; --c5:#3597cf; --c6:#6a45b0; --c7:#7d4b2a;
  --c8:#5f6f1f; --c9:#c2294e; --warn:#fff; }
  figure, tr, h2, h3 { break-inside:avoid } h2, h3, h3 + p { break-after:avoid }
  details::details-content { content-visibility:visible; block-size:auto }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact } }
* { box-sizing:border-box }
body { margin:0 auto; max-width:1120px; padding:1.5rem 1.25rem 3rem; background:var(--paper); color:var(--ink);
  font:16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; overflow-wrap:break-word }
h1 { font-size:1.75rem; line-height:1.2; margin:.2rem 0 1rem }
h2 { font-size:1.3rem; margin:2.6rem 0 .5rem; padding-top:.9rem; border-top:1px solid var(--rule) }
h3 { font-size:1rem; margin:1.6rem 0 .2rem }
p { margin:.4rem 0 .8rem; max-width:75ch } .note, footer { color:var(--soft); font-size:.9rem }
.warning { background:var(--warn); border-left:4px solid var(--c4); padding:.5rem .8rem }
dl { display:grid; grid-template-columns:max-content minmax(0,1fr); gap:.15rem 1rem; margin:0 0 1rem; font-size:.92rem }
dt { color:var(--soft) } dd { margin:0 }
code { font:.86em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap:anywhere }
nav { display:flex; flex-wrap:wrap; gap:.3rem 1.1rem; font-size:.95rem } a { color:var(--accent) }
.scroll { overflow-x:auto; margin:.4rem 0 }
table { border-collapse:collapse; font-size:.88rem; font-variant-numeric:tabular-nums; min-width:50% }
th, td { padding:.3rem .7rem; text-align:right; white-space:nowrap; border-bottom:1px solid var(--rule); vertical-align:top }
th:first-child { text-align:left } tbody th small { color:var(--soft) } thead th { color:var(--soft); font-weight:600 }
tbody th { font-weight:500; position:sticky; left:0; background:var(--paper) }
.value { min-width:7rem } .value small { margin-left:.5em; color:var(--soft); font-size:.76rem }
.value.best { font-weight:700 } .value.best small { font-weight:400 }
.bar { display:block; height:4px; margin:.2rem 0 0; background:currentColor; border-radius:2px }
.chip { display:inline-block; width:.75em; height:.75em; margin-right:.45em; border-radius:2px; background:currentColor }
.legend { list-style:none; display:flex; flex-wrap:wrap; gap:.25rem 1.1rem; margin:.6rem 0; padding:0; font-size:.9rem }
.legend .type { display:flex; align-items:center; gap:.4em } .legend svg { width:28px }
.frontier-chip { width:1.6em; height:.5em; vertical-align:middle; color:var(--rule) }
.panels { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap:1rem 1.5rem }
figure { margin:0; min-width:0 } svg { display:block; width:100%; height:auto; overflow:visible }
.panels:has(.overlay) { grid-template-columns:repeat(auto-fill, minmax(min(46%, 200px), 1fr)) }
figcaption { font-size:.82rem; color:var(--soft); line-height:1.3; margin-top:.3rem }
details { margin:.6rem 0 } summary { cursor:pointer; color:var(--accent); font-size:.92rem }
text { font:12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; fill:var(--ink) }
text.tick { fill:var(--soft); font-size:11.5px } text.mid { text-anchor:middle } text.end { text-anchor:end }
text.label { font-weight:600 } text.in { font-size:11px } text.dark { fill:var(--paper) }
line.grid { stroke:var(--rule); stroke-width:.8 } line.axis { stroke:var(--soft) }
line.equal { stroke:var(--soft); stroke-dasharray:4 4 }
.curve, .lorenz, .frontier { fill:none; stroke-width:1.8; stroke-linejoin:round }
.curve { stroke:currentColor; opacity:.75 } .quantised .curve { stroke-dasharray:5 4 }
.frontier { stroke:var(--rule); stroke-width:9; stroke-linecap:round }
.interval { stroke:currentColor; stroke-width:1.3; opacity:.4 }
.marker { fill:currentColor; stroke:var(--paper); stroke-width:1.2 } .quantised .marker { fill:var(--paper); stroke:currentColor }
.series:hover .curve { stroke-width:3.2; opacity:1 } .series:hover .interval { opacity:1; stroke-width:2 }
.lorenz:hover { stroke-width:4 } rect:hover { stroke:var(--ink) } .heat { fill:var(--heat) } .cover { fill:#6f7884 }
.sf { color:var(--ink) } .so, .bound { color:var(--soft) } .so { opacity:.6 } .s0 { color:var(--c0) } .s1 { color:var(--c1) } .s2 { color:var(--c2) } .s3 { color:var(--c3) }
.s4 { color:var(--c4) } .s5 { color:var(--c5) } .s6 { color:var(--c6) } .s7 { color:var(--c7) } .s8 { color:var(--c8) }
.s9 { color:var(--c9) }
@media (max-width:640px) { body { padding:1rem .9rem 2rem } dl { grid-template-columns:1fr; gap:0 } dd { margin-bottom:.4rem }
  th, td { padding:.3rem .45rem } .value { min-width:4rem } .value small { display:block; margin:0; line-height:1.1 } tbody th { max-width:40vw; min-width:6.6rem; white-space:normal } text { font-size:15px } text.tick, text.in { font-size:14px } }
@media print { nav { display:none } .scroll { overflow:visible } table { font-size:.7rem } th, td { padding:.2rem .4rem } tbody th { position:static }
  .value { min-width:0 } .value small { display:block; margin:0; line-height:1.1 } }
)css";

}  // namespace kvsieve::report
