// The report's page: its sections, written anew when the language is switched.
const { report, names, photos, examples } = JSON.parse(document.getElementById("data").textContent);
const main = document.querySelector("main"), links = document.querySelector("nav > div"), matrix = report.confusion_matrix;
const correct = Math.round(report.accuracy * report.photographs), wrong = report.photographs - correct;
const PAIRS = 8, FIRST_TILES = 24;
// what a switch of the language keeps
const state = { pair: null, words: "", order: 0, most: FIRST_TILES, sorted: 5, upward: true, settings: false };

// ---- elements ----
const picture = (uri, alt) => el("img", { src: uri, alt, loading: "lazy", decoding: "async" });
const verbatim = text => el("span", { translate: "no" }, text); // what is no text of the page: files, values
const wide = (title, ...children) => el("div", { class: "card wide", tabindex: 0, role: "region", "aria-label": title }, ...children);

// ---- names of classes: Latin; on the Russian page, Russian where the class table has it ----
const isLatin = label => language === "en" || !names[label].russian;
const called = label => isLatin(label) ? names[label].latin : names[label].russian;
const tongue = label => isLatin(label) ? { lang: "la" } : {};
const nameOf = label => el(isLatin(label) ? "i" : "span", tongue(label), called(label));
const both = label => isLatin(label) ? nameOf(label) : [nameOf(label), " (", el("i", { lang: "la" }, names[label].latin), ")"];
function otherNames({ latin, english, russian }) {
  const others = [language === "ru" && russian && el("i", { lang: "la" }, latin), english && el("span", { lang: "en" }, english),
    language === "en" && russian && el("span", { class: "more", lang: "ru" }, russian)].filter(Boolean);
  return others.map((one, i) => i ? [el("span", { class: one.className }, " · "), one] : one);
}

function section(id, title, lead, ...children) {
  links.append(el("a", { href: `#${id}` }, title));
  main.append(el("section", { id }, el("h2", {}, title), el("p", { class: "soft" }, lead), ...children));
}

// ---- headline ----
function doubts() {
  const sides = Object.entries(report.doubtful_labels).filter(([, [, judged]]) => judged);
  return sides.length ? t("doubts", sides.map(([side, [doubtful, judged, all]]) => t(side === "test" ? "doubtsTest" : "doubtsTrain",
    number(doubtful), number(judged)) + (judged < all ? t("notJudged", number(all - judged)) : "")).join(", ")) : t("noDoubts");
}
const card = (title, value, note) =>
  el("div", { class: "card" }, el("small", {}, title), el("b", {}, value), el("small", {}, note));
function headline() {
  const abstained = report.photographs - report.accepted, three = end => fix(end, 3);
  document.title = t("title", report.run);
  document.getElementById("head").replaceChildren(
    el("div", { class: "soft" }, t("about", verbatim(report.model), fix(report.parameters / 1e6, 1), report.time.slice(0, 10))),
    el("h1", { translate: "no" }, report.run),
    el("p", {}, t("lead", report.photographs, report.classes.length, correct) + (abstained ? t("unsure", abstained, report.accepted
      ? t("others", number(report.accepted), percent(report.accepted_accuracy)) : ".") : t("sure"))),
    el("p", { class: "soft", id: "doubts" }, doubts()),
    el("div", { class: "cards" },
      card(t("accuracy"), percent(report.accuracy), interval(report.interval)),
      ...(names.length > 5 ? [card(t("top5"), percent(report.top5), interval(report.top5_interval))] : []),
      card(t("macroF1"), three(report.macro_f1), interval(report.macro_f1_interval, three) || t("meanF1")),
      card(t("accuracySure"), report.accepted ? percent(report.accepted_accuracy) : "–",
        [t("howSure", number(report.accepted), number(abstained)), report.accepted ? `; ${interval(report.accepted_interval)}` : ""]),
      card(t("calibration"), percent(report.ece_after ?? report.ece_before), report.temperature === null
        ? t("uncalibrated") : t("before", percent(report.ece_before)))));
}

// ---- answers ----
function limits(from) {
  const key = { validation: "limitsValidation", "out-of-fold": "limitsOutOfFold" }[from?.source] ?? "limitsOther";
  return from ? t(key, number(from.photographs)) : t("limitsNone");
}
function answers() {
  const share = value => value === null || value === undefined ? "–" : percent(value), { sets, together, unknown } = report;
  const heads = ["rank", "answered", "wrongAmong", "always"].map((key, i) =>
    el("th", { scope: "col", class: i ? "" : "name" }, t(key)));
  section("answers", t("answers"), t("risk", percent(report.max_risk, 0)) + limits(report.limits_from),
    wide(t("answers"), el("table", {}, el("thead", {}, el("tr", {}, heads)),
      el("tbody", {}, Object.entries(report.ranks).map(([rank, row]) => el("tr", {}, el("td", { class: "name" }, t(rank)),
        el("td", {}, `${number(row.answered)} (${percent(row.answered / report.photographs)})`),
        el("td", {}, row.answered ? percent(row.wrong / row.answered) : "–"), el("td", {}, share(row.accuracy))))))),
    sets ? el("p", {}, t("sets", percent(sets.coverage), fix(sets.mean_size, 2))) : report.limits_from ? el("p", {}, t("noSets")) : null,
    together?.length > 1 ? el("p", {}, t("together", together.map(row => t("byPhotographs", percent(row.accuracy), row.photographs, number(row.plants)))
      .join(", ")), t(together[0].of === "group" ? "oneGroup" : "oneClass")) : null,
    el("p", {}, unknown?.named !== undefined ? t("unknown", percent(unknown.named, 0), number(unknown.photographs)) : t("unknownNot")));
}

// ---- confused pairs ----
function strip(from, to, count) {
  const shown = photos.filter(photo => photo.label === from && photo.predicted_label === to).slice(0, 2);
  const example = label => examples[label] && el("figure", { class: "example" }, picture(examples[label],
    t("classified", called(label))), el("figcaption", {}, nameOf(label)));
  return el("div", {}, el("h3", {}, both(from), el("span", { class: "soft" }, t("mistakenFor")), both(to), " ",
    el("span", { class: "wrong" }, t("times", count))),
    el("div", { class: "strip" }, shown.map(photo => el("figure", {}, picture(photo.view, t("photograph", called(from))),
      el("figcaption", {}, percent(photo.probability, 0)))), example(from), example(to)));
}
function pairs() {
  section("pairs", t("pairs"), t(report.pairs.length ? "pairsLead" : "noPairs"),
    el("div", { class: "pairs" }, report.pairs.slice(0, PAIRS).map(([a, b, a_as_b, b_as_a]) =>
      el("div", { class: a_as_b && b_as_a ? "card pair both" : "card pair" }, a_as_b ? strip(a, b, a_as_b) : null,
        b_as_a ? strip(b, a, b_as_a) : null))));
}

// ---- mistakes ----
const ORDERS = [(a, b) => b.probability - a.probability, (a, b) => a.probability - b.probability,
  (a, b) => called(a.label).localeCompare(called(b.label), language) || b.probability - a.probability];
const everyName = label => Object.values(names[label]).join(" ").toLowerCase();
const tile = photo => el("figure", { class: "card" },
  el("div", { class: "side-by-side" }, picture(photo.view, t("photograph", called(photo.label))), photo.heat && picture(photo.heat, t("heat"))),
  el("div", {}, el("span", { class: "wrong" }, nameOf(photo.predicted_label)), ` ${percent(photo.probability, 0)}`),
  el("div", {}, t("correct"), el("span", { class: "right" }, nameOf(photo.label)), ` ${percent(photo.probability_of_latin, 0)}`),
  el("figcaption", {}, photo.reason ? el("span", { class: "doubt" }, t("notSure")) : null, verbatim(photo.path.split("/").pop())));
function mistakes() {
  const change = (changes = {}) => { Object.assign(state, { most: FIRST_TILES }, changes); show(); };
  const find = el("input", { type: "search", placeholder: t("find"), "aria-label": t("find"), value: state.words,
    oninput: () => change({ words: find.value }) });
  const order = el("select", { "aria-label": t("order"), onchange: () => change({ order: order.selectedIndex }) },
    ["confident", "hesitant", "byName"].map(key => el("option", {}, t(key))));
  const only = el("button", { type: "button", onclick: () => change({ pair: null }) });
  const more = el("button", { type: "button", onclick: () => change({ most: photos.length }) });
  const tiles = el("div", { class: "tiles" }), shownCount = el("span", { class: "soft", role: "status" });
  function show() {
    const words = state.words.trim().toLowerCase(), { pair } = state;
    const shown = photos.filter(photo => (!pair || pair[0] === photo.label && pair[1] === photo.predicted_label)
      && (everyName(photo.label) + " " + everyName(photo.predicted_label)).includes(words)).sort(ORDERS[state.order]);
    tiles.replaceChildren(...shown.slice(0, state.most).map(tile));
    more.hidden = shown.length <= state.most;
    more.textContent = t("showAll", number(shown.length));
    only.hidden = !pair;
    only.replaceChildren(...(pair ? [nameOf(pair[0]), t("mistakenFor"), nameOf(pair[1]), " ✕"] : []));
    shownCount.textContent = t("photographs", shown.length);
  }
  section("mistakes", t("mistakes"), wrong ? t(photos.some(photo => photo.heat) ? "mistakesLead" : "plainLead") + (photos.length < wrong
    ? t("mistakesShown", number(photos.length), number(wrong)) : "") : t("noMistakes"),
  ...(wrong ? [el("div", { class: "tools" }, find, order, only, shownCount), tiles, more] : []));
  order.selectedIndex = state.order;
  show();
  return change;
}

// ---- classes ----
function mostConfused(row) {
  const others = matrix[row.label].map((count, label) => [label === row.label ? 0 : count, label]);
  return others.reduce((most, other) => other[0] > most[0] ? other : most);
}
const COLUMNS = [ // title, what is sorted by, what is shown
  ["className", row => called(row.label), row => el("div", {}, examples[row.label] ? picture(examples[row.label], "") : null,
    el("span", {}, nameOf(row.label), el("small", {}, otherNames(names[row.label]))))],
  ["train", row => Number(row.train), row => row.train === "" ? "–" : number(row.train)],
  ["test", row => row.photographs, row => number(row.photographs)],
  ["recall", row => row.recall, row => [recallBar(row), el("output", {}, percent(row.recall))]],
  ["precision", row => row.precision, row => percent(row.precision)],
  ["f1", row => row.f1, row => fix(row.f1, 3)],
  ...(report.sets ? [["setHolds", row => row.set_coverage, row => percent(row.set_coverage, 0)],
    ["setSize", row => row.set_size, row => fix(row.set_size, 1)]] : []),
  ["mostOften", row => mostConfused(row)[0], row => mostConfused(row)[0]
    ? [nameOf(mostConfused(row)[1]), ` ${mostConfused(row)[0]}×`] : "–"]];
function classes() {
  const heads = COLUMNS.map(([key], place) => el("th", { scope: "col", class: place ? "" : "name" },
    el("button", { type: "button", onclick: () => sort(place, state.sorted === place ? !state.upward : true) }, t(key))));
  const body = el("tbody"), lines = new Map(report.classes.map(row => [row, el("tr", {},
    COLUMNS.map(([, , show], place) => el("td", { class: place ? "" : "name" }, show(row))))]));
  function sort(place, upward) {
    const value = COLUMNS[place][1], rows = [...lines.keys()].sort((a, b) => typeof value(a) === "string"
      ? value(a).localeCompare(value(b), language) : value(a) - value(b));
    Object.assign(state, { sorted: place, upward });
    body.append(...(upward ? rows : rows.reverse()).map(row => lines.get(row)));
    heads.forEach((head, i) => i === place ? head.setAttribute("aria-sort", upward ? "ascending" : "descending")
      : head.removeAttribute("aria-sort"));
  }
  section("classes", t("classes"), t("classesLead"),
    wide(t("classes"), el("table", {}, el("thead", {}, el("tr", {}, heads)), body)));
  sort(state.sorted, state.upward);
}

// ---- confidence ----
function confidence() {
  const { temperature, threshold, abstained } = report;
  section("confidence", t("confidence"), t("confidenceLead") + (temperature === null ? t("temperatureNone")
    : t("temperature", fix(temperature, 2), report.temperature_varies)),
  el("div", { class: "plots" }, reliability("before", t(temperature === null ? "asTrained" : "beforeScaling")),
    temperature === null ? null : reliability("after", t("afterScaling")), coverage()),
  el("p", {}, t("unsureWhy", percent(report.max_risk, 0), t("photographs", abstained.risk)),
    threshold === null ? t("outsideNone") : t("outside", number(abstained["out-of-distribution"]))));
}

// ---- how many photographs are enough ----
function notDrawn(curve) {
  const known = { unnamed: "curveUnnamed", random: "curveRandom" }[curve?.why];
  return [t("notDrawn"), !curve ? t("curveOff") : known ? t(known) : el("span", { lang: "en", translate: "no" }, `${curve.reason}.`)];
}
function enough(curve) {
  if (!curve || curve.reason) return section("enough", t("enough"), notDrawn(curve));
  const most = byGain(curve).filter(clear).slice(0, 3);
  const named = most.map((row, i) => [i ? "; " : "", both(row.label), ", ", gainText(row.gain)]);
  section("enough", t("enough"), [t("double", gainText(curve.gain)), most.length ? t("gainsClear", named) : t("gainsNone"),
    t("probes", curve.draws)],
    el("div", { class: "plots" }, learningCurve(curve), gainChart(curve)));
}

// ---- how this was made ----
const plainly = value => typeof value === "string" ? value || "–"
  : JSON.stringify(value, (_, part) => typeof part === "number" ? +part.toPrecision(5) : part);
const inWords = (key, value) => key === "interval_method" ? t(value === "Wilson" ? "wilson" : "bootstrap")
  : typeof value === "boolean" ? t(value ? "yes" : "no")
  : Number.isInteger(value) ? number(value)
  : typeof value === "number" ? value.toLocaleString(language, { maximumSignificantDigits: 5 }) : verbatim(plainly(value));
function made() {
  const keys = Object.keys(MADE).filter(key => report[key] !== undefined && report[key] !== null);
  const row = (title, ...value) => el("tr", {}, el("td", {}, title), el("td", {}, ...value));
  const settings = Object.entries(report.settings), method = inWords("interval_method", report.interval_method);
  section("made", t("made"), t("madeLead") + (report.groups < report.photographs ? t("madeGroups", report.groups) : t("madeAlone"))
    + t("method", method),
  el("div", { class: "card settings" }, el("table", {}, keys.map(key => row(said(MADE[key]), inWords(key, report[key]))))),
  settings.length ? el("details", { class: "card settings", ...(state.settings ? { open: "" } : {}),
    ontoggle: event => { state.settings = event.target.open; } }, el("summary", {}, t("settings")),
  el("table", { translate: "no" }, settings.map(([key, value]) => row(key.replaceAll("_", " "), plainly(value)))))
    : el("p", {}, t("noSettings")));
  main.append(el("footer", {}, t("files")));
}

// ---- the page ----
function render() {
  document.querySelector("nav").setAttribute("aria-label", t("sections"));
  links.replaceChildren();
  main.replaceChildren();
  headline();
  answers();
  pairs();
  const change = mistakes();
  classes();
  section("confusions", t("matrix"), t("matrixLead"), wide(t("matrix"), drawMatrix(pair => {
    change({ pair });
    document.getElementById("mistakes").scrollIntoView();
  })));
  confidence();
  enough(report.learning_curve);
  made();
  document.getElementById("languages").setAttribute("aria-label", t("language"));
}
function speak() { // what is read stays where it is
  const read = [...main.children].find(part => part.getBoundingClientRect().bottom > 60), top = read?.getBoundingClientRect().top;
  render();
  if (scrollY && read?.id) scrollBy({ top: document.getElementById(read.id).getBoundingClientRect().top - top, behavior: "instant" });
}
offerLanguages(speak);
render();
