"""How a report looks: light or dark as the reader's machine is, and on paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#5b6470;--line:#d9dee4;--accent:#0b5cad;
--warn:#9a5b00;--bad:#b3261e;--good:#1a7f45;--band:#d5820022;
--c0:#0072b2;--c1:#d55e00;--c2:#008a63;--c3:#b0528c;--c4:#b07d00;--c5:#2b8fc4;--c6:#7c5c27;--c7:#5e4fa2}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2127;--ink:#e6e9ed;--soft:#9aa4b0;
--line:#333a43;--accent:#7db8f0;--warn:#f0b35b;--bad:#ff8a80;--good:#6fd39a;--band:#f0b35b24;
--c0:#56a8e0;--c1:#ff9d5c;--c2:#3fcf9f;--c3:#e59ac8;--c4:#e9b949;--c5:#8ad0f5;--c6:#c9a878;--c7:#b3a6f0}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:2rem 1.5rem 3rem}
h1{font-size:1.75rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.6rem 0 .8rem}h3{font-size:.95rem;margin:0 0 .4rem}
h3 small{color:var(--soft);font-weight:400}
p{margin:.3rem 0}header p{color:var(--soft)}header .verdict{color:var(--ink);font-size:1.1rem;margin-top:.8rem}
code{font:.88em/1.4 ui-monospace,"Cascadia Mono",Menlo,monospace;background:var(--card);border:1px solid var(--line);
border-radius:4px;padding:.05em .35em;display:inline-block;max-width:100%;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(15.5rem,45%),1fr));gap:.8rem;margin:1.6rem 0 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.tile dt{color:var(--soft);font-size:.82rem}.tile dd{margin:0;font-size:1.5rem;line-height:1.3;font-weight:600;
font-variant-numeric:tabular-nums}.tile dd small{font-size:.8rem;font-weight:400;color:var(--soft);display:block}
.findings{list-style:none;margin:0;padding:0;display:grid;gap:.7rem}
.findings li{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--warn);border-radius:8px;
padding:.7rem 1rem}.findings b{display:block}
.wide{overflow-x:auto}.wide+.charts{margin-top:1.4rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{color:var(--soft);font-weight:500;font-size:.85rem;white-space:nowrap}
td,th{padding:.4rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td:first-child,th:first-child{padding-left:0}td.n,th.n{text-align:right;white-space:nowrap}
td small{color:var(--soft);display:block}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(23rem,100%),1fr));gap:0 2.5rem;align-items:start}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:2rem 2.2rem}
figure{margin:0}svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}
.grid{stroke:var(--line);fill:none}.line{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}
.dash{stroke-dasharray:5 3}.band{fill:var(--band)}.range{fill:var(--c0);opacity:.45}.dot{fill:var(--c0)}
.keys{margin:.1rem 0 0 2.6rem;font-size:.8rem;color:var(--soft);display:flex;flex-wrap:wrap;gap:.1rem 1rem}
.keys b{font-weight:600;color:var(--ink)}
.keys i{display:inline-block;width:.75em;height:.75em;margin-right:.35em;border-radius:2px}
.tag{font-size:.78rem;font-weight:600;white-space:nowrap}.critical{color:var(--bad)}.warning{color:var(--warn)}
.info{color:var(--soft)}footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);
font-size:.85rem}
@media print{:root{color-scheme:light}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:9.5pt}th,th.n{white-space:normal}
td,th{padding:.25rem .4rem}main{max-width:none;padding:0}.charts{grid-template-columns:1fr 1fr;gap:1rem}
section,figure,li,tr,.tile{break-inside:avoid}h2{break-after:avoid}.wide{overflow:visible}}
""" + "".join(f".line.c{n}{{stroke:var(--c{n})}}i.c{n}{{background:var(--c{n})}}" for n in range(8))
