// The backend of the page without a server, written by export.py --web: the network runs in the browser, on one thread.
// After exif.js, view.js, decide.js, log.js and gpu.js.
"use strict";
const OFFLINE_TEXT = { en: {
  waiting: "The network is still being loaded, or this device needs more time.",
  footer: "Your photograph stays on this device: it is processed here and sent nowhere.", refused: {
    gone: () => "The page's files could not be loaded. Try again where there is a network.",
    unknown: () => "This browser cannot open the file as a picture. It opens JPEG, PNG, WebP, AVIF, GIF and BMP.", heic: () =>
      "This browser cannot open HEIC photographs. Save the photograph as JPEG, or set the camera to “Most Compatible”.",
    failed: () => "The network could not be loaded or run on this device. Reload the page, with a network if it is the first time." },
  version: (version, date) => `Version ${version} of ${date}.`, kept: "Kept on this device: it also works without a network.",
  keeping: (count, of) => `Being kept for use without a network: ${count} of ${of} files …`,
  notKept: "Not all files could be kept for use without a network. Reload the page where there is one.",
  gpu: "Answers are computed by the graphics processor.",
  insecure: "It works without a network only where it is opened by https.", newer: "A newer version is there.", load: "Load it",
  log: count => `Your answers: ${count}`, where: "with the place where a photograph was taken", save: "Save as Darwin Core (CSV)",
  empty: "Each answer is listed here, on this device alone.", remove: name => `Remove ${name}` },
ru: {
  waiting: "Сеть ещё загружается, или устройству нужно больше времени.",
  footer: "Фотография остаётся на этом устройстве: она обрабатывается здесь и никуда не отправляется.", refused: {
    gone: () => "Не удалось загрузить файлы страницы. Попробуйте ещё раз, когда будет интернет.",
    unknown: () => "Браузер не может открыть этот файл как изображение. Подходят JPEG, PNG, WebP, AVIF, GIF и BMP.", heic: () =>
      "Браузер не открывает снимки HEIC. Сохраните снимок как JPEG или выберите в настройках камеры «Наиболее совместимые».",
    failed: () => "Не удалось загрузить или запустить сеть на этом устройстве. Откройте страницу заново, в первый раз — с интернетом." },
  version: (version, date) => `Версия ${version} от ${date}.`, kept: "Сохранено на устройстве: работает и без интернета.",
  keeping: (count, of) => `Сохраняется для работы без интернета, файлов: ${count} из ${of} …`,
  notKept: "Не все файлы удалось сохранить для работы без интернета. Откройте страницу ещё раз, когда он будет.",
  gpu: "Ответы вычисляет графический процессор.",
  insecure: "Без интернета страница работает, только если открыта по https.", newer: "Есть более новая версия.", load: "Загрузить её",
  log: count => `Ваши определения: ${count}`, where: "записывать место съёмки", save: "Сохранить как Darwin Core (CSV)",
  empty: "Список определений хранится только на этом устройстве.", remove: name => `Удалить: ${name}` } };
for (const [key, { refused, ...texts }] of Object.entries(OFFLINE_TEXT)) {
  Object.assign(TEXT[key], texts);
  Object.assign(TEXT[key].refused, refused);
}

const state = { keeping: null, waiting: null, gpu: false, logOpen: false }; // keeping: a text; waiting: the worker of a newer version
const backend = {
  async facts() {
    const reply = await fetch("facts.json");
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    const found = await reply.json();
    backend.session = createSession(found.network);
    backend.session.catch(() => {}).then(keepOnDevice).then(speedUp); // a failure is told when a photograph is given
    return found;
  },
  example: (label, index) => facts.classes[label].examples[index].image,
  async predict(files) {
    const rows = [], read = [];
    let refused = "failed";
    for (const [index, file] of files.entries())
      try {
        const run = await backend.session;
        rows.push(await run(await readView(file, facts.network.view, facts.megapixels)));
        read.push(index);
      } catch (error) {
        if (!error.refused) console.error(error);
        refused = error.refused || refused;
      }
    const prediction = rows.length ? interpret(rows, facts.network) : { refused };
    if (!prediction.refused)
      answerLog.add(prediction, read.map(index => files[index]), facts.network.version).finally(renderExtra);
    return { ...prediction, read };
  },
  extra: () => [logSection(), statusLine()],
};

// ---- the network ----
async function createSession({ file, view: { image_size: size }, flip_tta: flips }, runtime = "ort.wasm.bundle.min.mjs", provider = "wasm") {
  const [ort, reply] = await Promise.all([import(new URL(runtime, document.baseURI)), fetch(file)]);
  if (!reply.ok) throw new Error(`${file}: status ${reply.status}`);
  ort.env.wasm.numThreads = 1; // with more, sessions hang on iOS: microsoft/onnxruntime#11679
  const session = await ort.InferenceSession.create(await reply.arrayBuffer(), { executionProviders: [provider] });
  const outputs = async view => (await session.run({ views: new ort.Tensor("uint8", view, [1, size, size, 3]) })).outputs.data;
  await outputs(new Uint8Array(size * size * 3)); // the first is the slowest
  return async view => {
    const first = await outputs(view);
    if (!flips) return first;
    const second = await outputs(mirrored(view, size));
    return first.map((value, i) => (value + second[i]) / 2);
  };
}
async function speedUp() {
  const run = await backend.session.catch(() => null), faster = run && await fasterRun(facts.network, run);
  if (!faster) return;
  backend.session = Promise.resolve(faster);
  state.gpu = true;
  renderExtra();
}
function mirrored(view, size) {
  const result = new Uint8Array(view.length);
  for (let from = 0; from < view.length; from += 3) {
    const pixel = from / 3, x = pixel % size;
    result.set(view.subarray(from, from + 3), 3 * (pixel - x + size - 1 - x));
  }
  return result;
}

// ---- kept on the device, with its version ----
async function keepOnDevice() {
  const workers = navigator.serviceWorker;
  if (!workers) return setKeeping("insecure");
  const count = ({ data }) => setKeeping("keeping", data.kept, data.of);
  try {
    const registration = await workers.register("worker.js");
    if (registration.active) {
      setKeeping("kept");
      offerNewer(registration.waiting);
      registration.addEventListener("updatefound", () => watchNewer(registration.installing));
    } else {
      workers.addEventListener("message", count);
      const end = await settled(registration.installing || registration.waiting);
      workers.removeEventListener("message", count); // the last may come after the end
      setKeeping(end === "activated" ? "kept" : "notKept");
    }
  } catch { setKeeping("notKept") }
}
const settled = worker => new Promise(resolve => {
  const look = () => { if (["activated", "redundant"].includes(worker.state)) resolve(worker.state) };
  worker.addEventListener("statechange", look);
  look();
});
function watchNewer(worker) {
  worker.addEventListener("statechange", () => {
    setKeeping("kept");
    if (worker.state === "installed") offerNewer(worker);
  });
}
function offerNewer(worker) {
  state.waiting = worker;
  renderExtra();
}
function loadNewer() {
  navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
  state.waiting.postMessage("activate");
}
function setKeeping(key, ...counts) {
  state.keeping = () => counts.length ? t()[key](...counts) : t()[key];
  renderExtra();
}

// ---- below the answer ----
function renderExtra() { if (facts) refill(document.getElementById("extra"), ...backend.extra()) }
function statusLine() {
  const { version, date } = facts.network;
  return el("p", { class: "soft", id: "version", role: "status" }, t().version(version, date), " ", state.keeping?.(), state.gpu && ` ${t().gpu}`,
    state.waiting && [" ", t().newer, " ", el("button", { type: "button", id: "newer", onclick: loadNewer }, t().load)]);
}
function logSection() {
  const entries = answerLog.read(), box = el("input", { type: "checkbox", checked: answerLog.withPlace,
    onchange: () => { answerLog.withPlace = box.checked } });
  return el("details", { class: "known", id: "log", open: state.logOpen, ontoggle: event => { state.logOpen = event.target.open } },
    el("summary", {}, el("h2", {}, t().log(entries.length))), el("p", { class: "soft" }, t().empty),
    el("p", {}, el("label", {}, box, " ", t().where)), el("ul", { class: "log" }, entries.map(logRow)),
    entries.length ? el("button", { type: "button", id: "save", onclick: saveLog }, t().save) : null);
}
function logRow(entry) {
  const name = entry.name || (entry.reason === "risk" ? t().unsure : t().none);
  return el("li", {}, el("span", {}, entry.name ? el("i", { lang: "la" }, name) : name, el("small", {},
    [entry.confidence && percent(entry.confidence), new Date(entry.taken || entry.identified).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" }),
      entry.place && `${entry.place.latitude}, ${entry.place.longitude}`].filter(Boolean).join(" · "))),
    el("button", { type: "button", class: "plain", "aria-label": t().remove(name), onclick: () => {
      answerLog.remove(entry.id);
      renderExtra();
    } }, "✕"));
}
function saveLog() {
  const url = URL.createObjectURL(new Blob([answerLog.csv()], { type: "text/csv" }));
  el("a", { href: url, download: "answers.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60e3);
}
start();
