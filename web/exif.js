// What a photograph's EXIF says (tags: https://exiv2.org/tags.html).
"use strict";
const ascii = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
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
  if (startsWith(bytes, "RIFF")) webpChunks(bytes, (name, first) => {
    if (name === "EXIF") start = ascii(bytes, first, first + 4) === "Exif" ? first + 6 : first;
  });
  return start;
}
// Return { orientation, taken, place } of a JPEG's or WebP's bytes; what is missing or damaged is left out.
function readExif(bytes) {
  try {
    const start = tiffStart(bytes);
    if (start < 6) return {};
    const view = new DataView(bytes.buffer, start), little = view.getUint16(0) === 0x4949;
    const u16 = at => view.getUint16(at, little), u32 = at => view.getUint32(at, little);
    const directory = at => Object.fromEntries(Array.from({ length: u16(at) }, (_, i) => [u16(at + 2 + 12 * i), at + 2 + 12 * i]));
    const main = directory(u32(4)), orientation = main[0x0112] ? u16(main[0x0112] + 8) : 1;
    try { return { orientation, ...timeAndPlace() } } catch { return { orientation } }

    function timeAndPlace() {
      const inner = main[0x8769] ? directory(u32(main[0x8769] + 8)) : {}, gps = main[0x8825] ? directory(u32(main[0x8825] + 8)) : {};
      const text = at => { const from = start + (u32(at + 4) > 4 ? u32(at + 8) : at + 8);
        return ascii(bytes, from, from + u32(at + 4)).split("\0")[0] };
      const degrees = at => [0, 1, 2].reduce((sum, i) => sum + u32(u32(at + 8) + 8 * i) / u32(u32(at + 8) + 8 * i + 4) / 60 ** i, 0);
      const time = inner[0x9003] && text(inner[0x9003]).match(/^(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)$/);
      const [latitude, longitude] = gps[2] && gps[4] ? [degrees(gps[2]) * (text(gps[1]) === "S" ? -1 : 1),
        degrees(gps[4]) * (text(gps[3]) === "W" ? -1 : 1)] : [NaN, NaN];
      const valid = Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 && (latitude || longitude)  // zeros: no fix
        && !(gps[9] && text(gps[9]) === "V");
      return { taken: time ? `${time[1]}-${time[2]}-${time[3]}T${time[4]}` : "",
        place: valid ? { latitude: +latitude.toFixed(6), longitude: +longitude.toFixed(6) } : null };
    }
  } catch { return {} }
}
