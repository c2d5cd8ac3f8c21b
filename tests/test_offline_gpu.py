"""The page that needs no server with WebGPU, which Chromium computes in software here."""
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.test_offline_page import needs_runtime, package, ready, written
from web.offline_page import LATER

__all__ = ["package", "written"]  # fixtures
SOFTWARE = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader",
            "--enable-features=Vulkan")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium whose WebGPU is SwiftShader."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *SOFTWARE):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options)
    driver.set_script_timeout(240)
    driver.command_executor.client_config.timeout = 300  # its own 120 s would end a script sooner
    yield driver
    driver.quit()


@contextmanager
def opened(folder, browser):
    """Serve a page and open it; yield (its address, list of the paths that are asked for)."""
    asked = []

    class Logged(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path.strip("/"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Logged, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://localhost:{server.server_port}/"
        browser.get(address)
        ready(browser)
        yield address, asked
        server.shutdown()


TRY = """const done = arguments[0], {network} = facts, {view: {image_size: size}} = network;
    (async () => {
      const run = await backend.session, gpu = await createSession(network, GPU_RUNTIME, "webgpu");
      const other = async view => (await gpu(view)).map(value => value + .1);
      const slower = async view => { await gpu(view); return gpu(view) };
      const found = [], attempt = async run => found.push(
        Boolean(await fasterRun(network, run, true)), localStorage.getItem(GPU_TRIED));
      await attempt(slower);
      await attempt(run);
      await attempt(slower);
      return [...found, await isBetter(other, run, size), network.version];
    })().then(done, error => done(String(error)))"""
OFFLINE = """const done = arguments[0];
    createSession(facts.network, GPU_RUNTIME, "webgpu").then(() => done(""), done)"""
SOFTWARE_ALONE = """const [done] = arguments, look = async () => {
      if (!navigator.serviceWorker.controller) return setTimeout(look, 20);
      await fasterRun(facts.network, null);
      done((await navigator.gpu.requestAdapter()).info.isFallbackAdapter);
    };
    look()"""


@pytest.mark.browser
@needs_runtime
def test_a_gpu_is_used_only_where_it_agrees_and_is_faster_also_offline(written, browser):
    with opened(written[0], browser) as (address, asked):
        assert browser.execute_async_script(SOFTWARE_ALONE)
        assert not set(LATER) & set(asked)  # software in place of a GPU is not worth the load
        *found, version = browser.execute_async_script(TRY)
        assert found == [True, None, False, version, False, version, False]
        assert set(LATER) <= set(asked)
    browser.get(address)  # the host is stopped
    ready(browser)
    assert browser.execute_async_script(OFFLINE) == ""


@pytest.mark.browser
@needs_runtime
def test_after_a_gpu_failure_the_processor_answers(written, browser):
    with opened(written[0], browser):
        assert browser.execute_async_script("""const done = arguments[0];
            let calls = 0, inside = 0, most = 0;
            const gpu = async view => {
              most = Math.max(most, ++inside);
              await new Promise(resolve => setTimeout(resolve, 20));
              inside--;
              if (++calls === 3) throw new Error("device lost");
              return [calls];
            };
            const run = inTurn(gpu, async () => [-1]);
            Promise.all([1, 2, 3, 4, 5].map(run)).then(found => done([found.flat(), most, calls]))
            """) == [[1, 2, -1, -1, -1], 1, 3]
        assert browser.execute_async_script("""const done = arguments[0];
            inTurn(async () => [NaN], async () => [-1])(null).then(done)""") == [-1]
