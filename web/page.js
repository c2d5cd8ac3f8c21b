// What the pages share: elements, what a person prefers, and which language the texts are in.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {}))
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (![false, null, undefined].includes(value)) node.setAttribute(key, value === true ? "" : value);
  node.append(...children.flat(Infinity).filter(child => ![null, undefined, false, ""].includes(child)));
  return node;
}
// Replace what an element holds; the focus stays where it is, on what has taken its place.
function refill(node, ...children) {
  const stops = () => [...node.querySelectorAll("a, button, input, select, summary")];
  const place = stops().indexOf(document.activeElement);
  node.replaceChildren(...children.filter(Boolean));
  if (place >= 0) (stops()[place] || stops().at(-1))?.focus({ preventScroll: true });
}

// ---- preferences: in a cookie, as local storage is lost with the port, which changes from run to run; a file has no cookies ----
const isFile = location.protocol === "file:";
function preference(name, value) {
  try {
    if (value) isFile ? localStorage.setItem(name, value)
      : document.cookie = `${name}=${value}; max-age=31536000; path=/; SameSite=Strict`;
    return isFile ? localStorage.getItem(name) : document.cookie.match(`(?:^|; )${name}=(\\w+)`)?.[1];
  } catch { return null } // a browser may refuse
}
const LANGUAGES = { en: "EN, English", ru: "RU, русский" };
let language = Object.keys(LANGUAGES).find(known => known === preference("language"))
  || (navigator.language.startsWith("ru") ? "ru" : "en");
// Let the buttons with data-language switch, and mark the language that is on; `speak` writes the page anew.
function offerLanguages(speak) {
  const buttons = document.querySelectorAll("[data-language]");
  const mark = () => {
    document.documentElement.lang = language;
    for (const one of buttons) one.setAttribute("aria-pressed", one.dataset.language === language);
  };
  for (const button of buttons) {
    button.setAttribute("aria-label", LANGUAGES[button.dataset.language]);
    button.addEventListener("click", () => {
      preference("language", language = button.dataset.language);
      mark();
      speak();
    });
  }
  mark();
}
