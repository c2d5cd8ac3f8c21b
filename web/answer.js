// The page: questions and answers on the screen. The script after it defines a `backend`, which does the rest, and calls
// start(): facts(), predict(files), of one plant, heat(label, file), example(label, index), and extra(), what stands
// below; where facts.feedback is true, correct(label, file). app.js is that of app.py, offline.js that of the page without a server.
"use strict";
let facts = null; // what backend.facts() found
let unreached = false; // whether it found nothing
let job = null; // {files, urls, shown: index of them, prediction or refused, open: label, heats: {label: url}, unread: names}
let showsHeat = false;
const LATE = 5e3; // milliseconds without an answer, after which the page says why it may take long
const t = () => TEXT[language];

// ---- elements ----
const sprig = () => svg("svg", { viewBox: "0 0 46 59", "aria-hidden": "true" }, svg("use", { href: "#sprig" }));
const percent = share => [share < .001 ? "< " : share > .999 ? "> " : "", (100 * Math.min(.999, Math.max(.001, share)))
  .toLocaleString(language, { maximumFractionDigits: share > .1 && share < .99 ? 0 : 1 }), "\u00a0%"].join("");
const latin = plant => el("i", { lang: "la" }, plant.latin);
const common = plant => (language === "ru" ? [plant.russian, plant.english] : [plant.english, plant.russian])
  .filter(Boolean).join(" · ");
const thumb = label => facts.classes[label].examples.length
  ? el("img", { class: "thumb", src: backend.example(label, 0), alt: "", loading: "lazy" }) : el("span", { class: "none" });

const calibration = () => !facts.calibrated ? "" : facts.calibrated_on !== null && facts.calibrated_on < 100
  ? t().calibratedOnFew(facts.calibrated_on) : t().calibrated;

// ---- a photograph in, a prediction out ----
function picker(words, style, camera) {
  const input = el("input", { type: "file", accept: "image/*", capture: camera && "environment",
    multiple: !camera, onchange: () => identify(input.files) });
  return el("label", { class: `button ${style}` }, input, words);
}
async function identify(given) {
  for (const url of job ? [...job.urls, ...Object.values(job.heats)] : []) URL.revokeObjectURL(url);
  forget();
  const files = [...given], urls = files.map(file => URL.createObjectURL(file));
  const mine = job = { files, urls, shown: 0, heats: {}, refused: files.length ? undefined : "text" };
  render();
  scrollTo({ top: 0 });
  if (job.refused) return focusHeading();
  const reasons = await Promise.all(files.map(whyNot)), taken = [...files.keys()].filter(index => !reasons[index]);
  if (mine !== job) return; // newer photographs have been chosen
  let result = { refused: reasons[0] };
  setTimeout(() => {
    mine.late = true;
    if (mine === job) document.getElementById("waiting")?.removeAttribute("hidden");
  }, LATE);
  if (taken.length) try { result = await backend.predict(taken.map(index => files[index])) } catch { result = null }
  if (!isAnswer(result)) result = { refused: Object.hasOwn(t().refused, result?.refused) ? result.refused : "failed" };
  const read = (result.read || [0]).map(index => taken[index]);
  if (result.refused) mine.refused = result.refused;
  else Object.assign(mine, { prediction: result, open: result.names[0].label, files: read.map(index => files[index]),
    urls: read.map(index => urls[index]), unread: files.filter((_, index) => !read.includes(index)).map(({ name }) => name) });
  if (mine === job) { render(); focusHeading(); if (mine.prediction) remember(mine) }
  if (showsHeat) loadHeat();
}
async function whyNot(file) { // a folder that was dropped, or a file that is gone, cannot be read at all
  if (file.size > facts.upload_mb * 1e6) return "bytes";
  return file.slice(0, 1).arrayBuffer().then(() => null, () => "unreadable");
}
const isAnswer = result => Boolean(result?.names?.length) && result.names.every(({ label, probability }) =>
  facts.classes[label] && Number.isFinite(probability));
// A reload keeps the answer: this tab alone holds it, with small copies of the photographs, until it is closed.
const KEPT = "answer", KEPT_SIDE = 800; // pixels
const forget = () => { try { sessionStorage.removeItem(KEPT) } catch { /* switched off */ } };
async function remember(mine) {
  try {
    const pictures = await Promise.all(mine.files.map(smallCopy));
    const names = mine.prediction.names.map(({ label }) => facts.classes[label].latin);
    if (mine === job) sessionStorage.setItem(KEPT, JSON.stringify({ prediction: mine.prediction, unread: mine.unread, pictures, names }));
  } catch { forget() } // the browser cannot show it, or has no room
}
async function smallCopy(file) {
  const bitmap = await createImageBitmap(file), scale = Math.min(1, KEPT_SIDE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map(side => Math.max(1, Math.round(side * scale)));
  const canvas = el("canvas", { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg");
}
function recall() {
  try {
    const { prediction, unread, pictures, names } = JSON.parse(sessionStorage.getItem(KEPT));
    if (prediction.names.every(({ label }, index) => facts.classes[label]?.latin === names[index])) // of this network
      job = { files: [], urls: pictures, shown: 0, heats: {}, prediction, unread, open: prediction.names[0].label };
  } catch { /* there is none */ }
}
const focusHeading = () => document.querySelector("#stage h1")?.focus({ preventScroll: true });
async function loadHeat() {
  const mine = job, label = mine?.open, shown = mine?.shown;
  if (showsHeat && mine?.files.length && mine.prediction && label !== null && !mine.heats[label]) {
    const heat = await backend.heat(label, mine.files[shown]).catch(() => null);
    if (mine === job && shown === mine.shown) mine.heats[label] = heat ? URL.createObjectURL(heat) : "";
  }
  if (mine === job) updateHeat();
}
function updateHeat() {
  const layer = document.querySelector(".heat"), url = job?.heats[job.open];
  if (!layer) return;
  if (url) layer.src = url;
  layer.classList.toggle("on", Boolean(showsHeat && url));
  document.getElementById("legend").hidden = !showsHeat || url === undefined;
  document.getElementById("legend").textContent = url ? t().legend : t().noHeat;
}

// ---- the stage: start, prediction or refusal ----
function photograph() {
  const heat = el("img", { class: "heat", alt: "" });
  const image = el("img", { src: job.urls[job.shown], alt: t().photo, onload: () => {
    const { naturalWidth: width, naturalHeight: height } = image, side = facts.crop * Math.min(width, height);
    box.style.aspectRatio = `${width} / ${height}`;
    box.style.width = `min(100%, ${64 * width / height}vh)`;
    Object.assign(heat.style, { width: `${100 * side / width}%`, height: `${100 * side / height}%` });
  }, onerror: () => box.replaceWith(el("p", { class: "soft", id: "unshown" }, t().unshown)) }); // such as TIFF
  const box = el("div", { class: job.prediction ? "photo" : "photo looking" }, image, job.prediction && heat);
  return box;
}
const some = names => names.slice(0, 3).join(", ") + (names.length > 3 ? `, +${names.length - 3}` : "");
function photographs() {
  const { urls, unread } = job, many = urls.length > 1, further = job.prediction.further_pages;
  if (!many && !unread.length && !further) return null;
  return [many ? el("div", { class: "examples", id: "photos" }, urls.map((url, index) => el("button", { type: "button",
    "aria-pressed": String(index === job.shown), onclick: () => {
      Object.values(job.heats).forEach(heat => URL.revokeObjectURL(heat));
      Object.assign(job, { shown: index, heats: {} });
      render();
      loadHeat();
    } }, el("img", { src: url, alt: `${t().photo}, ${index + 1}`, onerror: event => event.target.replaceWith(
      el("span", { class: "none" }, index + 1)) })))) : null, // such as TIFF
    el("small", { id: "together" }, [many && t().together(urls.length), unread.length && t().unread(some(unread)),
      further && t().further(further)].filter(Boolean).join(" "))];
}
const gallery = label => el("div", { class: "examples" }, facts.classes[label].examples.map((_, index) => el("button", { type: "button",
  title: t().examples, onclick: () => show(label, index) }, el("img", { src: backend.example(label, index),
    alt: `${facts.classes[label].latin}, ${index + 1}` }))));
function examplesOf(label) {
  const plant = facts.classes[label], credits = [...new Set(plant.examples.map(credit).filter(Boolean))];
  if (!plant.examples.length) return null;
  return [gallery(label), el("div", { class: "credits" }, credits.length ? t().credits + credits.join("; ") : t().examples)];
}
const license = text => text.toUpperCase().replace(/^CC-/, "CC ");
const credit = photo => [photo.author, photo.license && license(photo.license)].filter(Boolean).join(", ");
function row(candidate) {
  const plant = facts.classes[candidate.label], open = job.open === candidate.label;
  const bar = el("div");
  bar.style.width = `${100 * candidate.probability}%`;
  return el("li", {}, el("button", { type: "button", "aria-expanded": String(open), onclick: () => {
    job.open = open ? null : candidate.label;
    render();
    document.querySelector(`[data-label="${candidate.label}"]`).focus(); // another row may have lost its links
    loadHeat();
  }, "data-label": candidate.label }, thumb(candidate.label), el("span", {}, latin(plant), el("small", {}, common(plant))),
    outside() ? null : el("output", {}, percent(candidate.probability)), outside() ? null : el("div", { class: "bar" }, bar)),
    note(plant), open ? [links(plant), ...examplesOf(candidate.label) || []] : null);
}
const outside = () => job?.prediction?.reason === "out-of-distribution";
const note = plant => (text => text && el("p", { class: "caution" }, el("b", {}, t().caution), " ", text))(
  language === "ru" ? plant.note_ru || plant.note_en : plant.note_en || plant.note_ru);
const links = plant => el("small", { class: "links" }, [["GBIF", "https://www.gbif.org/species/search?q="],
  ["iNaturalist", "https://www.inaturalist.org/taxa/search?q="]].map(([site, address]) => [el("a", { target: "_blank",
  rel: "noreferrer", href: address + encodeURIComponent(plant.latin) }, site), " "]).flat());
const heard = ({ reason, names, taxonRank: rank, scientificName: name }) => !reason ? facts.classes[names[0].label].latin
  : outside() ? t().none : rank === "genus" || rank === "family" ? t().coarse(name) : t().unsure;
function verdict(prediction) {
  const { reason, taxonRank: rank, scientificName: name, confidence } = prediction;
  if (!reason) return null;
  if (outside()) return el("div", { class: "verdict", id: "unsure" }, el("h2", {}, t().none),
    el("p", {}, t().nearest(facts.classes.length)));
  const coarse = rank === "genus" || rank === "family";
  return el("div", { class: "verdict", id: "unsure" }, el("h2", {}, coarse ? t().coarse(name) : t().unsure), el("p", {}, coarse
    ? t().coarser[rank](percent(confidence)) : t().risky(percent(prediction.names[0].probability), percent(facts.max_risk))),
    among(prediction));
}
// The set of names, where it says more than the first name and less than the list of all.
const among = ({ set = [] }) => set.length > 1 && set.length <= 5 && set.length < facts.classes.length
  ? el("p", { class: "soft", id: "set" }, t().set(set.join(", "), set.length)) : null;
function stage() {
  if (unreached) return el("section", { class: "verdict refused", id: "refused" }, el("h1", {}, t().sorry), el("p", {}, t().refused.gone()),
    el("div", { class: "actions" }, el("button", { class: "main", type: "button", onclick: () => location.reload() }, t().again)));
  if (!job) return el("section", { id: "start" }, sprig(), el("h1", {}, t().title), el("p", { class: "soft" }, t().lead),
    el("div", { class: "actions" }, picker(t().choose, "main"), picker(t().take, "take", true)),
    el("small", { class: "mouse" }, t().drop));
  if (job.refused) return el("section", { class: "verdict refused", id: "refused" }, el("h1", { class: "answer", tabindex: -1 }, t().sorry),
    el("p", {}, t().refused[job.refused](facts)), el("div", { class: "actions" }, picker(t().choose, "main"),
      picker(t().take, "take", true)));
  const heat = facts.heat && job.files.length > 0 && el("button", { type: "button", id: "show-heat", "aria-pressed": String(showsHeat), onclick: event => {
    showsHeat = !showsHeat;
    event.currentTarget.setAttribute("aria-pressed", showsHeat);
    loadHeat();
  } }, t().heat);
  const { prediction } = job;
  return el("section", { id: "result" }, el("div", { class: "sheet" }, photograph(), prediction ? photographs() : null, el("div", { class: "actions" },
    picker(t().another, ""), prediction && heat || null), el("small", { id: "legend", hidden: true }, t().legend)),
    prediction ? el("div", {}, el("h1", { class: "heard", tabindex: -1 }, heard(prediction)), verdict(prediction),
      el("ol", { class: outside() ? "names unsure outside" : prediction.reason ? "names unsure" : "names" },
        prediction.names.map(row)), prediction.reason ? null : among(prediction), el("p", { class: "soft" }, t().never), facts.feedback && job.files.length ? correction() : null)
      : el("div", {}, el("h1", { class: "soft" }, t().looking), el("p", { class: "soft", id: "waiting", hidden: !job.late }, t().waiting)));
}
function correction() {
  const mine = job;
  if (mine.corrected) return el("p", { id: "corrected", role: "status" }, mine.corrected);
  const plants = facts.classes.map((plant, label) => [[common(plant), plant.latin].filter(Boolean).join(" · "), label]);
  const choice = el("select", { required: true, "aria-label": t().right }, el("option", { value: "" }, t().right),
    el("option", { value: "none" }, t().noPlant), plants.sort(([one], [other]) => one.localeCompare(other, language))
      .map(([name, label]) => el("option", { value: label }, name)));
  return el("details", { id: "wrong" }, el("summary", {}, t().wrong), el("form", { onsubmit: async event => {
    event.preventDefault();
    let refused;
    for (const file of mine.files) refused ??= await backend.correct(choice.value, file);
    mine.corrected = refused ? t().refused[refused](facts) : t().corrected;
    if (mine === job) render();
  } }, choice, el("label", {}, el("input", { type: "checkbox", required: true }), " ", t().consent),
    el("button", { class: "main" }, t().send)));
}
function known() {
  const open = !job; // opened until there is a prediction
  return el("details", { class: "known", open }, el("summary", {}, el("h2", {}, t().known(facts.classes.length)),
    facts.classes.some(plant => plant.examples.length) ? el("small", {}, t().tap) : null),
    el("div", { class: "plants" }, facts.classes.map((plant, label) => el("button", { type: "button",
      onclick: () => show(label, 0) }, thumb(label), el("span", {}, latin(plant), el("small", {}, common(plant)))))));
}
const dialog = document.querySelector("dialog");
function show(label, index) {
  const plant = facts.classes[label], photo = plant.examples[index];
  const source = photo && /^https?:\/\//.test(photo.url) ? el("a", { href: photo.url, target: "_blank", rel: "noreferrer" },
    t().source) : null;
  dialog.replaceChildren(el("div", {}, el("header", {}, el("div", {}, latin(plant), el("div", { class: "soft" }, common(plant))),
    el("button", { class: "plain", type: "button", "aria-label": t().close, onclick: () => dialog.close() }, "✕")),
    note(plant), links(plant),
    photo ? el("img", { class: "large", src: backend.example(label, index), alt: plant.latin }) : null,
    photo ? el("small", {}, credit(photo) || t().unnamed, source && " · ", source) : null,
    plant.examples.length > 1 ? gallery(label) : null));
  if (!dialog.open) dialog.showModal();
}
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close() });

function render() {
  document.title = t().title;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t()[node.dataset.text];
  document.getElementById("theme").setAttribute("aria-label", t().theme);
  document.getElementById("theme").title = t().theme;
  if (facts || unreached) refill(document.getElementById("stage"), stage());
  if (!facts) return;
  document.querySelector("footer").textContent = t().footer + (facts.feedback ? t().unless : "") + calibration() +
    (facts.out_of_distribution ? facts.unknown === null ? "" : t().unknownPlants(percent(facts.unknown)) : t().undetected);
  refill(document.getElementById("known"), known());
  refill(document.getElementById("extra"), ...backend.extra?.() || []);
  updateHeat();
}
document.querySelector("header a").addEventListener("click", forget); // to the start
const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark"
  || !document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches;
if (preference("theme")) document.documentElement.dataset.theme = preference("theme");
document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  preference("theme", document.documentElement.dataset.theme);
});

// ---- dropping and pasting, anywhere on the page ----
let depth = 0; // elements the dragged file is over
const over = change => document.body.classList.toggle("over", (depth = Math.max(0, depth + change)) > 0);
addEventListener("dragenter", () => over(1));
addEventListener("dragleave", () => over(-1));
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => {
  event.preventDefault();
  over(-depth);
  if (facts && (event.dataTransfer.files.length || !job)) identify(event.dataTransfer.files);
});
addEventListener("paste", event => { // text pasted by mistake leaves an answer on the screen
  if (facts && (event.clipboardData.files.length || !job)) identify(event.clipboardData.files);
});

async function start() {
  offerLanguages(render);
  render();
  try { facts = await backend.facts() } catch { unreached = true }
  if (facts && !job) recall();
  render();
}
