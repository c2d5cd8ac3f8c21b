// Moving about the review page, the list of classes, keys and buttons; it starts the page.
"use strict";
// ---- navigation ----

function point(index, extending) {
  if (!cards.length) return;
  index = Math.max(0, Math.min(cards.length - 1, index));
  const left = cards[state.at]?.node, focused = left?.contains(document.activeElement);
  left?.classList.remove("focus");
  if (left) reachable(left, -1);
  state.at = index;
  if (!extending) state.anchor = index;
  const card = cards[index];
  card.node.classList.add("focus");
  reachable(card.node, 0);
  if (focused) focusCard();
  card.node.scrollIntoView({block: "nearest"});
  for (const one of cards) one.node.classList.toggle("picked", picked.has(one));
  if (!$("zoom").hidden) zoom(card);
  if (picked.size) say(`${picked.size} selected`);
  else if ($("message").className !== "bad") say([card.photo.file, why(card.photo)].filter(Boolean).join(" · "));
}
function reachable(node, index) {  // by Tab: one photograph and the buttons of its block, or a page would take 100 presses
  node.tabIndex = index;
  for (const button of node.closest(".block")?.querySelectorAll("header button") || []) button.tabIndex = index;
}
function focusCard() { (cards[state.at]?.node || $("main")).focus({preventScroll: true}); }
function range(from, to) {
  picked.clear();
  for (let i = Math.min(from, to); i <= Math.max(from, to); i++) picked.add(cards[i]);
}
function beside(step) {
  const own = cards[state.at].node.getBoundingClientRect(), middle = own.left + own.width / 2;
  let best = null, nearest = Infinity;
  for (const card of cards) {
    const box = card.node.getBoundingClientRect(), down = (box.top - own.top) * step;
    if (down < own.height / 2) continue;
    const far = down * 4 + Math.abs(box.left + box.width / 2 - middle);
    if (far < nearest) { nearest = far; best = card; }
  }
  return best ? best.index : state.at;
}
function go(index, extending) {
  if (extending) range(state.anchor, Math.max(0, Math.min(cards.length - 1, index)));
  else picked.clear();
  point(index, extending);
}
function turn(step) {
  const page = state.page + step;
  if (page >= 0 && page < state.pages) return open(state.view, state.name, state.word, page);
}
async function onward() {
  if (state.page + 1 < state.pages) return turn(1);
  await refresh();
  const next = state.view === "sheet" && state.name && nextClass();
  return next ? open("sheet", next.name) : say("This was the last page.");
}
function nextClass() {  // the next one in the list with something undecided, else the first such
  const at = overview.classes.findIndex(({name}) => name === state.name);
  return [...overview.classes.slice(at + 1), ...overview.classes.slice(0, Math.max(0, at))].find(({name}) =>
    numbers("sheet", name).reviewed < numbers("sheet", name).total);
}
function zoom(card, peek) {
  const {photo} = card, image = $("big");
  $("zoom").hidden = false;
  $("zoom").classList.toggle("peek", Boolean(peek));
  image.hidden = !photo.shown;
  image.className = photo.verdict?.choice === "reject" ? "reject" : "";
  if (photo.shown && image.dataset.key !== photo.key) {
    image.dataset.key = photo.key;
    image.src = photoAddress(photo);
    const large = new Image();
    large.onload = () => { if (image.dataset.key === photo.key) image.src = large.src; };
    large.src = photoAddress(photo, true);
  }
  $("fact").replaceChildren(inEffect(photo));
  for (const text of [photo.width && `${photo.width} × ${photo.height}`, photo.file, why(photo),
    photo.verdict?.choice]) if (text) el("span", "", text, $("fact"));
}

// ---- choosing a class ----

function ask_class() { $("palette").hidden = false; $("typed").value = ""; list(); $("typed").focus(); }
function list() {
  const typed = $("typed").value.trim().toLowerCase(), proposal = cards[state.at].photo.proposal;
  const words = name => typed.split(/\s+/).every(part => name.some(one => one.toLowerCase().includes(part)));
  const rank = name => name === proposal ? -1 : typed && name.toLowerCase().startsWith(typed) ? 0 : recent.includes(name)
    ? 1 + recent.indexOf(name) : 20;
  choices = overview.classes.filter(({name, also, offered}) => offered && words([name, ...also])).sort((a, b) => rank(a.name) - rank(b.name));
  chosen = 0;
  $("found").replaceChildren();
  for (const {name, also} of choices) {
    const item = el("li", "", name, $("found"));
    item.setAttribute("role", "option"); item.id = "choice" + $("found").children.length;
    el("span", "", also.filter(Boolean).join(", "), item);
    item.onclick = () => take(name);
  }
  mark();
}
function mark() {
  [...$("found").children].forEach((item, i) => item.setAttribute("aria-selected", i === chosen));
  $("typed").setAttribute("aria-activedescendant", "choice" + (chosen + 1));
  $("found").children[chosen]?.scrollIntoView({block: "nearest"});
}
function take(name) { $("palette").hidden = true; focusCard(); if (name) act("move", name); }
$("typed").oninput = list;
$("typed").onkeydown = event => {
  event.stopPropagation();
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (step) { chosen = Math.max(0, Math.min(choices.length - 1, chosen + step)); mark(); }
  else if (event.key === "Enter") take(choices[chosen]?.name);
  else if (event.key === "Escape") take();
  else return;
  event.preventDefault();
};

// ---- keys and buttons ----

const KEYS = {k: () => act("keep"), x: () => act("reject"), m: () => act("move"), n: () => act("apart"), s: () => act("same"),
  w: () => { state.whole = !state.whole; localStorage.setItem("whole", state.whole); $("main").classList.toggle("whole", state.whole);
    $("whole").setAttribute("aria-pressed", state.whole); },
  p: () => act("propose"),
  z: undo, u: () => open(state.view, state.name, state.word, -1), a: () => { cards.forEach(card => picked.add(card)); point(state.at, true); },
  "]": () => turn(1), "[": () => turn(-1), PageDown: () => turn(1), PageUp: () => turn(-1),
  Home: () => go(0), End: () => go(cards.length - 1), "?": () => { $("help").hidden = false; },
  "+": () => larger(1.25), "=": () => larger(1.25), "-": () => larger(.8), " ": () => $("zoom").hidden ? zoom(cards[state.at]) : close()};
function larger(factor) { state.scale = Math.max(.5, Math.min(6, state.scale * factor)); fit(); point(state.at, true); }
function close() { for (const id of ["zoom", "palette", "help"]) $(id).hidden = true; document.body.classList.remove("picking"); }
// A key acts on what has the focus. On a button, Enter and Space are its click, which the browser makes; arrows
// go to the next button of the list; keys that decide about photographs are for photographs alone.
document.onmousedown = event => { if (event.target.closest?.("button")) event.preventDefault(); };  // a click takes no focus
function atButton(key, button) {
  const step = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[key];
  if (step) {
    const buttons = [...button.closest("nav, aside, header, footer").querySelectorAll("button")].filter(one => !one.disabled && one.offsetParent);
    buttons[buttons.indexOf(button) + step]?.focus();
  } else if (/^[kxmnspa1-9]$/.test(key)) say("This key is for photographs: press Esc to go back to them.");
  else return false;
  return true;
}
document.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length > 1 ? event.key : {BracketLeft: "[", BracketRight: "]"}[event.code]  // on any layout
    || (event.code.startsWith("Key") ? event.code[3].toLowerCase() : event.key);
  const button = event.target.closest?.("button");
  if (event.repeat && !/^Arrow|^Page|^[-+=]$|^Tab$/.test(key)) return event.preventDefault();  // one press, one decision
  if (button && $("help").hidden) {
    if (key === "Enter" || key === " ") return;
    if ($("zoom").hidden && atButton(key, button)) return event.preventDefault();
  }
  if (key === "Escape" && button) { close(); focusCard(); }
  else if (key === "Escape") { if ([..."zoom palette help".split(" ")].every(id => $(id).hidden)) { picked.clear(); point(state.at); } close(); }
  else if (!$("help").hidden) { if (key !== "Shift" && key !== "Tab") close(); }
  else if (!cards.length && !"[]?zu".includes(key)) return;
  else if (key === "ArrowRight" || key === "ArrowLeft") {
    const to = state.at + (key === "ArrowRight" ? 1 : -1);
    if (to >= cards.length && !event.shiftKey) turn(1);
    else if (to < 0 && !event.shiftKey && state.page) open(state.view, state.name, state.word, state.page - 1, -1);
    else go(to, event.shiftKey);
  }
  else if (key === "ArrowDown" || key === "ArrowUp") go(beside(key === "ArrowDown" ? 1 : -1), event.shiftKey);
  else if (key === "Enter") act(event.shiftKey ? "rest" : "accept");
  else if (/^[1-9]$/.test(key)) {
    const used = recent.filter(offered)[key - 1];
    if (used) act("move", used); else say("No class has been used yet; press M to choose one.");
  }
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
};
for (const [action, key, title] of VERDICTS) {
  const button = el("button", "", undefined, $("verdicts"));
  button.dataset.action = action;
  el("span", "", title, button); button.append(" "); el("kbd", "", key, button);
  button.onclick = () => cards.length && act(action);
}
for (const [key, text] of HELP) { el("kbd", "", key, el("dt", "", undefined, $("keys"))); el("dd", "", text, $("keys")); }
$("dismiss").onclick = () => { refused = []; note(); focusCard(); };
$("pick").onclick = () => document.body.classList.toggle("picking");
$("side").onclick = event => { if (event.target.closest("button")) document.body.classList.remove("picking"); };
$("undo").onclick = undo; $("asking").onclick = KEYS["?"]; $("back").onclick = () => turn(-1); $("next").onclick = () => turn(1);
$("whole").onclick = KEYS.w; $("smaller").onclick = KEYS["-"]; $("larger").onclick = KEYS["+"];
for (const id of ["zoom", "palette", "help"]) $(id).onclick = event => { if (id !== "palette" || event.target === $(id)) close(); };
window.onresize = fit;

(async () => {
  await nameTab();
  note();
  if (unsaved.length) save();
  try { await refresh(); } catch (error) { return say(error.message, true); }
  const place = location.hash.slice(1).split("/").map(decodeURIComponent);
  if (place.length === 4 && VIEWS[place[0]]) return open(place[0], place[1], place[2], place[3]);
  open("sheet", nextClass()?.name || "");
})();
