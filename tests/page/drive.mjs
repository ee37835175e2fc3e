// Drives the page with a real Chromium. Started by tests/it/page.rs, which owns the service:
//   node drive.mjs CHROMIUM MODULES URL CLOSED_URL CUT_OFF_URL TOKEN
// The first service asks nobody; the second wants TOKEN; the third can't reach its store. Fails with the first thing that is not as it must be.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [chromiumPath, modules, url, closed, cutOff, token] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
// Long after anything should have happened, on a busy machine too.
const DEADLINE_MS = 120_000;

const browser = await chromium.launch({
  executablePath: chromiumPath,
  timeout: DEADLINE_MS,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  const wrong = [];
  const hosts = new Set();
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => hosts.add(new URL(request.url()).host));
  return { context, page, wrong, hosts };
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document));
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
  assert.deepEqual(told, [], `axe: ${what}`);
}

const rows = (page) => page.locator("#rows tr[data-segment]");
const names = (page) => page.locator("#rows tr[data-segment] bdi").allTextContents();
async function until(what, ask) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    if (await ask()) return;
    assert.ok(Date.now() < end, `${what} did not happen`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

const tests = {
  async "the table is filled, and names are text"() {
    const { context, page, wrong } = await open({ bypassCSP: true });
    await page.goto(url);
    assert.equal(await rows(page).count(), 50, "a page has 50 rows");
    assert.equal((await names(page))[0], "<script>alert(1)</script>");
    assert.equal(await page.locator("#rows script").count(), 0);
    assert.match(await page.locator("#pages").textContent(), /page 1 of \d/);
    await accessible(page, "the list");
    await page.getByRole("link", { name: "Next" }).click();
    await page.waitForURL(/page=2/);
    assert.deepEqual(wrong, []);
    await context.close();
  },
  async "search, sort and back by keyboard alone"() {
    const { context, page, wrong } = await open();
    await page.goto(url);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    for (let tries = 0; (await page.evaluate(() => document.activeElement.id)) !== "q"; tries++) {
      assert.ok(tries < 10, "the search is within reach");
      await page.keyboard.press("Tab");
    }
    await page.keyboard.type("SPORT");
    await until("the search", async () => (await rows(page).count()) === 2);
    assert.deepEqual(await names(page), ["sports", "winter sports"]);
    for (let tries = 0; !(await page.evaluate(() => document.activeElement.textContent.startsWith("Segment"))); tries++) {
      assert.ok(tries < 10, "the columns are within reach");
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Enter");
    await page.waitForURL(/sort=name&order=asc/);
    assert.equal(await page.locator("th[aria-sort=ascending]").textContent(), "Segment");
    await page.locator("th[aria-sort=ascending] a").focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(/sort=name&order=desc/);
    assert.deepEqual(await names(page), ["winter sports", "sports"]);
    await page.locator("#rows a").first().focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(/segments\/winter%20sports/);
    assert.deepEqual(wrong, []);
    await context.close();
  },
  async "without a script it searches and sorts all the same"() {
    const { context, page } = await open({ javaScriptEnabled: false });
    await page.goto(url);
    await page.fill("#q", "sport");
    await page.getByRole("button", { name: "Find" }).click();
    await page.waitForURL(/q=sport/);
    assert.equal(await rows(page).count(), 2);
    await page.goto(`${url}/segments/sports?window=7d`);
    assert.match(await page.locator("#counted").textContent(), /2 users in the last 7 days/);
    await context.close();
  },
  async "a count changes when a pair is posted"() {
    const { context, page, wrong } = await open();
    await page.goto(`${url}/?q=winter`);
    const users = page.locator("[data-segment='winter sports'] [data-users]");
    assert.equal(await users.textContent(), "2");
    await page.locator("#rows a").focus();
    const posted = await context.request.post(`${url}/v1/pairs`, {
      data: { user_id: "somebody new", segment: "winter sports" },
    });
    assert.equal(posted.status(), 200);
    await until("the change", async () => (await users.textContent()) === "3");
    const focused = await page.evaluate(() => document.activeElement.textContent);
    assert.equal(focused, "winter sports", "focus stays where it was");
    assert.deepEqual(wrong, []);
    await context.close();
  },
  async "the slider counts any window"() {
    const { context, page, wrong } = await open({ bypassCSP: true });
    await page.goto(`${url}/segments/sports`);
    assert.equal(await page.locator("#now [data-users]").textContent(), "3");
    const slider = page.locator("#slider");
    await slider.focus();
    await page.keyboard.press("Home");
    await until("the count", async () => /^2 users in the last/.test(await page.locator("#counted").textContent()));
    await page.keyboard.press("End");
    await until("the count", async () => /^3 users in the last 14d/.test(await page.locator("#counted").textContent()));
    await page.fill("#window", "1x");
    await page.keyboard.press("Enter");
    await until("the refusal", async () => /window/.test(await page.locator("#counted").textContent()));
    assert.ok(await page.locator("#trend svg polyline").count());
    assert.ok(await page.locator("#leaving tbody tr").count());
    await accessible(page, "a segment");
    // The browser tells of a 400 that the page itself shows to its reader.
    assert.deepEqual(wrong.filter((text) => !text.includes("400")), []);
    await context.close();
  },
  async "odd names have pages of their own"() {
    const { context, page, wrong } = await open();
    for (const name of ["<script>alert(1)</script>", `quotes "'\`&`, "שלום עולם", "a/b?c#d%41"]) {
      await page.goto(`${url}/?q=${encodeURIComponent(name)}`);
      assert.deepEqual(await names(page), [name]);
      await page.locator("#rows a").click();
      await page.waitForURL(/segments\//);
      assert.equal(await page.locator("h1").textContent(), name);
    }
    assert.deepEqual(wrong, []);
    await context.close();
  },
  async "light and dark, by preference and by the switch"() {
    const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await open({ colorScheme: "dark", bypassCSP: true });
    await dark.page.goto(url);
    const darkGround = await ground(dark.page);
    await accessible(dark.page, "dark");
    await dark.page.getByRole("button", { name: "Light colours" }).click();
    assert.notEqual(await ground(dark.page), darkGround);
    await dark.page.reload();
    assert.notEqual(await ground(dark.page), darkGround, "the choice is kept");
    assert.deepEqual(dark.wrong, []);
    await dark.context.close();
  },
  async "a phone shows all of it"() {
    const { context, page } = await open({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, bypassCSP: true });
    for (const place of ["/", "/segments/sports"]) {
      await page.goto(url + place);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${place} is ${wide} pixels too wide`);
      await accessible(page, `a phone, ${place}`);
    }
    await context.close();
  },
  async "signing in and out"() {
    const { context, page, wrong, hosts } = await open({ bypassCSP: true });
    await page.goto(`${closed}/segments/sports`);
    assert.match(page.url(), /sign-in\?next=/);
    await accessible(page, "the form");
    await page.fill("#token", "nonsense");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").waitFor();
    assert.ok(wrong.every((text) => text.includes("403")), wrong.join());
    wrong.length = 0;
    await page.fill("#token", token);
    await page.keyboard.press("Enter");
    await page.waitForURL(/segments\/sports/);
    const [cookie] = await context.cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
    assert.equal(await page.evaluate(() => document.cookie), "");
    const erased = await page.evaluate(async () => (await fetch("/v1/users/u1", { method: "DELETE" })).status);
    assert.equal(erased, 401, "the cookie only reads");
    wrong.length = 0;
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL(/sign-in/);
    assert.deepEqual(await context.cookies(), []);
    await page.goto(closed);
    assert.match(page.url(), /sign-in/);
    assert.deepEqual(wrong, []);
    assert.deepEqual([...hosts], [new URL(closed).host], "no other host is asked");
    await context.close();
  },
  async "nothing is green without counts"() {
    const colour = (page, element) => element.evaluate((node) => getComputedStyle(node, "::before").color);
    for (const colorScheme of ["light", "dark"]) {
      const { context, page } = await open({ colorScheme, bypassCSP: true });
      const green = async () => {
        const all = await page.locator(".live, .state .well dt").all();
        const up = await page.evaluate(() => {
          const probe = document.createElement("i");
          probe.style.color = "var(--up)";
          document.body.append(probe);
          const { color } = getComputedStyle(probe);
          probe.remove();
          return color;
        });
        const found = [];
        for (const element of all) if ((await colour(page, element)) === up) found.push(await element.textContent());
        return found;
      };
      for (const place of ["/", "/segments/sports"]) {
        const answer = await page.goto(cutOff + place);
        assert.equal(answer.status(), 503);
        await until("the mark", async () => /not available/.test(await page.locator("#live").textContent()));
        // Events come here, and change nothing about it.
        await page.waitForRequest((request) => new URL(request.url()).pathname === place);
        assert.match(await page.locator("#live").textContent(), /not available/);
        assert.ok(await page.locator("#banner .failed").isVisible());
        // Other parts may be well: they are no counts.
        const wrong = (await green()).filter((text) => !["Cache", "Clock", "Spool"].includes(text));
        assert.deepEqual(wrong, [], place);
        await accessible(page, `without counts, ${place}, ${colorScheme}`);
      }
      await context.close();
    }
  },
  async "a service that is gone is not live"() {
    const { context, page } = await open();
    await page.goto(url);
    await until("the mark", async () => (await page.locator("#live").getAttribute("data-kind")) === "good");
    assert.ok(!(await page.locator("#offline").isVisible()));
    await context.setOffline(true);
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await until("the mark", async () => (await page.locator("#live").getAttribute("data-kind")) === "bad");
    assert.match(await page.locator("#offline").textContent(), /can't be reached. These are the numbers of/);
    await context.setOffline(false);
    await until("the return", async () => (await page.locator("#live").getAttribute("data-kind")) === "good");
    // What a proxy says in the place of a page is no page, whatever its status.
    await page.route("**/*", (route) => route.fulfill({ status: 200, contentType: "text/html", body: "<h1>Welcome</h1>" }));
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await until("the mark", async () => (await page.locator("#live").getAttribute("data-kind")) === "bad");
    await context.close();
  },
  async "no policy is broken and no other host asked"() {
    const { context, page, wrong, hosts } = await open();
    for (const place of ["/", "/segments/sports"]) {
      await page.goto(url + place, { waitUntil: "load" });
      await page.locator("#live").waitFor();
    }
    assert.deepEqual(wrong, []);
    assert.deepEqual([...hosts], [new URL(url).host]);
    await context.close();
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}\n${error.stack ?? error}`);
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
