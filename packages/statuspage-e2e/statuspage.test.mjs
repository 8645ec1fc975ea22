// The status page in a real browser, on a real devnet: what happens on the chains is there to
// see, for those who read the table instead of the picture too. Started by `make
// test-statuspage`, which sets:
//
//   ROOT               the repository
//   CHROMIUM           the browser
//   OPERATORS          of the devnet, in processes of their own (default 4; with 1 there are no faults)
//   UPDATE_SCREENSHOT  if set, docs/images is written anew
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { chromium } from "playwright-core";

const root = process.env.ROOT ?? join(import.meta.dirname, "../..");
const operators = Number(process.env.OPERATORS ?? 4);
const patience = 240_000; // many times what anything here takes on a machine with nothing else to do

let dir, devnet, endpoints, browser, page;
const problems = []; // that the browser reports
let leaving = false; // the devnet is being stopped: errors are expected

async function until(what, check) {
  const end = Date.now() + patience;
  for (;;) {
    const v = await check();
    if (v) return v;
    if (Date.now() > end) throw new Error(`waited for ${what} in vain`);
    await new Promise((r) => setTimeout(r, 200));
  }
}

before(async () => {
  dir = mkdtempSync(join(tmpdir(), "statuspage-"));
  const args = ["up", "--free-ports", "--datadir", join(dir, "net"), "--operators", String(operators), "--subblocks", "2", "--load", "10", "--bundles", "40"];
  if (operators > 1) args.push("--separate");
  devnet = spawn(join(root, "bin/devnet"), args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const s of [devnet.stdout, devnet.stderr]) s.on("data", (d) => { said = (said + d).slice(-4000); });
  endpoints = await until("the devnet", () => {
    if (devnet.exitCode !== null) throw new Error(`the devnet ended:\n${said}`);
    try { return JSON.parse(readFileSync(join(dir, "net/endpoints.json"))); } catch { return null; }
  });
  // Chromium does not run as root with its sandbox.
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
  page = await browser.newPage({ viewport: { width: 1440, height: 1180 }, colorScheme: "light" });
  page.setDefaultTimeout(patience);
  page.on("console", (m) => { if (["error", "warning"].includes(m.type()) && !leaving) problems.push(m.text()); });
  page.on("pageerror", (e) => problems.push(e.stack));
  page.on("request", (r) => { if (new URL(r.url()).origin !== endpoints.statusPage) problems.push(`it asks for ${r.url()}`); });
  await page.goto(endpoints.statusPage);
});

after(async () => {
  await browser?.close();
  await stop();
  if (dir) rmSync(dir, { recursive: true, force: true });
});

async function stop() {
  if (!devnet || devnet.exitCode !== null) return;
  const ended = new Promise((r) => devnet.once("exit", r));
  devnet.kill("SIGINT");
  await ended;
}

const texts = (selector) => page.locator(selector).allTextContents();
const slots = () => page.$$eval("#grid thead th[data-slot]", (l) => l.map((e) => Number(e.dataset.slot)).filter(Boolean));
const ask = async (url, method, ...params) => {
  const r = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }) });
  return (await r.json()).result;
};

test("chains are rows, slots are columns that come and fill", async () => {
  await page.waitForSelector("#grid tr.chain td .seg:not(.open)");
  assert.deepEqual(await texts("#grid tr.chain th b"), ["901", "902"]);
  await until("six slots", async () => (await slots()).length >= 6);
  const was = (await slots()).at(-1);
  await until("newer slots", async () => (await slots()).at(-1) > was);
  const list = await slots();
  assert.deepEqual(list, [...list].sort((a, b) => a - b));
  const cells = await texts(`#grid tr[data-row="901"] td[data-slot="${list.at(-2)}"] .hidden`);
  assert.match(cells[0], /^Block \d+, \d subblocks? by .*, \d+ transactions?/);
});

test("leaders have names, and letters beside their colours", async () => {
  const legend = await texts("#legend li");
  if (operators === 1) return assert.match(legend[0], /this operator leads/);
  assert.equal(legend.length, operators);
  legend.forEach((l, i) => assert.match(l, new RegExp(`^${"ABCD"[i]}.*operator-${i}`)));
  // Several of them lead.
  await until("a second leader", async () => new Set(await texts("#grid tr.chain .seg:not(.open) > span")).size > 1);
});

test("what a cell and its details say is what the chain says", async () => {
  const list = await slots();
  await page.locator(`#grid tr[data-row="902"] td[data-slot="${list.at(-3)}"]`).click();
  const row = page.locator("#detail tbody").first().locator("tr").nth(1);
  assert.equal(await row.locator("td").first().textContent(), "902");
  const number = Number((await row.locator("td").nth(1).textContent()).replaceAll(",", ""));
  const hash = await row.locator("td").nth(2).getAttribute("title");
  const block = await ask(endpoints.chains[902].rpc, "eth_getBlockByNumber", `0x${number.toString(16)}`, false);
  assert.equal(block.hash, hash);
  assert.equal(Number(block.timestamp), list.at(-3));
  assert.equal(await row.locator("td").nth(3).textContent(), String(block.transactions.length));
  await page.keyboard.press("Escape");
});

test("a message is an arc to the chain that executed it", async () => {
  await page.waitForSelector('#arcs path[data-arc="901-902"]', { state: "attached" });
  // The page is held where the arc is, and looked at closely.
  // Arcs are drawn in the frame after the grid: between the two they would be those of the columns before.
  const found = await until("an arc and its cell", () => page.evaluate(async () => {
    await new Promise(requestAnimationFrame);
    const p = document.querySelector('#arcs path[data-arc="901-902"]:not(.older)');
    if (!p) return null;
    const at = p.getPointAtLength(p.getTotalLength()), box = document.getElementById("arcs").getBoundingClientRect();
    const x = box.left + at.x, y = box.top + at.y;
    for (const td of document.querySelectorAll('#grid tr[data-row="902"] td')) {
      const c = td.querySelector(".cell").getBoundingClientRect();
      if (x > c.left && x < c.right && Math.abs(y - c.top) < 12) return td.textContent;
    }
    return null;
  }));
  assert.match(found, /messages? from chain 901/);
});

test("bundles have a fate", async () => {
  await page.waitForSelector("#bundles tr:has(.good)");
  assert.match((await texts("#bundles tr:has(.good)"))[0], /901, 902.*(executed|safe on L1)/);
  await page.waitForSelector("#bundles tr:has(.fail)");
  assert.match((await texts("#bundles tr:has(.fail)"))[0], /failed.*reverted/);
});

test("the keyboard does all", async () => {
  await page.locator("#theme").focus();
  for (let i = 0; i < 4 && !(await page.evaluate(() => document.activeElement.matches("#grid td"))); i++) await page.keyboard.press("Tab");
  const at = () => page.evaluate(() => [Number(document.activeElement.dataset.slot), document.activeElement.parentElement?.dataset.row, document.activeElement.getAttribute("aria-selected")]);
  const [slot, row, picked] = await at();
  assert.equal(row, "901");
  assert.equal(picked, "true");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowLeft");
  assert.deepEqual((await at()).slice(1), ["902", "true"]);
  const left = (await at())[0];
  assert.ok(left < slot);
  assert.match(await page.locator("#detail h2").textContent(), new RegExp(`${left} · `));
  // It stays where it is while slots go on, and says so.
  await until("newer slots", async () => / \d+ newer/.test(await page.locator("#follow").textContent()));
  assert.equal((await at())[0], left);
  await page.keyboard.press("Home");
  const oldest = (await at())[0];
  assert.ok(oldest < left);
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "detail");
  await page.keyboard.press("Escape");
  assert.equal((await at())[0], oldest);
  await page.keyboard.press("Escape");
  assert.ok(await page.locator("#follow").isHidden());
  await until("the newest slot", async () => (await slots()).at(-1) > slot);
});

test("light, dark, and little motion", async () => {
  const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await colour();
  await page.emulateMedia({ colorScheme: "dark" });
  const dark = await colour();
  assert.notEqual(dark, light);
  await page.getByRole("button", { name: "Dark", pressed: true }).click();
  assert.equal(await colour(), light);
  await page.reload();
  assert.equal(await colour(), light, "the choice is kept");
  await page.getByRole("button", { name: "Dark", pressed: false }).click();
  assert.equal(await colour(), dark);
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.evaluate(() => { localStorage.clear(); });
  await page.reload();
  assert.equal(await colour(), light);
  // Asked for and looked at in one go: the grid may be drawn anew between two.
  const animation = () => page.evaluate(() => { const e = document.querySelector("#grid .seg.new"); return e && getComputedStyle(e).animationName; });
  assert.equal(await until("a new subblock", animation), "none");
});

test("small screens", async () => {
  await page.setViewportSize({ width: 360, height: 800 });
  await until("fewer columns", async () => (await slots()).length <= 3);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is cut off");
  await page.setViewportSize({ width: 1440, height: 1180 });
  await until("more columns", async () => (await slots()).length >= 6);
});

async function accessible(what) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe.source);
    const found = await page.evaluate(async () => (await globalThis.axe.run(document, { resultTypes: ["violations"] })).violations);
    const list = found.map((v) => `${v.impact} ${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => `${n.html} ${n.failureSummary}`).join(" | ")}`);
    assert.deepEqual(list.filter((l) => /^(serious|critical)/.test(l)), [], `${what}, ${colorScheme}`);
    for (const l of list) console.log(`axe, ${what}, ${colorScheme}: ${l}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

test("no serious finding of axe", () => accessible("all is well"));

test("the screenshot", { skip: !process.env.UPDATE_SCREENSHOT && "UPDATE_SCREENSHOT is not set" }, async () => {
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize({ width: 1440, height: 900 });
  // All is well, and there is something to see.
  await until("slots in time with messages", () => page.evaluate(() => document.querySelector("#verdict.ok") && document.querySelectorAll("#arcs path.tip").length >= 2));
  for (const [colorScheme, name] of [["light", "statuspage"], ["dark", "statuspage-dark"]]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(root, `docs/images/${name}.png`) });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1440, height: 1180 });
});

test("a fault: an operator dies, and the others go on", { skip: operators < 4 && "there are no other operators" }, async () => {
  const last = operators - 1;
  process.kill(endpoints.operators[last].pid, "SIGKILL");
  await page.waitForSelector(`#faults .fault.open:has-text("operator-${last} is not connected")`);
  await until("the announcement", async () => (await page.locator("#announce").textContent()).includes(`operator-${last} is not connected`));
  assert.match((await texts("#legend li"))[last], /not connected/);
  await until("the verdict", async () => new RegExp(`without operator-${last}|Behind|Standing still`).test(await page.locator("#verdict").textContent()));
  await page.waitForSelector(`#faults .fault:has-text("operator-${last} had the turn")`);
  const was = (await slots()).at(-1);
  await until("slots without it", async () => (await slots()).at(-1) > was + 3);
  await accessible("an operator is gone");
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, "fault.png"), fullPage: true });
});

test("nothing is loaded from elsewhere, and nothing fails in the browser", () => assert.deepEqual(problems, []));

test("the page says when it has lost its server", async () => {
  leaving = true;
  await stop();
  await until("the verdict", async () => (await page.locator("#verdict").textContent()).includes("Connection lost"));
});
