// What the network sees of a photograph, as images.py makes it with Pillow: the same pixels, so the same answer.
// A canvas resizes otherwise (logits differ by 0.8), therefore the steps are written out.
"use strict";
const LARGE_PIXELS = 16e6, REDUCING_GAP = 3, CACHE_SIDE = 256; // as in images.py
const STRIP_PIXELS = 4e6; // read from the canvas at once: a telephone allows no larger canvas than 16.7 million
const PRECISION = 22; // bits of the fraction of Pillow's resampling weights

// Round as Python does: halves to the even neighbour.
const roundEven = x => Math.abs(x % 1) === .5 ? 2 * Math.round(x / 2) : Math.round(x);

// Return the view (image_size * image_size * 3 bytes) of a file, or throw { refused: KIND }. `kind` is images.View.
async function readView(file, kind, megapixels) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.length) throw { refused: "empty" };
  if (/^\0\0[\1\2]\0/.test(ascii(bytes, 0, 4))) throw { refused: "unknown" }; // an icon, which images.py refuses
  if (frameCount(bytes) > 1) throw { refused: "animation" };
  if (startsWith(bytes, "\xff\xd8\xff") && isCutOff(bytes)) throw { refused: "broken" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", premultiplyAlpha: "none",
      colorSpaceConversion: startsWith(bytes, "\x89PNG") && !hasProfile(bytes) ? "none" : "default" });
  } catch { throw { refused: isHeic(bytes) ? "heic" : isPicture(bytes) ? "broken" : "unknown" } }
  try {
    if (bitmap.width * bitmap.height > megapixels * 1e6) throw { refused: "pixels" };
    const { orientation } = startsWith(bytes, "RIFF") && !await turnsWebp() ? readExif(bytes) : {};
    const factor = largeFactor(bitmap, 2 * kind.image_size), whole = { bitmap, width: bitmap.width, height: bitmap.height };
    return evaluationView(factor > 1 || orientation > 1 ? turn(reduced(whole, factor, factor), orientation) : whole, kind);
  } finally { bitmap.close() }
}

// ---- what kind of file it is ----
const isHeic = bytes => /^....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)/s.test(ascii(bytes, 0, 12));
const isPicture = bytes => ["\xff\xd8\xff", "\x89PNG", "GIF8", "RIFF", "BM"].some(start => startsWith(bytes, start))
  || ascii(bytes, 4, 12) === "ftypavif";
function isCutOff(jpeg) { // no end-of-image marker: a browser would show grey where data is missing
  for (let i = jpeg.length - 2; i >= 0; i--) if (jpeg[i] === 0xff && jpeg[i + 1] === 0xd9) return false;
  return true;
}
// Count the frames of a GIF, PNG (acTL), WebP (ANMF) or AVIF, of which a browser would silently take the first.
function frameCount(bytes) {
  const view = new DataView(bytes.buffer);
  let frames = 0;
  try {
    if (startsWith(bytes, "\x89PNG")) pngChunks(bytes, (name, first) => { if (name === "acTL") frames = view.getUint32(first) });
    if (startsWith(bytes, "RIFF")) webpChunks(bytes, name => { frames += name === "ANMF" });
    if (startsWith(bytes, "GIF8")) frames = countGifFrames(bytes);
    if (ascii(bytes, 4, 12) === "ftypavis") frames = 2; // or more: a sequence
  } catch { /* cut off: the decoder says so */ }
  return frames;
}
// Call visit(name, first byte) for each chunk of a PNG before its pixels.
function pngChunks(bytes, visit) {
  const view = new DataView(bytes.buffer);
  for (let i = 8; i + 8 <= bytes.length && ascii(bytes, i + 4, i + 8) !== "IDAT"; i += 12 + view.getUint32(i))
    visit(ascii(bytes, i + 4, i + 8), i + 8);
}
function hasProfile(png) { // gamma and primaries alone are ignored by images.py
  let found = false;
  pngChunks(png, name => { found ||= name === "iCCP" });
  return found;
}
function countGifFrames(bytes) {
  const table = flags => flags & 0x80 ? 3 << (flags & 7) + 1 : 0;
  const skipBlocks = i => { while (bytes[i]) i += bytes[i] + 1; return i + 1 };
  let frames = 0;
  for (let i = 13 + table(bytes[10]); i < bytes.length;)
    if (bytes[i] === 0x21) i = skipBlocks(i + 2); // an extension
    else if (bytes[i] === 0x2c) { frames++; i = skipBlocks(i + 11 + table(bytes[i + 9])) }
    else break;
  return frames;
}

// ---- pixels ----
// Return by how much images.py divides the sides of a large picture before anything else, to save memory.
function largeFactor({ width, height }, draftSide) {
  const factor = Math.floor(Math.min(width, height) / (REDUCING_GAP * draftSide));
  return factor < 2 || width * height <= LARGE_PIXELS ? 1 : factor;
}
// An image is { width, height, data: RGB }, or { width, height, bitmap }, which is read at last, already reduced.
const reduced = (image, factorX, factorY) => image.bitmap ? readPixels(image.bitmap, factorX, factorY)
  : factorX > 1 || factorY > 1 ? reduce(image, factorX, factorY) : image;
// Return the pixels of a bitmap on white, its sides divided by factors.
function readPixels(bitmap, factorX, factorY) {
  const { width, height } = bitmap, canvas = document.createElement("canvas");
  const rows = Math.max(1, Math.floor(STRIP_PIXELS / width / factorY)) * factorY;
  Object.assign(canvas, { width, height: Math.min(rows, height) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const image = blank(Math.ceil(width / factorX), Math.ceil(height / factorY));
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, -top);
    const strip = { width, height: count, data: context.getImageData(0, 0, width, count).data };
    image.data.set(reduce(strip, factorX, factorY, 4).data, top / factorY * image.width * 3);
  }
  canvas.width = 0; // frees its memory now
  return image;
}
const blank = (width, height) => ({ width, height, data: new Uint8ClampedArray(width * height * 3) });

// Whether this browser turns WebP pictures by their EXIF, tried on one of 2 x 1 pixels.
const TURNED_WEBP = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";
async function turnsWebp() {
  const bytes = Uint8Array.from(atob(TURNED_WEBP), char => char.charCodeAt(0));
  return (await createImageBitmap(new Blob([bytes], { type: "image/webp" }), { imageOrientation: "from-image" })).width === 1;
}
// Return the image turned upright by an EXIF orientation.
function turn({ width, height, data }, orientation = 1) {
  if (!(orientation > 1 && orientation < 9)) return { width, height, data };
  const swap = orientation > 4, image = swap ? blank(height, width) : blank(width, height);
  const flipX = [2, 3, 7, 8].includes(orientation), flipY = [3, 4, 6, 7].includes(orientation);
  for (let y = 0; y < image.height; y++)
    for (let x = 0; x < image.width; x++) {
      const [across, down] = swap ? [y, x] : [x, y];
      const from = ((flipY ? height - 1 - down : down) * width + (flipX ? width - 1 - across : across)) * 3;
      image.data.set(data.subarray(from, from + 3), (y * image.width + x) * 3);
    }
  return image;
}

// Average rectangles of pixels, rounded as Pillow's `Image.reduce`; `channels` of the source, 3 of the result.
function reduce({ width, height, data }, factorX, factorY, channels = 3) {
  const result = blank(Math.ceil(width / factorX), Math.ceil(height / factorY)), sums = new Uint32Array(result.width * 3);
  for (let y = 0; y < result.height; y++) {
    const bottom = Math.min(height, (y + 1) * factorY), rows = bottom - y * factorY;
    sums.fill(0);
    for (let row = y * factorY; row < bottom; row++)
      for (let x = 0, out = 0, from = row * width * channels; x < width; out += 3)
        for (const end = Math.min(width, x + factorX); x < end; x++, from += channels) {
          sums[out] += data[from]; sums[out + 1] += data[from + 1]; sums[out + 2] += data[from + 2];
        }
    for (let x = 0; x < result.width; x++) {
      const count = rows * (Math.min(width, (x + 1) * factorX) - x * factorX), half = count >> 1;
      const multiplier = Math.floor(2 ** 32 / (256 * count));
      for (let i = 3 * x; i < 3 * x + 3; i++)
        result.data[y * result.width * 3 + i] = Math.floor((sums[i] + half) * multiplier / 2 ** 24);
    }
  }
  return result;
}

// ---- resizing, as Pillow's `Image.resize` with reducing_gap ----
function evaluationView(image, { image_size: size, resized_side: side, interpolation }) {
  const cacheSide = Math.max(CACHE_SIDE, side);
  if (Math.min(image.width, image.height) > cacheSide) image = resizeShorterSide(image, cacheSide, interpolation);
  image = reduced(resizeShorterSide(image, side, interpolation), 1, 1);
  const left = Math.floor((image.width - size) / 2), top = Math.floor((image.height - size) / 2);
  const view = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const start = ((top + y) * image.width + left) * 3;
    view.set(image.data.subarray(start, start + size * 3), y * size * 3);
  }
  return view;
}
function resizeShorterSide(image, side, interpolation) {
  const scale = side / Math.min(image.width, image.height);
  const [width, height] = [image.width, image.height].map(length => Math.max(side, roundEven(length * scale)));
  if (width === image.width && height === image.height) return image;
  const gap = interpolation === "nearest" ? Infinity : REDUCING_GAP;
  const factorX = Math.trunc(image.width / width / gap) || 1, factorY = Math.trunc(image.height / height / gap) || 1;
  const boxWidth = image.width / factorX, boxHeight = image.height / factorY;
  const small = reduced(image, factorX, factorY);
  const across = image => width === boxWidth ? image : resample(image, width, boxWidth, true, interpolation);
  const down = image => height === boxHeight ? image : resample(image, height, boxHeight, false, interpolation);
  // Pillow, from version 13 on, begins downwards if that takes away over twice as much; in between, pixels are rounded.
  const isTall = height < small.height && small.height - height > 2 * (small.width - width);
  return isTall ? across(down(small)) : down(across(small));
}
// Resize one axis, `across` or down, to `length` from its first `extent` pixels.
function resample({ width, height, data }, length, extent, across, interpolation) {
  const result = across ? blank(length, height) : blank(width, length);
  const [lines, lineStep, resultStep] = across ? [height, 3 * width, 3 * length] : [width, 3, 3];
  const pixelStep = across ? 3 : 3 * width;
  resamplingWeights(across ? width : height, length, extent, interpolation).forEach(([first, weights], position) => {
    for (let line = 0; line < lines; line++) {
      let red = 1 << PRECISION - 1, green = red, blue = red, from = line * lineStep + first * pixelStep;
      for (let i = 0; i < weights.length; i++, from += pixelStep) {
        red += data[from] * weights[i]; green += data[from + 1] * weights[i]; blue += data[from + 2] * weights[i];
      }
      const to = line * resultStep + position * pixelStep;
      result.data[to] = red >> PRECISION; result.data[to + 1] = green >> PRECISION; result.data[to + 2] = blue >> PRECISION;
    }
  });
  return result;
}
const sinc = x => x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1;
const FILTERS = { // Pillow's: pixels to each side, weight at a distance
  lanczos: [3, x => x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0],
  bicubic: [2, x => (x = Math.abs(x)) < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? -.5 * (((x - 5) * x + 8) * x - 4) : 0],
  bilinear: [1, x => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, x => Math.abs(x) < 1 ? sinc(x) * (.54 + .46 * Math.cos(Math.PI * x)) : 0],
  box: [.5, x => +(x > -.5 && x <= .5)],
};
// Return [first source pixel, whole-number weights] for each pixel of the result.
function resamplingWeights(size, length, extent, interpolation) {
  const scale = extent / length, stretch = Math.max(1, scale);
  if (interpolation === "nearest") {
    let at = scale / 2 - scale; // Pillow adds up, which rounds otherwise than a product
    return Array.from({ length }, () => [Math.trunc(at += scale), [1 << PRECISION]]);
  }
  const [reach, filter] = FILTERS[interpolation], support = reach * stretch;
  return Array.from({ length }, (_, position) => {
    const center = (position + .5) * scale;
    const first = Math.max(0, Math.trunc(center - support + .5)), end = Math.min(size, Math.trunc(center + support + .5));
    const weights = Array.from({ length: end - first }, (_, i) => filter((i + first - center + .5) / stretch));
    const sum = weights.reduce((total, weight) => total + weight);
    return [first, Int32Array.from(weights, weight => Math.sign(weight) * Math.floor(
      Math.abs(weight / sum) * 2 ** PRECISION + .5))];
  });
}
