// The page: questions and answers on the screen, in two languages. The script after it defines a `backend`, which does
// the rest, and calls start(): facts(), predict(files), of one plant, heat(label, file), example(label, index), and extra(), what stands
// below; where facts.feedback is true, correct(label, file). app.js is that of app.py, offline.js that of the page without a server.
"use strict";
const TEXT = { en: {
  brand: "Herbarium", title: "What plant is this?", language: "EN, English", theme: "Light or dark",
  lead: "Choose a photograph, or several of one plant: the network names it, or says that it is not sure.",
  together: count => `One answer for ${count} photographs of one plant.`, unread: count => ` Not read: ${count}.`,
  choose: "Choose a photograph", take: "Take a photograph", drop: "or drop one anywhere on this page, or paste one",
  another: "Another photo", looking: "Identifying …", heat: "Heat map", photo: "your photograph",
  legend: "Red marks what speaks most for the selected name. The network sees only the bright square.",
  unsure: "Not sure", risky: (share, risk) => `The first name is correct with an estimated probability of ${share}, which is
    not enough: of the names given, at most ${risk} may be wrong. A closer, sharper photograph with a flower or leaf in
    the centre often helps.`,
  coarse: (name, share) => `${name}, species not sure`, coarser: { genus: share => `It is this genus with an estimated
    probability of ${share}; the species below are candidates.`, family: share => `It is this family with an estimated
    probability of ${share}; the species below are candidates.` },
  set: (names, count) => count === 1 ? `Correct in 95 of 100 photographs: this one name.` :
    `In 95 of 100 photographs, one of these ${count} is correct: ${names}.`,
  none: "None of these plants", nearest: count => `The photograph seems to show none of the ${count} plants that
    this network knows. Nearest to it:`, caution: "Caution:", never: "Never eat or touch a plant or fungus because a program named it.",
  examples: "Photographs the network was trained on", credits: "Photographs: ", source: "source", close: "Close",
  unnamed: "unknown author", known: count => `The ${count} plants it knows`, tap: "with photographs it was trained on",
  wrong: "It is something else", right: "What is it?", noPlant: "None of these plants", send: "Send", corrected:
    "Thank you. A person will look at it before the network learns from it.", consent: `I took this photograph. It may be
    kept on the computer behind this page, with the time and place stored in it, and used to train the network.`,
  footer: "Your photograph is processed in memory and not stored; this tab holds a small copy until it is closed.", unless: " Only one that you correct, if you agree, is kept.", calibrated:
    " Probabilities are calibrated: of the names given with 90\u00a0%, about 90 in 100 are correct," +
    " for photographs like those the network was trained on.",
  undetected: " This network does not detect plants it was not trained on: it names them as one it knows.",
  unknownPlants: share => ` Of photographs of plants it does not know, it would name about ${share}, all wrongly.`,
  sorry: "That did not work", refused: {
    empty: () => "The file is empty.", unknown: () => `This file is not a picture that the page can read. It reads JPEG, PNG,
      WebP, AVIF, GIF, TIFF, BMP and, with the package pillow-heif, HEIC.`, heic: () => `To read HEIC photographs of an iPhone, this page needs a package: run
      pip install pillow-heif and start app.py again, or save the photograph as JPEG.`,
    pixels: facts => `The picture has too many pixels: the limit is ${facts.megapixels} million. Make it smaller or crop it
      to the plant.`, animation: () => "This is an animation. Choose a single photograph.",
    broken: () => "The picture is damaged. Choose another copy of it.", bytes: facts =>
      `The file is too large: the limit is ${facts.upload_mb} megabytes.`,
    text: () => "That was not a file. Drop or paste a picture.",
    gone: () => "The program behind this page does not respond. Is app.py still running?",
    token: () => "Open this page again at the address that app.py printed.",
    failed: () => "The program behind this page failed. Its terminal shows why." } },
ru: {
  brand: "Гербарий", title: "Что это за растение?", language: "RU, русский", theme: "Светлая или тёмная тема",
  lead: "Выберите фотографию или несколько снимков одного растения: сеть назовёт его или скажет, что не уверена.",
  together: count => `Один ответ по фотографиям одного растения (их ${count}).`, unread: count => ` Не прочитано: ${count}.`,
  choose: "Выбрать фотографию", take: "Сфотографировать",
  drop: "или перетащите её на эту страницу, или вставьте из буфера обмена",
  another: "Другое фото", looking: "Определяю …", heat: "Тепловая карта", photo: "ваша фотография",
  legend: "Красным отмечено то, что больше всего говорит в пользу выбранного названия. Сеть видит только светлый квадрат.",
  unsure: "Сеть не уверена", risky: (share, risk) => `Первое название верно с вероятностью ${share} (оценка сети). Этого мало:
    среди названных растений ошибочных должно быть не больше ${risk}. Часто помогает снимок поближе и порезче, с
    цветком или листом в центре.`,
  coarse: name => `${name}, вид под вопросом`, coarser: { genus: share => `Растение относится к этому роду с вероятностью ${share}
    (оценка сети); ниже возможные виды.`, family: share => `Растение относится к этому семейству с вероятностью ${share}
    (оценка сети); ниже возможные виды.` },
  set: (names, count) => count === 1 ? "В 95 случаях из 100 верно одно это название." :
    `В 95 случаях из 100 верно одно из этих названий (их ${count}): ${names}.`,
  none: "Ни одно из этих растений", nearest: count => `По-видимому, на фотографии нет ни одного из растений, которые
    знает сеть (их ${count}). Больше всего похоже на:`, caution: "Осторожно:",
  never: "Никогда не ешьте и не трогайте растение или гриб только потому, что его назвала программа.",
  examples: "Фотографии, на которых училась сеть", credits: "Фотографии: ", source: "источник", close: "Закрыть",
  unnamed: "автор не указан", known: count => `Растения, которые знает сеть: ${count}`,
  tap: "с фотографиями, на которых она училась",
  wrong: "Это что-то другое", right: "Что это?", noPlant: "Ни одно из этих растений", send: "Отправить", corrected:
    "Спасибо. Прежде чем сеть станет учиться на этом снимке, его посмотрит человек.", consent: `Снимок сделан мной. Его можно
    хранить на компьютере, где работает эта страница, вместе со временем и местом съёмки и учить на нём сеть.`,
  footer: "Фотография обрабатывается в памяти и не сохраняется; уменьшенная копия остаётся в этой вкладке, пока её не закроют.",
  unless: " Останется только снимок, который вы исправите, если вы на это согласитесь.", calibrated:
    " Вероятности откалиброваны: из названий с вероятностью 90\u00a0% верны примерно 90 из 100," +
    " если снимки похожи на те, на которых училась сеть.",
  undetected: " Эта сеть не распознаёт незнакомые растения: она даст им название одного из знакомых.",
  unknownPlants: share => ` Из снимков растений, которых сеть не знает, она назовёт, и всегда ошибочно, примерно ${share}.`,
  sorry: "Не получилось", refused: {
    empty: () => "Файл пуст.", unknown: () => `Страница не может прочитать этот файл как изображение. Подходят JPEG, PNG, WebP,
      AVIF, GIF, TIFF, BMP, а с пакетом pillow-heif и HEIC.`, heic: () => `Чтобы читать снимки HEIC с айфона, странице нужен пакет: выполните
      pip install pillow-heif и запустите app.py снова или сохраните снимок как JPEG.`,
    pixels: facts => `В изображении слишком много пикселей: допускается не больше ${facts.megapixels} миллионов. Уменьшите его
      или обрежьте до растения.`, animation: () => "Это анимация. Выберите обычную фотографию.",
    broken: () => "Файл изображения повреждён. Выберите другую копию.", bytes: facts =>
      `Файл слишком большой: допускается не больше ${facts.upload_mb} мегабайт.`,
    text: () => "Это не файл. Перетащите или вставьте изображение.",
    gone: () => "Программа, обслуживающая страницу, не отвечает. Запущен ли app.py?",
    token: () => "Откройте страницу заново по адресу, который напечатал app.py.",
    failed: () => "В программе, обслуживающей страницу, произошла ошибка; подробности в её терминале." } } };

// ---- preferences: in a cookie, as local storage is lost with the port, which changes from run to run ----
const readCookie = name => document.cookie.match(`(?:^|; )${name}=(\\w+)`)?.[1];
const writeCookie = (name, value) => { document.cookie = `${name}=${value}; max-age=31536000; path=/; SameSite=Strict` };
let language = readCookie("language") in TEXT ? readCookie("language") : navigator.language.startsWith("ru") ? "ru" : "en";
let facts = null; // what backend.facts() found
let job = null; // {files, urls, shown: index of them, prediction or refused, open: label, heats: {label: url}, unread: count}
let showsHeat = false;
const t = () => TEXT[language];

// ---- elements ----
const SVG = "http://www.w3.org/2000/svg";
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {}))
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  node.append(...children.flat().filter(child => child !== null && child !== undefined && child !== ""));
  return node;
}
function sprig() {
  const node = document.createElementNS(SVG, "svg");
  node.setAttribute("viewBox", "0 0 46 59");
  node.setAttribute("aria-hidden", "true");
  node.append(document.createElementNS(SVG, "use"));
  node.firstChild.setAttribute("href", "#sprig");
  return node;
}
const percent = share => [share < .001 ? "< " : share > .999 ? "> " : "", (100 * Math.min(.999, Math.max(.001, share)))
  .toLocaleString(language, { maximumFractionDigits: share > .1 && share < .99 ? 0 : 1 }), "\u00a0%"].join("");
const latin = plant => el("i", { lang: "la" }, plant.latin);
const common = plant => (language === "ru" ? [plant.russian, plant.english] : [plant.english, plant.russian])
  .filter(Boolean).join(" · ");
const thumb = label => facts.classes[label].examples.length
  ? el("img", { class: "thumb", src: backend.example(label, 0), alt: "", loading: "lazy" }) : el("span", { class: "none" });

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
  const taken = files.flatMap((file, index) => file.size > facts.upload_mb * 1e6 ? [] : [index]);
  let result = { refused: "bytes" };
  if (taken.length) try { result = await backend.predict(taken.map(index => files[index])) } catch { result = null }
  if (!result?.refused && !result?.names?.length) result = { refused: "failed" };
  const read = (result.read || [0]).map(index => taken[index]);
  if (result.refused) mine.refused = result.refused;
  else Object.assign(mine, { prediction: result, open: result.names[0].label, files: read.map(index => files[index]),
    urls: read.map(index => urls[index]), unread: files.length - read.length });
  if (mine === job) { render(); focusHeading(); if (mine.prediction) remember(mine) }
  if (showsHeat) loadHeat();
}
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
    const heat = await backend.heat(label, mine.files[shown]);
    if (heat && mine === job && shown === mine.shown) mine.heats[label] = URL.createObjectURL(heat);
  }
  if (mine === job) updateHeat();
}
function updateHeat() {
  const layer = document.querySelector(".heat"), url = job?.heats[job.open];
  if (!layer) return;
  if (url) layer.src = url;
  layer.classList.toggle("on", Boolean(showsHeat && url));
  document.getElementById("legend").hidden = !layer.classList.contains("on");
}

// ---- the stage: start, prediction or refusal ----
function photograph() {
  const heat = el("img", { class: "heat", alt: "" });
  const image = el("img", { src: job.urls[job.shown], alt: t().photo, onload: () => {
    const { naturalWidth: width, naturalHeight: height } = image, side = facts.crop * Math.min(width, height);
    box.style.aspectRatio = `${width} / ${height}`;
    box.style.width = `min(100%, ${64 * width / height}vh)`;
    Object.assign(heat.style, { width: `${100 * side / width}%`, height: `${100 * side / height}%` });
  }, onerror: () => { box.hidden = true } }); // a format that only the network can read, such as TIFF
  const box = el("div", { class: job.prediction ? "photo" : "photo looking" }, image, job.prediction && heat);
  return box;
}
function photographs() {
  const { urls, unread } = job, many = urls.length > 1;
  if (!many && !unread) return null;
  return [many ? el("div", { class: "examples", id: "photos" }, urls.map((url, index) => el("button", { type: "button",
    "aria-pressed": String(index === job.shown), onclick: () => {
      Object.values(job.heats).forEach(heat => URL.revokeObjectURL(heat));
      Object.assign(job, { shown: index, heats: {} });
      render();
      loadHeat();
    } }, el("img", { src: url, alt: `${t().photo}, ${index + 1}` })))) : null,
    el("small", { id: "together" }, (many ? t().together(urls.length) : "") + (unread ? t().unread(unread) : ""))];
}
function examplesOf(label) {
  const plant = facts.classes[label], credits = [...new Set(plant.examples.map(credit).filter(Boolean))];
  if (!plant.examples.length) return null;
  return [el("div", { class: "examples" }, plant.examples.map((_, index) => el("button", { type: "button",
    title: t().examples, onclick: () => show(label, index) }, el("img", { src: backend.example(label, index), alt: `${plant.latin}, ${index + 1}` })))),
    el("div", { class: "credits" }, credits.length ? t().credits + credits.join("; ") : t().examples)];
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
    document.querySelector(`[data-label="${candidate.label}"]`).focus();
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
  const { reason, taxonRank: rank, scientificName: name, confidence } = prediction, set = prediction.set || [];
  const among = set.length && set.length <= 5 && set.length < facts.classes.length ? el("p", { class: "soft", id: "set" }, t().set(set.join(", "), set.length)) : null;
  if (!reason) return among;
  if (outside()) return el("div", { class: "verdict", id: "unsure" }, el("h2", {}, t().none),
    el("p", {}, t().nearest(facts.classes.length)));
  const coarse = rank === "genus" || rank === "family";
  return el("div", { class: "verdict", id: "unsure" }, el("h2", {}, coarse ? t().coarse(name) : t().unsure), el("p", {}, coarse
    ? t().coarser[rank](percent(confidence)) : t().risky(percent(prediction.names[0].probability), percent(facts.max_risk))),
    among);
}
function stage() {
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
        prediction.names.map(row)), el("p", { class: "soft" }, t().never), facts.feedback && job.files.length ? correction() : null)
      : el("h1", { class: "soft" }, t().looking));
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
    photo ? el("div", { class: "examples" }, plant.examples.map((_, i) => el("button", { type: "button",
      onclick: () => show(label, i) }, el("img", { src: backend.example(label, i), alt: `${plant.latin}, ${i + 1}` })))) : null));
  if (!dialog.open) dialog.showModal();
}
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close() });

function render() {
  document.documentElement.lang = language;
  document.title = t().title;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t()[node.dataset.text];
  for (const node of document.querySelectorAll("[data-language]")) {
    node.setAttribute("aria-pressed", node.dataset.language === language);
    node.setAttribute("aria-label", TEXT[node.dataset.language].language);
  }
  document.getElementById("theme").setAttribute("aria-label", t().theme);
  document.getElementById("theme").title = t().theme;
  if (!facts) return;
  document.querySelector("footer").textContent = t().footer + (facts.feedback ? t().unless : "") + (facts.calibrated ? t().calibrated : "") +
    (facts.out_of_distribution ? facts.unknown === null ? "" : t().unknownPlants(percent(facts.unknown)) : t().undetected);
  document.getElementById("stage").replaceChildren(stage());
  document.getElementById("known").replaceChildren(known());
  document.getElementById("extra").replaceChildren(...backend.extra?.() || []);
  updateHeat();
}
for (const node of document.querySelectorAll("[data-language]")) node.addEventListener("click", () => {
  language = node.dataset.language;
  writeCookie("language", language);
  render();
});
document.querySelector("header a").addEventListener("click", forget); // to the start
const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark"
  || !document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches;
if (readCookie("theme")) document.documentElement.dataset.theme = readCookie("theme");
document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  writeCookie("theme", document.documentElement.dataset.theme);
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

function start() {
  render();
  backend.facts().then(found => { facts = found; if (!job) recall(); render() });
}
