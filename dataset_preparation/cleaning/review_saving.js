// Saving of the review page: what is not yet on the disk, sent one key press after the other.
"use strict";
// Decisions not yet confirmed to be on the disk, one {id, tab, decisions, names, place} per key press. Each has an item
// of its own in the browser's storage, which all tabs share and which survives a restart; any tab sends them all.
const ITEM = "unsaved:", tabs = new BroadcastChannel("review"), loose = new Map();  // loose: what the storage refused
let unsaved = [], failure = "", refused = [], tab = "", pressed = 0;
function listUnsaved() {
  unsaved = [...Object.keys(localStorage).filter(key => key.startsWith(ITEM)).map(key => localStorage.getItem(key))
    .filter(Boolean).map(text => JSON.parse(text)), ...loose.values()].sort((a, b) => a.id < b.id ? -1 : 1);
  return unsaved;
}
function store(decisions, place) {
  const names = Object.fromEntries(decisions.map(({key}) => [key, cards.find(card => card.photo.key === key)?.photo.file || key]));
  const id = `${Date.now()}`.padStart(15, "0") + `${pressed++}`.padStart(9, "0") + tab, entry = {id, tab, decisions, names, place};
  try { localStorage.setItem(ITEM + id, JSON.stringify(entry)); } catch { loose.set(id, entry); }
}
function drop({id}) { localStorage.removeItem(ITEM + id); loose.delete(id); listUnsaved(); }
const alone = make => navigator.locks ? navigator.locks.request("review", make) : make();  // one tab at a time
async function nameTab() {  // the tab's name survives a reload; a duplicated tab takes a new one
  const free = name => !navigator.locks || new Promise(resolve => navigator.locks.request("tab:" + name, {ifAvailable: true},
    lock => { resolve(Boolean(lock)); return lock && new Promise(() => {}); }));  // until the tab is closed
  const random = () => Math.random().toString(36).slice(2, 12);
  tab = sessionStorage.getItem("tab") || random();
  while (!await free(tab)) tab = random();
  sessionStorage.setItem("tab", tab);
  const earlier = JSON.parse(localStorage.getItem("unsaved") || "[]");  // as earlier versions stored them
  for (const {decisions, place} of earlier) store(decisions, place);
  localStorage.removeItem("unsaved");
}
async function otherTabs() {
  const {held} = navigator.locks ? await navigator.locks.query() : {held: []};
  return held.map(({name}) => name).filter(name => name.startsWith("tab:") && name !== "tab:" + tab).map(name => name.slice(4));
}

function decide(decisions, after) {
  if (!decisions.length) return;
  store(decisions, {...state});
  note();
  save(after);
}
function some(names) { return names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${count(names.length - 3)} more` : ""); }
function note() {  // show what is saved, what is not, and what was refused
  listUnsaved();
  const names = unsaved.flatMap(entry => Object.values(entry.names));
  $("saved").textContent = unsaved.length ? failure ? `${count(names.length)} not saved` : "saving…"
    : refused.length ? `${count(refused.length)} refused` : "✓ all saved";
  $("saved").className = unsaved.length || refused.length ? "waits" : "";
  $("trouble").hidden = !failure && !refused.length;
  $("dismiss").hidden = !refused.length;
  const [title, text] = $("trouble").children;
  title.textContent = failure || `${count(refused.length)} refused, all others are saved`;
  text.textContent = [unsaved.length && failure && `Not saved: ${some(names)}. ${loose.size ? "Keep this tab open: the browser's "
      + "storage is full." : "Nothing is lost: this browser stores what is not saved and sends it as soon as it can."}`,
    refused.length && `Refused: ${some(refused.map(({name, why}) => `${name} (${why})`))}`].filter(Boolean).join(" ");
}
let trying = 0;
function save(after) {
  clearTimeout(trying);
  queue = queue.then(async () => {
    while (listUnsaved().length) await alone(async () => { if (listUnsaved().length) await send(unsaved[0]); });
    failure = "";
    note();
    if (after) after();
  }).catch(error => {
    failure = error.message;
    note();
    for (const card of cards) card.show();
    trying = setTimeout(save, 2000);
  });
}
async function send(entry) {
  const {decisions, names} = entry, lost = (key, why) => ({name: names[key] || key, why});
  let reply = {changed: {}, refused: []};
  try { reply = await ask("/decide?" + new URLSearchParams({tab: entry.tab}), decisions); }
  catch (error) {
    if (![400, 413].includes(error.status)) throw error;
    reply.refused = decisions.map(({key}) => ({key, why: error.message}));  // for good, such as after cleaning ran again
  }
  drop(entry);
  failure = "";
  refused.push(...reply.refused.map(({key, why}) => lost(key, why)));
  learn({changed: reply.changed, entry});
  tabs.postMessage({changed: reply.changed, entry});
  const number = decisions.length - reply.refused.length;
  if (number) say(number > 1 ? count(number) + " decisions saved" : "saved");
}
function learn({changed, entry}) {  // what this tab or another one has saved or undone
  if (entry && entry.tab === tab && Object.keys(changed).length) trail.push(entry.place);
  note();
  show({changed});
}
tabs.onmessage = event => learn(event.data);
window.onstorage = () => { note(); cards.forEach(card => card.show()); };
function show({changed}) {
  for (const card of cards) if (changed[card.photo.key]) card.photo.verdict = changed[card.photo.key];
  for (const card of cards) card.show();
  if (!$("zoom").hidden) zoom(cards[state.at]);
  refreshSoon();
}
