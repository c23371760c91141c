"""The report's CSS: light and dark, no font or image from elsewhere."""

PALETTE = 12  # classes series0 … series11; further policies begin again
TABS = 24  # policies that can be chosen in the chart of replicas


def css() -> str:
    """The whole style sheet."""
    tabs = ",".join(f"#tab{i}:checked~.panes>.pane{i}" for i in range(TABS))
    chosen = ",".join(f"#tab{i}:checked~.tabs>.tab{i}" for i in range(TABS))
    focus = ",".join(f"#tab{i}:focus-visible~.tabs>.tab{i}" for i in range(TABS))
    colours = "".join(f".series{i}{{--own:var(--s{i})}}" for i in range(PALETTE))
    return (
        _PAGE
        + colours
        + tabs
        + "{display:block}"
        + chosen
        + "{background:var(--accent);color:var(--on-accent);border-color:var(--accent)}"
        + focus
        + "{outline:2px solid var(--accent);outline-offset:2px}"
    )


_LIGHT = (
    "--paper:#f6f7f9;--card:#ffffff;--ink:#16202e;--soft:#5a6675;--faint:#e4e8ee;--line:#d3d9e2;--accent:#1f5fd6;"
    "--on-accent:#ffffff;--wash:#dce8fd;--warm:#c2620a;--warm-wash:#f6d9b8;--good:#12784a;--good-wash:#dff3e8;"
    "--bad:#c0262d;--bad-wash:#fbe3e4;"
    "--s0:#1f5fd6;--s1:#c2620a;--s2:#12784a;--s3:#8a3fc4;--s4:#b3264f;--s5:#0a7f8c;--s6:#7a6a00;--s7:#5b5fc7;"
    "--s8:#9a4b23;--s9:#3d7d1c;--s10:#a83a9e;--s11:#4d6072;"
)
_DARK = (
    "--paper:#0e131a;--card:#161d27;--ink:#e8edf4;--soft:#9aa7b8;--faint:#242e3b;--line:#334050;--accent:#6ea3ff;"
    "--on-accent:#0b1220;--wash:#1d3358;--warm:#f2a65a;--warm-wash:#4a3317;--good:#58d199;--good-wash:#12352a;"
    "--bad:#ff8087;--bad-wash:#431d22;"
    "--s0:#6ea3ff;--s1:#f2a65a;--s2:#58d199;--s3:#c493f2;--s4:#ff86a4;--s5:#4fcbd8;--s6:#d8c650;--s7:#a3a7ff;"
    "--s8:#e0946a;--s9:#93cf6d;--s10:#ec8fe3;--s11:#a9b8c8;"
)
_PAGE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}}
main{{max-width:1240px;margin:0 auto;padding:40px 24px 64px}}
header p{{margin:0;color:var(--soft)}}
h1{{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:4px 0 10px}}
h2{{font-size:19px;margin:0 0 4px;letter-spacing:-.005em}}
h3{{font-size:14px;margin:0 0 6px;color:var(--soft);font-weight:600}}
section{{background:var(--card);border:1px solid var(--faint);border-radius:12px;padding:22px 24px;margin-top:20px}}
section>p{{margin:0 0 14px;color:var(--soft);max-width:100ch}}
.lead{{padding:0;background:none;border:0;margin-top:16px}}
.lead p{{color:var(--ink);font-size:17px;margin:0 0 8px;max-width:92ch}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin-top:22px}}
.tile{{background:var(--card);border:1px solid var(--faint);border-radius:12px;padding:14px 18px}}
.tile b{{display:block;font-size:27px;line-height:1.25;letter-spacing:-.02em;font-weight:650;
font-variant-numeric:tabular-nums}}
.tile span{{color:var(--soft);font-size:13.5px}}
.good b{{color:var(--good)}}.bad b{{color:var(--bad)}}
svg{{display:block;width:100%;height:auto;min-width:640px}}
.half svg{{min-width:400px}}
.wide{{overflow-x:auto;scrollbar-width:thin}}
.pair{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:24px}}
text{{font-size:12px;fill:var(--ink);font-family:inherit}}
.tick,.note{{fill:var(--soft);font-variant-numeric:tabular-nums}}
p.note{{color:var(--soft)}}
.grid{{stroke:var(--faint);stroke-width:1}}.axis{{stroke:var(--line);stroke-width:1}}
path{{fill:none;stroke-linejoin:round}}
.fill-ready{{fill:var(--wash)}}.fill-start{{fill:var(--warm-wash)}}
.fill-inside{{fill:var(--faint)}}.fill-queued{{fill:var(--bad)}}
.line-ready{{stroke:var(--accent);stroke-width:1.75}}
.line-demand{{stroke:var(--ink);stroke-width:1.25}}
.curve{{stroke:var(--own,var(--soft));stroke-width:1.75}}
.mark{{fill:var(--own,var(--soft));stroke:var(--card);stroke-width:1}}
.name{{fill:var(--own,var(--soft));font-weight:600}}
.reference .curve{{stroke-dasharray:5 4;stroke-width:1.5}}
.first .curve{{stroke-width:3}}
svg:hover .series:not(:hover){{opacity:.28}}.series:hover .curve{{stroke-width:3}}
.leader{{stroke:var(--own,var(--soft));stroke-width:.75;opacity:.55}}
.span{{stroke:var(--line);stroke-width:3}}
.at{{stroke:var(--card);stroke-width:1.5;fill:var(--accent)}}.at0{{opacity:.5}}.at1{{opacity:.75}}
.limit{{stroke:var(--bad);stroke-width:1.25;stroke-dasharray:4 3}}.limit-name{{fill:var(--bad)}}
.inside{{fill:#fff;font-weight:600;pointer-events:none}}
@media (prefers-color-scheme:dark){{.inside{{fill:#0b1220}}}}
.on-reason-other{{fill:var(--ink)}}
.reason0,.legend .reason0{{fill:var(--s0);background:var(--s0)}}
.reason1{{fill:var(--s11);background:var(--s11)}}.reason2{{fill:var(--s2);background:var(--s2)}}
.reason3{{fill:var(--s1);background:var(--s1)}}.reason4{{fill:var(--s3);background:var(--s3)}}
.reason5{{fill:var(--s5);background:var(--s5)}}.reason6{{fill:var(--s4);background:var(--s4)}}
.reason7{{fill:var(--s6);background:var(--s6)}}.reason-other{{fill:var(--line);background:var(--line)}}
.legend{{display:flex;flex-wrap:wrap;gap:6px 18px;margin:10px 0 0;font-size:13.5px;color:var(--soft)}}
.legend i{{display:inline-block;width:14px;height:10px;border-radius:2px;margin-right:7px}}
.legend .line-ready{{background:var(--accent);height:3px;vertical-align:3px}}
.legend .line-demand{{background:var(--ink);height:2px;vertical-align:3px}}
.legend .fill-start{{background:var(--warm-wash)}}.legend .fill-queued{{background:var(--bad)}}
.choice{{position:absolute;opacity:0;pointer-events:none}}
.tabs{{display:flex;flex-wrap:wrap;gap:6px;margin:2px 0 14px}}
.tabs label{{border:1px solid var(--line);border-radius:999px;padding:3px 12px;font-size:13.5px;cursor:pointer}}
.pane{{display:none}}
table{{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}}
th{{text-align:right;color:var(--soft);font-weight:600;padding:6px;border-bottom:1px solid var(--line);
vertical-align:bottom}}
td{{text-align:right;padding:7px 6px;border-bottom:1px solid var(--faint);white-space:nowrap}}
th:first-child,td:first-child{{text-align:left}}
td:first-child{{font-weight:600}}
tr.first td{{background:var(--wash)}}
tr.missed td{{color:var(--soft)}}tr.missed td.verdict{{color:var(--bad)}}
tr.reference td{{color:var(--soft)}}tr.reference td:first-child{{font-weight:400;font-style:italic}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:6px 22px;margin:0;font-size:14.5px}}
dt{{color:var(--soft)}}dd{{margin:0}}
@media (max-width:640px){{main{{padding:24px 14px 48px}}section{{padding:18px 14px}}h1{{font-size:25px}}
dl{{grid-template-columns:1fr;gap:0}}dd{{margin-bottom:8px}}}}
@media print{{body{{background:#fff}}section,.tile{{break-inside:avoid}}}}
"""
