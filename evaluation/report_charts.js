// The pictures of the report, drawn as SVG: the matrix, reliability, coverage, the learning curve and what it promises.
const W = 340, H = 300, LEFT = 46, BOTTOM = 44, TOP = 12;
const px = share => LEFT + share * (W - LEFT - 10), py = share => TOP + (1 - share) * (H - TOP - BOTTOM);
const cut = (label, most) => called(label).length > most + 1 ? `${called(label).slice(0, most)}…` : called(label);
const letters = (label, size) => `font: ${isLatin(label) ? "italic " : ""}${size}px var(--serif)`;

// ---- classes, confusion matrix ----
function recallBar(row) {
  const x = share => 100 * share, words = interval([row.recall_low, row.recall_high]);
  return svg("svg", { viewBox: "0 0 100 12", role: "img", "aria-label": words }, svg("title", {}, words),
    svg("rect", { y: 3, width: 100, height: 6, rx: 3, fill: "var(--track)" }),
    svg("rect", { y: 3, width: x(row.recall), height: 6, rx: 3, fill: "var(--good)" }),
    svg("path", { d: `M${x(row.recall_low)} 6H${x(row.recall_high)}M${x(row.recall_low)} 2V10M${x(row.recall_high)} 2V10`,
      stroke: "var(--ink)", opacity: .75 }));
}
function moveAmongCells(event) { // one stop for the keyboard; arrow keys lead to the other red squares
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const cells = [...event.currentTarget.querySelectorAll(".link")], place = cells.indexOf(event.target);
  if (place < 0 || !step && event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  if (!step) return event.target.dispatchEvent(new Event("click"));
  const next = cells[(place + step + cells.length) % cells.length];
  event.target.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
}
function drawMatrix(choose) {
  const edge = Math.min(176, 24 + 6.5 * Math.max(...names.map((_, label) => called(label).length)));
  const cell = Math.max(17, Math.min(56, 900 / names.length)), side = cell * names.length, picked = [];
  let stop = 0;
  matrix.forEach((row, a) => row.forEach((count, b) => {
    if (!count) return;
    const share = count / row.reduce((sum, value) => sum + value), same = a === b;
    const words = same ? t("cellRight", called(a), number(count)) : t("cellWrong", called(a), called(b), number(count));
    const box = { x: edge + b * cell + .5, y: edge + a * cell + .5, width: cell - 1, height: cell - 1, rx: 3,
      fill: same ? "var(--good)" : "var(--bad)", "fill-opacity": (same ? .12 + .46 * share : .3 + .5 * share).toFixed(2) };
    if (!same) Object.assign(box, { class: "link", role: "button", tabindex: stop++ ? -1 : 0, "aria-label": words,
      onclick: () => choose([a, b]) });
    picked.push(svg("rect", box, svg("title", {}, words)), svg("text", { x: edge + (b + .5) * cell,
      y: edge + (a + .5) * cell, "text-anchor": "middle", "dominant-baseline": "central", "pointer-events": "none",
      style: `fill: var(--ink); font-size: ${cell > 20 ? 13 : 10}px` }, String(count)));
  }));
  const size = cell > 20 ? 13 : 11.5;
  return svg("svg", { viewBox: `0 0 ${edge + side} ${edge + side}`, role: "group", "aria-label": t("matrix"), onkeydown: moveAmongCells,
    style: `width: clamp(${.62 * (edge + side)}px, 100%, ${edge + side}px); margin: auto` },
    names.flatMap((_, i) => [
      svg("line", { x1: edge, x2: edge + side, y1: edge + i * cell, y2: edge + i * cell, class: "frame" }),
      svg("line", { y1: edge, y2: edge + side, x1: edge + i * cell, x2: edge + i * cell, class: "frame" }),
      svg("text", { x: edge - 8, y: edge + (i + .5) * cell, "text-anchor": "end", "dominant-baseline": "central",
        ...tongue(i), style: letters(i, size) }, svg("title", {}, called(i)), cut(i, 24)),
      svg("text", { transform: `translate(${edge + (i + .5) * cell} ${edge - 8}) rotate(-90)`,
        "dominant-baseline": "central", ...tongue(i), style: letters(i, size) }, svg("title", {}, called(i)), cut(i, 24))]),
    svg("rect", { x: edge, y: edge, width: side, height: side, class: "frame" }), picked);
}

// ---- confidence ----
const rows = (write, ticks = [0, .25, .5, .75, 1]) => ticks.flatMap(tick => [
  svg("line", { x1: px(0), x2: px(1), y1: py(tick), y2: py(tick), class: "frame" }),
  svg("text", { x: px(0) - 7, y: py(tick), "text-anchor": "end", "dominant-baseline": "central" }, write(tick))]);
const below = (x, words) => svg("text", { x, y: py(0) + 17, "text-anchor": "middle" }, words);
const titles = (across, up) => [svg("text", { x: px(.5), y: H - 7, "text-anchor": "middle" }, across),
  svg("text", { transform: `translate(11 ${py(.5)}) rotate(-90)`, "text-anchor": "middle" }, up)];
const axes = (across, up, highest = 1) => [...rows(tick => (+(100 * tick * highest).toFixed(1)).toLocaleString(language)),
  ...[0, .25, .5, .75, 1].map(tick => below(px(tick), `${100 * tick}`)), ...titles(across, up)];
function plot(title, note, ...drawn) {
  return el("figure", { class: "card" }, el("h3", {}, title), el("figcaption", {}, note),
    svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: ${note}`, style: "margin-top: 8px" },
      ...drawn));
}
function reliability(side, title) {
  const bins = report.reliability[side], most = Math.max(...bins.map(([count]) => count));
  return plot(title, t("plotNote", percent(report[`ece_${side}`]), fix(report[`loss_${side}`], 3)),
    axes(t("confidenceAxis"), t("accuracyAxis")),
    svg("line", { x1: px(0), y1: py(0), x2: px(1), y2: py(1), stroke: "var(--soft)", "stroke-dasharray": "4 4" }),
    bins.flatMap(([count, confidence, accuracy]) => {
      const radius = 4 + 10 * Math.sqrt(count / most);
      return [svg("line", { x1: px(confidence), x2: px(confidence), y1: py(confidence), y2: py(accuracy), stroke: "var(--bad)",
        "stroke-width": 2 }), svg("circle", { cx: px(confidence), cy: py(accuracy), r: radius, fill: "var(--good)",
        "fill-opacity": .85 }, svg("title", {}, t("bin", t("photographs", count), percent(confidence), percent(accuracy))))];
    }));
}
function coverage() {
  const points = report.risk_coverage;
  const highest = [.02, .04, .08, .2, .4, .8, 1].find(top => points.every(([, risk]) => risk <= top)); // round quarters
  const place = ([covered, risk]) => `${px(covered).toFixed(1)} ${py(risk / highest).toFixed(1)}`;
  const now = report.accepted && [report.accepted / report.photographs, 1 - report.accepted_accuracy];
  return plot(t("coverage"), now ? t("coverageNow", percent(now[0]), percent(now[1])) : t("coverageNone"),
    axes(t("coverageAxis"), t("riskAxis"), highest),
    svg("path", { d: `M${px(0)} ${py(0)}L${points.map(place).join("L")}L${px(1)} ${py(0)}Z`, fill: "var(--bad)",
      opacity: .13 }),
    svg("path", { d: `M${points.map(place).join("L")}`, fill: "none", stroke: "var(--bad)", "stroke-width": 2.2,
      "stroke-linejoin": "round" }),
    now ? svg("circle", { cx: px(now[0]), cy: py(Math.min(1, now[1] / highest)), r: 6, fill: "var(--card)",
      stroke: "var(--ink)", "stroke-width": 2 }, svg("title", {}, t("now"))) : null);
}

// ---- how many photographs are enough ----
const GAINS = 40, clear = row => row.gain[1] > 0;
const signed = share => `${share < 0 ? "−" : "+"}${fix(Math.abs(100 * share), 1)}`;
const gainText = gain => t("points", ...gain.map(signed));
const byGain = curve => [...curve.classes].sort((a, b) => b.gain[0] - a.gain[0]);
function learningCurve(curve) {
  const last = curve.photographs.length - 1, x = row => px(row / last);
  const line = (values, more) => svg("path", { d: `M${values.map((value, row) => `${x(row)} ${py(value)}`).join("L")}`,
    fill: "none", ...more });
  const ends = side => curve.accuracy.map((point, row) => `${x(row)} ${py(point[side])}`);
  return plot(t("curve"), t("curveNote"), rows(tick => `${100 * tick}`),
    curve.photographs.map((count, row) => below(x(row), number(Math.round(count)))), titles(t("curveAxis"), t("accuracyAxis")),
    curve.classes.map(row => svg("g", {}, svg("title", tongue(row.label), called(row.label)),
      line(row.accuracy.map(([value]) => value), { stroke: "var(--soft)", opacity: .4 }))),
    svg("path", { d: `M${ends(1).join("L")}L${ends(2).reverse().join("L")}Z`, fill: "var(--good)", opacity: .2 }),
    line(curve.accuracy.map(([value]) => value), { stroke: "var(--good)", "stroke-width": 2.6 }));
}
function gainChart(curve) {
  const rows = byGain(curve).slice(0, GAINS), step = 24, edge = 172, width = 400;
  const low = Math.min(0, ...rows.map(row => row.gain[1])), high = Math.max(.02, ...rows.map(row => row.gain[2]));
  const x = value => edge + (width - edge - 8) * (value - low) / (high - low), bottom = rows.length * step;
  const ticks = [.01, .02, .05, .1, .2, .5].find(one => (high - low) / one < 7);
  const marks = Array.from({ length: 15 }, (_, i) => (i - 7) * ticks).filter(mark => mark >= low && mark <= high);
  return el("figure", { class: "card" }, el("h3", {}, t("gains")), el("figcaption", {}, t("gainsNote")),
    svg("svg", { viewBox: `0 0 ${width} ${bottom + 24}`, role: "img", "aria-label": t("gains"), style: "margin-top: 8px" },
    marks.flatMap(mark => [svg("line", { x1: x(mark), x2: x(mark), y1: 0, y2: bottom, class: "frame",
      ...(mark === 0 ? { style: "stroke: var(--soft)" } : {}) }),
    svg("text", { x: x(mark), y: bottom + 15, "text-anchor": "middle" }, `${Math.round(100 * mark)}`)]),
    rows.map((row, i) => {
      const y = (i + .5) * step, color = clear(row) ? "var(--good)" : "var(--soft)";
      return svg("g", {}, svg("title", {}, `${called(row.label)}: ${gainText(row.gain)}`),
        svg("text", { x: edge - 8, y, "text-anchor": "end", "dominant-baseline": "central", ...tongue(row.label),
          style: letters(row.label, 13) }, cut(row.label, 22)),
        svg("line", { x1: x(row.gain[1]), x2: x(row.gain[2]), y1: y, y2: y, stroke: color, "stroke-width": 2 }),
        svg("circle", { cx: x(row.gain[0]), cy: y, r: 4.5, fill: color }));
    })));
}
