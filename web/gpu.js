// The network on the graphics processor (WebGPU), where on this very device it is faster and answers the same. It is tried
// once all else is kept: its runtime, 4 MB compressed, is no part of the first load. After view.js, for offline.js.
"use strict";
const GPU_RUNTIME = "ort.jspi.bundle.min.mjs"; // for browsers with JSPI, the latest Chromium; the build for others is half as large again
const GPU_APART = .05, GPU_RUNS = 3; // the most that outputs may differ by; the fastest of the runs counts
const GPU_TRIED = `gpu ${location.pathname.replace(/index\.html$/, "")}`;

// Return a function from view to outputs that is faster than `run`, or null. What was slower, or ended the page, is not
// tried again with this version; what computes in software, only with `software`.
async function fasterRun(network, run, software = false) {
  try {
    if (!("Suspending" in WebAssembly) || navigator.connection?.saveData || !navigator.serviceWorker?.controller
      || localStorage.getItem(GPU_TRIED) === network.version) return null;
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter || adapter.info.isFallbackAdapter && !software) return null;
    localStorage.setItem(GPU_TRIED, network.version);
    const gpu = await createSession(network, GPU_RUNTIME, "webgpu").catch(error => {
      localStorage.removeItem(GPU_TRIED); // such as no network: tried again when the page is opened again
      throw error;
    });
    if (!await isBetter(gpu, run, network.view.image_size)) return null;
    localStorage.removeItem(GPU_TRIED);
    return inTurn(gpu, run);
  } catch (error) {
    console.warn(error);
    return null;
  }
}
// Whether `other` has the outputs of `run` for noise and for a gradient, in less time.
async function isBetter(other, run, size) {
  const noise = new Uint8Array(size * size * 3).map((_, i) => Math.imul(i + 1, 2654435761) >>> 24);
  for (const view of [noise, noise.map((_, i) => i * 255 / noise.length)])
    if (apart(await other(view), await run(view)) > GPU_APART) return false;
  return await fastest(other, noise) < await fastest(run, noise);
}
const apart = (some, others) => Math.max(...some.map((value, i) => Number.isFinite(value) ? Math.abs(value - others[i]) : Infinity));
async function fastest(run, view) {
  let least = Infinity;
  for (let i = 0; i < GPU_RUNS; i++) {
    const start = performance.now();
    await run(view);
    least = Math.min(least, performance.now() - start);
  }
  return least;
}
// One view at a time, as the runtime demands; after the first failure, as of a GPU taken away, all by `run`.
function inTurn(gpu, run) {
  let last = Promise.resolve();
  const once = async view => {
    try {
      const outputs = gpu && await gpu(view);
      if (outputs && outputs.every(Number.isFinite)) return outputs;
    } catch (error) { console.warn(error) }
    gpu = null;
    return run(view);
  };
  return view => last = last.catch(() => {}).then(() => once(view));
}
