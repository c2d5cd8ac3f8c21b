// The review page: views, photographs and decisions. review_text.js comes before it, the others after it.
"use strict";
const $ = id => document.getElementById(id);
const state = {view: "sheet", name: "", word: "", page: 0, pages: 1, at: 0, anchor: 0, scale: 1,
  whole: localStorage.getItem("whole") === "true"};
let overview = {classes: [], views: []}, blocks = [], cards = [], picked = new Set(), trail = [], queue = Promise.resolve();
let recent = JSON.parse(localStorage.getItem("recent") || "[]"), choices = [], chosen = 0;

function el(tag, className, text, parent) {
  const one = document.createElement(tag);
  if (className) one.className = className;
  if (text !== undefined) one.textContent = text;
  if (parent) parent.append(one);
  return one;
}
function say(text, bad) { $("message").textContent = text; $("message").className = bad ? "bad" : ""; }
async function ask(path, body) {
  const reply = await fetch(path, {signal: AbortSignal.timeout(60_000),
    ...(body !== undefined && {method: "POST", body: JSON.stringify(body)})}).catch(() => {
    throw new Error("review.py does not answer. Start it again and open the address it prints."); });
  if (!reply.ok) throw Object.assign(new Error(await reply.text()), {status: reply.status});
  return reply.json();
}
const photoAddress = (photo, large) => "/photo?" + new URLSearchParams({sha256: photo.sha256, class: photo.class,
  ...(large ? {large: 1} : {}), v: photo.label_class});
const count = number => number.toLocaleString("en");
const NONE = {choice: "", bulk: false, move: "", apart: [], together: []}, verdictOf = photo => photo.verdict || NONE;
const seen = photo => Object.values(verdictOf(photo)).some(value => value.length);
// Label conflicts and borderline pairs are decided one by one: no bulk key writes anything about them.
const delicate = photo => photo.status === "review" || Boolean(photo.near);
const oneByOne = () => ["conflicts", "borderline"].includes(state.view);
function reviewed(block) {  // the same rule as is_reviewed of review_views.py
  if (!oneByOne()) return block.some(seen);
  const left = block.filter(photo => verdictOf(photo).choice !== "reject");
  return left.every((one, i) => left.slice(0, i).every(other => verdictOf(one).apart.includes(other.sha256)
    || [one, other].every(photo => verdictOf(photo).choice === "keep" && !verdictOf(photo).bulk)
    || (state.view === "conflicts" ? inEffect(one) === inEffect(other) : verdictOf(one).together.includes(other.sha256))));
}
const why = photo => photo.suspected && photo.status !== "rejected"
  ? photo.suspected.split(", ").map(word => WHY[word]?.(photo) || word).join("; ") : photo.reason;
const inEffect = photo => (photo.verdict && photo.verdict.move) || photo.label_class;
const numbers = (view, name = "") => overview.views.find(one => one.view === view && one.name === name)
  || {total: 0, reviewed: 0, suspected: {}};

// ---- tabs, classes, progress ----

async function refresh() {
  overview = await ask("/overview");
  const words = numbers(state.view, state.name).suspected;
  showButtons($("tabs"), Object.entries(VIEWS).map(([view, {title}]) => {
    const {reviewed, total} = numbers(view);
    return {text: title, number: reviewed && view !== "sheet" ? `${count(reviewed)}/${count(total)}` : count(total),
      current: view === state.view, action: () => open(view)};
  }));
  const side = [{text: "Class: reviewed / all"}];
  for (const {name} of [{name: ""}, ...overview.classes]) {
    const {reviewed, total} = numbers(state.view, name), done = reviewed === total;
    if (total) side.push({text: name || "All classes", number: `${done ? "✓ " : ""}${reviewed ? count(reviewed) + "/" : ""}${
      count(total)}`, done, current: name === state.name, action: () => open(state.view, name)});
  }
  if (Object.keys(words).length) side.push({text: "Only the suspicious"});
  for (const [word, number] of Object.entries(words).sort((a, b) => b[1] - a[1]))
    side.push({text: word, number: count(number), current: word === state.word,
      action: () => open("sheet", state.name, word === state.word ? "" : word)});
  showButtons($("side"), side);
  const here = numbers(state.view, state.name);
  $("count").replaceChildren(`${count(here.reviewed)} of ${count(here.total)}`);
  el("span", "", " reviewed", $("count"));
  $("pick").textContent = (state.name || "All classes") + (state.word && ` · ${state.word}`);
  $("bar").value = here.total ? here.reviewed / here.total : 0;
  $("undo").disabled = !overview.decisions;
}
// Show buttons, and headings where there is no action. Existing nodes are reused, so that a click in
// progress is not lost.
function showButtons(parent, items) {
  items.forEach(({text, number = "", done = false, current = false, action}, i) => {
    const tag = action ? "button" : "h2";
    let node = parent.children[i];
    if (node?.localName !== tag) {
      const made = document.createElement(tag);
      el("b", "", "", made); el("span", "", "", made);
      if (node) node.replaceWith(made); else parent.append(made);
      node = made;
    }
    for (const [at, shown] of [text, number].entries())
      if (node.children[at].textContent !== shown) node.children[at].textContent = shown;
    node.className = done ? "done" : "";
    if (current) node.setAttribute("aria-current", "true"); else node.removeAttribute("aria-current");
    node.onclick = action || null;
  });
  while (parent.children.length > items.length) parent.lastChild.remove();
}
let waiting = 0;
function refreshSoon() { clearTimeout(waiting); waiting = setTimeout(refresh, 250); }

// ---- a page of photographs ----

async function open(view = state.view, name = "", word = "", page = -1, focus = 0) {
  let reply;
  try { reply = await ask("/sheet?" + new URLSearchParams({view, name, word, page})); }
  catch (error) { return say(error.message, true); }
  Object.assign(state, {view, name, word, page: reply.page, pages: reply.pages, at: 0, anchor: 0});
  blocks = reply.blocks; picked.clear();
  history.replaceState(null, "", "/#" + [view, name, word, state.page].map(encodeURIComponent).join("/"));
  draw();
  point(focus < 0 ? cards.length - 1 : focus);
  focusCard();
  await refresh();
  ahead();
}
function draw() {
  const grid = $("grid"), sheet = ["sheet", "rejected"].includes(state.view);
  grid.replaceChildren(); cards = [];
  grid.className = sheet ? "" : "blocks";
  $("main").classList.toggle("whole", state.whole);
  $("whole").hidden = !sheet; $("whole").setAttribute("aria-pressed", state.whole);
  $("lead").textContent = VIEWS[state.view].lead;
  for (const block of blocks) {
    let row = grid;
    if (!sheet) {
      const box = el("section", "block", undefined, grid), head = el("header", "", undefined, box);
      el("span", "soft", state.view === "borderline" ? `${Math.round(100 * block[0].near_alike)} % of the pixels agree`
        : `${block.length} files${state.view === "conflicts" && !proposed(block) ? ", no proposal" : ""}`, head);
      for (const name of state.view === "conflicts" ? namesOf(block) : [""]) {
        const accept = el("button", name && name === proposed(block) ? "proposed" : "",
          name ? `Take ${name}${chance(block, name)}` : VIEWS[state.view].accept, head);
        accept.tabIndex = -1;  // 0 beside the photograph pointed at
        accept.onclick = () => { picked.clear(); point(cards.findIndex(card => card.block === block)); act("accept", name); focusCard(); };
      }
      row = el("div", "row", undefined, box);
    }
    for (const photo of block) cards.push(drawCard(photo, block, row, sheet));
  }
  for (const card of cards) card.show();
  if (!cards.length) {
    const empty = el("div", "", undefined, grid);
    empty.id = "empty"; el("b", "", VIEWS[state.view].empty, empty);
  }
  for (const button of $("verdicts").children) {
    const {action} = button.dataset;
    button.hidden = (action === "apart" && sheet) || (action === "same" && state.view !== "borderline") || (action === "accept" && state.view === "sheet");
    if (VIEWS[state.view][action]) button.firstChild.textContent = VIEWS[state.view][action];
  }
  $("verdicts").className = grid.className;
  $("turn").className = state.pages > 1 ? "" : "single";
  $("where").textContent = ` ${count(state.page + 1)} of ${count(state.pages)} `;
  $("back").disabled = !state.page; $("next").disabled = state.page + 1 >= state.pages;
  fit();
}
const proposed = block => block.find(photo => photo.proposal)?.proposal;
function chance(block, name) {  // by the picture, in the mean over the files of that name
  const found = block.filter(photo => photo.label_class === name && photo.label_score !== "").map(photo => +photo.label_score);
  return found.length ? percent(found.reduce((sum, one) => sum + one) / found.length) : "";
}
const offered = name => overview.classes.some(one => one.name === name && one.offered);
const namesOf = block => [...new Set([proposed(block), ...block.map(photo => photo.label_class)])].filter(offered);
function drawCard(photo, block, parent, sheet) {
  const node = el("div", "card", undefined, parent), picture = el("div", "picture", undefined, node);
  const card = {photo, block, node, index: cards.length};
  if (photo.shown) {
    const image = el("img", "", undefined, picture);
    image.alt = `${inEffect(photo)}, ${why(photo) || "a photograph"}`; image.decoding = "async"; image.draggable = false; image.src = photoAddress(photo);
    image.onerror = () => { el("p", "", "The file cannot be shown.", picture); image.remove(); };
  } else el("p", "", photo.reason, picture);
  const words = state.view === "rejected" ? photo.reason : photo.suspected;
  if (sheet && words && photo.shown) el("div", "why", words, picture);
  const tools = el("div", "tools", undefined, picture);
  for (const [text, title, action] of [["✓", "Keep", "keep"], ["✕", "Reject", "reject"], ["→", "Move", "move"]]) {
    const button = el("button", "", text, tools);
    button.tabIndex = -1;  // for the mouse; the keyboard has the same buttons in the footer
    button.title = title;
    button.onclick = event => { event.stopPropagation(); if (!picked.has(card)) { picked.clear(); point(card.index); } act(action); };
  }
  const peek = el("button", "", "⌕", tools);
  peek.title = "Zoom in"; peek.tabIndex = -1;
  peek.onpointerenter = () => zoom(card, true);
  peek.onpointerleave = () => { $("zoom").hidden = true; };
  if (!sheet) {
    const facts = el("div", "facts", undefined, node);
    el("b", "", inEffect(photo), el("div", "", undefined, facts));
    el("div", "", [photo.width && `${photo.width} × ${photo.height}`, STATUS[photo.status],
      photo.status === "duplicate" && `${photo.distance} bits apart`].filter(Boolean).join(" · "), facts);
  }
  node.dataset.key = photo.key;
  node.setAttribute("role", "group");
  node.tabIndex = -1;  // 0 for the one pointed at
  node.title = [photo.file, photo.width && `${photo.width} × ${photo.height}`, why(photo)].filter(Boolean).join("\n");
  node.onclick = event => {
    if (event.shiftKey) range(state.anchor, card.index);
    else if (event.ctrlKey || event.metaKey) { picked.has(card) ? picked.delete(card) : picked.add(card); }
    else picked.clear();
    if (card.index === state.at && matchMedia("(pointer: coarse)").matches) zoom(card);  // tapped a second time
    point(card.index, event.shiftKey);
  };
  node.ondblclick = () => zoom(card);
  card.show = () => {
    const verdict = verdictOf(photo), within = shas => shas.some(sha => block.some(other => other.sha256 === sha));
    node.classList.toggle("reject", verdict.choice === "reject");
    node.querySelector(".mark")?.remove();
    const waits = failure && unsaved.some(({decisions}) => decisions.some(({key}) => key === photo.key));
    const [kind, text] = waits ? ["waits", "not saved yet"] : verdict.choice === "reject" ? ["reject", "✕"] : verdict.move ? ["move", "→ " + verdict.move]
      : verdict.choice === "keep" ? verdict.bulk && photo.status === "review" ? ["apart", "kept in bulk: decide"] : ["keep", "✓"] : within(verdict.apart) ? ["apart", "≠"] : within(verdict.together) ? ["apart", "= one picture"] : [];
    if (kind) el("div", "mark " + kind, text, picture);
    node.parentNode.parentNode.classList.toggle("seen", !sheet && reviewed(block));
    const name = node.querySelector(".facts b");
    if (name) name.textContent = inEffect(photo);
    node.setAttribute("aria-label", [`Photograph ${card.index + 1} of ${cards.length}`, inEffect(photo), STATUS[photo.status], why(photo),
      kind && {keep: "decided: keep", reject: "decided: reject", apart: "decided: not a duplicate", move: `decided: ${text}`}[kind] || text,
      photo.file].filter(Boolean).join(", "));
  };
  return card;
}
function fit() {  // choose the largest photographs with which a page fits on the screen, but never tiny ones
  const main = $("main"), width = main.clientWidth - 16, height = main.clientHeight - $("grid").offsetTop - 8;
  const sheet = ["sheet", "rejected"].includes(state.view), gap = sheet ? 4 : 10;
  const least = sheet ? Math.max(cards.length, 40) : Math.max(blocks.length, 3), smallest = sheet ? 64 : 150;
  const size = columns => Math.floor(sheet ? (width + gap) / columns - gap : ((width + gap) / columns - gap - 24) / 2);
  const high = columns => Math.ceil(least / columns) * (size(columns) + gap + (sheet ? 0 : 98)) - gap;
  let columns = 1;
  while (high(columns) > height && size(columns + 1) >= smallest) columns++;
  const cell = Math.max(smallest, Math.min(width, Math.round(size(columns) * state.scale)));
  main.style.setProperty("--cell", cell + "px");
  main.style.setProperty("--gap", gap + "px");
  document.body.style.setProperty("--foot", document.querySelector("footer").offsetHeight + "px");
}
function ahead() {
  if (state.page + 1 < state.pages) ask("/sheet?" + new URLSearchParams({...state, page: state.page + 1})).then(reply => {
    for (const photo of reply.blocks.flat()) if (photo.shown) new Image().src = photoAddress(photo);
  }).catch(() => {});
}

// ---- decisions ----

const of = (card, action, value = "") => ({key: card.photo.key, action, value});
function accepted(block, name = proposed(block)) {
  const own = cards.filter(card => card.block === block && card.photo.sha256);
  if (state.view === "conflicts")
    return own.filter(card => name && inEffect(card.photo) !== name).map(card => of(card, "move", name));
  if (state.view === "borderline") return own.length < 2 ? [] : [of(own[0], "not_duplicate", own[1].photo.sha256)];
  return own.slice(0, 1).map(card => of(card, state.view === "rejected" ? "reject" : "keep"));
}
function acceptRest() {
  const undecided = blocks.filter(block => !reviewed(block)), left = undecided.filter(block => oneByOne() || block.some(delicate));
  const decisions = undecided.filter(block => !left.includes(block)).flatMap(block => accepted(block));
  const skipped = !left.length ? "" : oneByOne() ? `${count(left.length)} on this page wait: each is decided by itself.`
    : `${count(left.length)} skipped: they belong to a label conflict or a borderline pair, decided one by one.`;
  const after = async () => {
    if (!left.length || (!oneByOne() && decisions.length)) await onward();
    else point(cards.findIndex(card => card.block === (left.find(block => block !== cards[state.at].block) || left[0])));
    if (skipped) say(decisions.length ? `${count(decisions.length)} decisions saved; ${skipped}` : skipped);
  };
  return decisions.length ? decide(decisions, after) : after();
}
function act(action, value) {
  if (action === "rest") return acceptRest();
  let chosen = (picked.size ? [...picked] : cards.slice(state.at, state.at + 1))
    .filter(({photo}) => photo.sha256 && (photo.shown || action !== "keep"));
  const bulk = oneByOne() && action !== "keep" ? new Set(chosen.map(card => card.block)).size > 1 : chosen.length > 1;
  const skipped = bulk ? chosen.filter(card => oneByOne() || delicate(card.photo)).length : 0;
  if (bulk) chosen = chosen.filter(card => !oneByOne() && !delicate(card.photo));
  let left = skipped ? `${count(skipped)} skipped: label conflicts and borderline pairs are decided one by one.` : "";
  if (left && !chosen.length) return say(left);
  if (!chosen.length) return say("This file could not be read; it cannot be kept or moved.");
  const whole = ["accept", "apart", "same"].includes(action);
  let decisions;
  if (action === "accept") {
    const named = [...new Set(chosen.map(card => card.block))];
    if (state.view === "conflicts" && !value && !named.some(proposed)) return say("No name is proposed; choose one.");
    decisions = named.flatMap(block => accepted(block, value || undefined));
  }
  else if (action === "apart" || action === "same") decisions = ["sheet", "rejected"].includes(state.view) ? [] : chosen.flatMap(card => cards.filter(other =>
    other.block === card.block && other !== card && !chosen.includes(other) && other.photo.sha256).map(other =>
    of(card, action === "same" ? "duplicate" : "not_duplicate", other.photo.sha256)));
  else if (action === "move" && !value) return ask_class();
  else if (action === "propose") {
    const offers = chosen.filter(card => card.photo.proposal), sure = offers.filter(({photo}) => photo.proposal_probability >= SURE);
    if (offers.length > 1 && sure.length < offers.length) left = [left, `${count(offers.length - sure.length)} skipped: a proposal below ${
      100 * SURE} % is taken one by one.`].filter(Boolean).join(" ");
    decisions = (offers.length > 1 ? sure : offers).map(card => of(card, "move", card.photo.proposal));
  }
  else decisions = chosen.map(card => of(card, action, value));
  if (!decisions.length) return say(left || NOTHING[action]);
  if (action === "move") recent = [value, ...recent.filter(name => name !== value)].slice(0, 9);
  localStorage.setItem("recent", JSON.stringify(recent));
  decide(decisions, left && (() => say(left)));
  const last = whole ? cards.findLastIndex(card => card.block === chosen.at(-1).block) : chosen.at(-1).index;
  picked.clear();
  point(last + 1 < cards.length ? last + 1 : last);
}
function undo() {
  queue = queue.then(() => alone(async () => {
    const waits = listUnsaved().filter(entry => entry.tab === tab).at(-1);
    if (waits) { drop(waits); note(); cards.forEach(card => card.show()); return say("undone"); }
    const others = (await otherTabs()).join();
    const reply = await ask("/undo?" + new URLSearchParams({tab, others}), []), keys = Object.keys(reply.changed), place = trail.pop();
    if (!keys.length) return say("Nothing to undo.");
    if (!cards.some(card => keys.includes(card.photo.key)) && place)
      await open(place.view, place.name, place.word, place.page);
    show(reply);
    tabs.postMessage({changed: reply.changed});
    const first = cards.findIndex(card => keys.includes(card.photo.key));
    picked.clear();
    if (first >= 0) point(first);
    say(first >= 0 ? "undone" : "undone, on another page");
  })).catch(error => say(error.message, true));
}
