// The backend of the page that app.py serves: it sends photographs there and reads the replies.
"use strict";
const PATIENCE = 180e3; // milliseconds: an upload in a slow network, and a few others' turns before it
const SERVERS = ["gone", "token", "slow", "failed"]; // refusals that are not about the file
let asking = new AbortController(); // for the last photographs: newer ones give up what was asked for these
const backend = {
  async facts() {
    const reply = await fetch("/facts", { signal: AbortSignal.timeout(PATIENCE) });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    return reply.json();
  },
  example: (label, index) => `/example?label=${label}&index=${index}`,
  async predict(files) {
    asking.abort();
    const { signal } = asking = new AbortController(), results = [];
    for (const file of files) {
      results.push(await backend.ask("/predict", file, signal));
      if (SERVERS.includes(results.at(-1).refused)) return results.at(-1);
    }
    const read = results.flatMap((result, index) => result.refused ? [] : [index]);
    if (!read.length) return results[0];
    const prediction = read.length === 1 ? results[read[0]]
      : await backend.ask("/interpret", JSON.stringify(read.map(index => results[index].outputs)), signal);
    const further_pages = results.reduce((sum, result) => sum + (result.further_pages || 0), 0);
    return { ...prediction, further_pages, read };
  },
  async ask(path, body, signal) {
    const reply = await backend.post(path, body, signal);
    return reply.refused ? reply : reply.json();
  },
  async heat(label, file) {
    const reply = await backend.post(`/heat?label=${label}`, file);
    return reply.ok ? reply.blob() : null;
  },
  async correct(label, file) { return (await backend.post(`/feedback?label=${label}&consent=yes`, file)).refused },
  async post(path, body, given) {
    const ends = new AbortController(), end = () => ends.abort();
    setTimeout(end, PATIENCE);
    given?.addEventListener("abort", end);
    let reply;
    try {
      reply = await fetch(path, { method: "POST", body, signal: ends.signal });
    } catch { return { refused: "gone" } }
    if (reply.ok || reply.status === 422) return reply;
    return { refused: { 403: "token", 408: "slow", 413: "bytes" }[reply.status] || "failed" };
  },
};
history.replaceState(null, "", location.pathname); // hides the token from the address bar; the cookie has it
start();
