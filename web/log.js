// The answers of this device with date and place, kept in its browser and written as Darwin Core
// (https://dwc.tdwg.org/terms/). Nothing of it is sent.
"use strict";
const LOG = `answers ${location.pathname.replace(/index\.html$/, "")}`, PLACE = `place ${LOG}`;
const FRESH = 5 * 60e3; // milliseconds: a photograph as young as this has been taken here
const answerLog = {
  read() { try { return JSON.parse(localStorage.getItem(LOG)) || [] } catch { return [] } },
  write(entries) { try { localStorage.setItem(LOG, JSON.stringify(entries)) } catch { /* private mode, or full */ } },
  remove(id) { answerLog.write(answerLog.read().filter(entry => entry.id !== id)) },
  get withPlace() { return localStorage.getItem(PLACE) === "yes" },
  set withPlace(wanted) { localStorage.setItem(PLACE, wanted ? "yes" : "no") },

  // Add a prediction for files; where allowed, also the place, of the photograph or of a device that has just taken it.
  async add(prediction, files, version) {
    const now = new Date(), { taken, place, fresh } = await captureOf(files[0], now);
    const entry = { id: `${now.getTime()}-${Math.random().toString(36).slice(2, 10)}`, identified: localTime(now),
      taken: taken || (fresh ? localTime(now) : ""), name: prediction.scientificName, rank: prediction.taxonRank,
      confidence: prediction.confidence, reason: prediction.reason, nearest: prediction.names[0], version };
    answerLog.write([entry, ...answerLog.read()]);
    if (!answerLog.withPlace) return;
    const found = place || (fresh ? await devicePlace() : null);
    if (found) answerLog.write(answerLog.read().map(one => one.id === entry.id ? { ...one, place: found } : one));
  },
  csv() {
    const lines = [Object.keys(DARWIN_CORE), ...answerLog.read().map(entry => Object.values(DARWIN_CORE).map(
      term => term(entry)))];
    return "\ufeff" + lines.map(cells => cells.map(csvCell).join(",") + "\r\n").join("");
  },
};
// A file may have been saved just now, and the photograph taken long ago: its own time counts, where it has one. What
// cameras do not write, such as a screenshot, is never fresh.
async function captureOf(file, now) {
  const bytes = new Uint8Array(await file.arrayBuffer()), { taken, place } = readExif(bytes);
  const since = taken ? new Date(taken) : ["\xff\xd8\xff", "RIFF"].some(start => startsWith(bytes, start)) ? file.lastModified : NaN;
  return { taken, place, fresh: Math.abs(now - since) < FRESH };
}
const DARWIN_CORE = {
  occurrenceID: entry => entry.id, basisOfRecord: () => "HumanObservation", eventDate: entry => entry.taken,
  decimalLatitude: entry => entry.place?.latitude ?? "", decimalLongitude: entry => entry.place?.longitude ?? "",
  coordinateUncertaintyInMeters: entry => entry.place?.uncertainty ?? "",
  geodeticDatum: entry => entry.place ? "EPSG:4326" : "", scientificName: entry => entry.name,
  taxonRank: entry => entry.rank, identificationQualifier: entry => ["genus", "family"].includes(entry.rank)
    ? `cf. ${entry.nearest.latin.replace(`${entry.name} `, "")}` : "",
  identifiedBy: entry => `network, version ${entry.version}`, dateIdentified: entry => entry.identified,
  identificationVerificationStatus: () => "unverified", identificationRemarks: entry => entry.name
    ? `probability ${entry.confidence}` : entry.reason === "risk" ? `not sure; likeliest: ${entry.nearest.latin}, `
      + `probability ${entry.nearest.probability}` : "none of the plants that the network knows",
};
// A cell that a spreadsheet would run as a formula begins with an apostrophe; numbers may be negative.
const csvCell = value => `"${(typeof value === "number" ? `${value}` : `${value}`.replace(/^(?=[=+\-@\t\r])/, "'"))
  .replaceAll('"', '""')}"`;
function localTime(date) {
  const offset = -date.getTimezoneOffset(), two = number => String(Math.trunc(Math.abs(number))).padStart(2, "0");
  return new Date(date.getTime() + offset * 60e3).toISOString().slice(0, 19) + (offset < 0 ? "-" : "+")
    + two(offset / 60) + ":" + two(offset % 60);
}
const devicePlace = () => new Promise(resolve => navigator.geolocation ? navigator.geolocation.getCurrentPosition(
  ({ coords }) => resolve({ latitude: +coords.latitude.toFixed(6), longitude: +coords.longitude.toFixed(6),
    uncertainty: Math.ceil(coords.accuracy) }), () => resolve(null), { enableHighAccuracy: true, timeout: 20e3 }) : resolve(null));
