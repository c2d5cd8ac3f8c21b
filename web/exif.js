// What a photograph's EXIF says (tags: https://exiv2.org/tags.html).
"use strict";
const ascii = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
const ASCII = 2, RATIONAL = 5, LONGEST = 200; // types of values; characters of a text that count
const startsWith = (bytes, start) => ascii(bytes, 0, start.length) === start;

// Call visit(name, first byte, length) for each chunk of a WebP file.
function webpChunks(bytes, visit) {
  const view = new DataView(bytes.buffer);
  for (let i = 12, size; i + 8 <= bytes.length; i += 8 + size + size % 2) { // no & here: it would wrap to the front
    size = view.getUint32(i + 4, true);
    visit(ascii(bytes, i, i + 4), i + 8, size);
  }
}
function tiffStart(bytes) {
  let start = ascii(bytes, 0, 1 << 16).indexOf("Exif\0\0") + 6;
  if (startsWith(bytes, "\x89PNG")) pngChunks(bytes, (name, first) => { if (name === "eXIf") start = first });
  if (startsWith(bytes, "RIFF")) webpChunks(bytes, (name, first) => {
    if (name === "EXIF") start = ascii(bytes, first, first + 4) === "Exif" ? first + 6 : first;
  });
  return start;
}
// Return "YYYY-MM-DDThh:mm:ss" for a text of EXIF, "" if it is no time of the calendar; as images.py reads it.
function calendarTime(text) {
  const parts = text.match(/^\s*(\d{4})\D+(\d\d?)\D+(\d\d?)\D+(\d\d?)\D+(\d\d?)\D+(\d\d?)/)?.slice(1);
  if (!parts) return "";
  const [year, ...others] = parts, [month, day, ...clock] = others.map(part => part.padStart(2, "0"));
  const time = `${year}-${month}-${day}T${clock.join(":")}`, date = new Date(`${time}Z`);
  return year > "0000" && Number.isFinite(date.getTime()) && date.toISOString().slice(0, 19) === time ? time : "";
}
// Return { orientation, taken, place } of the bytes of a JPEG, WebP or PNG; what is missing or damaged is left out.
function readExif(bytes) {
  try {
    const start = tiffStart(bytes);
    if (start < 6) return {};
    const view = new DataView(bytes.buffer, start), little = view.getUint16(0) === 0x4949;
    const u16 = at => view.getUint16(at, little), u32 = at => view.getUint32(at, little);
    const directory = at => Object.fromEntries(Array.from({ length: u16(at) }, (_, i) => [u16(at + 2 + 12 * i), at + 2 + 12 * i]));
    const main = directory(u32(4)), orientation = main[0x0112] ? u16(main[0x0112] + 8) : 1;
    const part = at => { try { return at ? directory(u32(at + 8)) : {} } catch { return {} } };
    const inner = part(main[0x8769]), gps = part(main[0x8825]);
    return { orientation, taken: readTime(), place: readPlace() };

    function text(at) {
      if (!at || u16(at + 2) !== ASCII) return "";
      const length = Math.min(u32(at + 4), LONGEST), from = start + (length > 4 ? u32(at + 8) : at + 8);
      return ascii(bytes, from, from + length).split("\0")[0].trim();
    }
    function readTime() {
      const camera = [main[0x010f], main[0x0110], inner[0xa431]].some(at => /\w/.test(text(at))); // else an editor's time
      return [inner[0x9003], inner[0x9004], camera && main[0x0132]].map(at => calendarTime(text(at))).find(Boolean) || "";
    }
    function readPlace() {
      const degrees = at => at && u16(at + 2) === RATIONAL && u32(at + 4) === 3 ? [0, 8, 16].reduce((sum, skip, i) =>
        sum + u32(u32(at + 8) + skip) / u32(u32(at + 8) + skip + 4) / 60 ** i, 0) : NaN;
      try {
        const latitude = degrees(gps[2]) * { N: 1, S: -1 }[text(gps[1])], longitude = degrees(gps[4]) * { E: 1, W: -1 }[text(gps[3])];
        const valid = Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 && (latitude || longitude) // zeros: no fix
          && text(gps[9]) !== "V";
        return valid ? { latitude: +latitude.toFixed(6), longitude: +longitude.toFixed(6) } : null;
      } catch { return null }
    }
  } catch { return {} }
}
