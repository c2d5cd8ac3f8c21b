// The service worker of the offline page: keeps its files on the device, and gives them out without a network.
// A file is kept under its hash, so that a new version brings only what has changed and versions never mix.
"use strict";
const FILES = {}; // {name: SHA-256 in base64}, filled in by export.py --web
const LATER = {}; // the same of files that only some devices ask for: kept once they do
const CACHE = `plants ${registration.scope}`;
const keyOf = name => new URL(`${name}?${encodeURIComponent(FILES[name] || LATER[name])}`, registration.scope).href;

addEventListener("install", event => event.waitUntil(keepAll()));
addEventListener("activate", event => event.waitUntil(forgetOld().then(() => clients.claim())));
addEventListener("message", event => { if (event.data === "activate") skipWaiting() });
addEventListener("fetch", event => {
  const path = event.request.url.split(/[?#]/)[0].slice(registration.scope.length).replace(/^index\.html$/, "");
  const name = path || "./";
  if (event.request.method === "GET" && event.request.url.startsWith(registration.scope) && (Object.hasOwn(FILES, name) || Object.hasOwn(LATER, name)))
    event.respondWith(caches.match(keyOf(name)).then(reply => reply || (LATER[name] ? keep(name) : fetch(event.request))));
});

async function keepAll() {
  const cache = await caches.open(CACHE), names = Object.keys(FILES);
  for (const [count, name] of names.entries()) {
    if (!await cache.match(keyOf(name))) await keep(name);
    for (const page of await clients.matchAll({ includeUncontrolled: true }))
      page.postMessage({ kept: count + 1, of: names.length });
  }
}
async function keep(name) {
  const cache = await caches.open(CACHE), reply = await fetchWhole(name);
  await cache.put(keyOf(name), reply.clone());
  return reply;
}
// What a cache on the way still has of an earlier version fails its hash, and is asked for past that cache.
async function fetchWhole(name) {
  const integrity = `sha256-${FILES[name] || LATER[name]}`;
  const reply = await fetch(name, { integrity }).catch(() => fetch(name, { integrity, cache: "reload" }));
  if (!reply.ok) throw new Error(`${name}: status ${reply.status}`);
  return reply;
}
async function forgetOld() {
  const cache = await caches.open(CACHE), kept = new Set(Object.keys({ ...FILES, ...LATER }).map(keyOf));
  for (const request of await cache.keys()) if (!kept.has(request.url)) await cache.delete(request);
}
