// Tests the page in a real Chromium. tests/it/page.rs starts the services and runs:
//   node drive.mjs CHROMIUM MODULES URL GUARDED_URL CUT_OFF_URL TOKEN
// The service at URL requires no token. GUARDED_URL requires TOKEN. The store of CUT_OFF_URL is unavailable. All tests run;
// the exit code is 1 if one of them fails.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [chromiumPath, modules, url, guarded, cutOff, token] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
// Enough for a machine under load.
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
  const errors = [];
  const hosts = new Set();
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => hosts.add(new URL(request.url()).host));
  return { context, page, errors, hosts };
}

async function assertAccessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document));
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const reported = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
  assert.deepEqual(reported, [], `axe: ${what}`);
}

const rows = (page) => page.locator("#rows tr[data-segment]");
const names = (page) => page.locator("#rows tr[data-segment] bdi").allTextContents();
async function until(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    if (await condition()) return;
    assert.ok(Date.now() < deadline, `timeout: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

const tests = {
  async "the table lists segments and escapes their names"() {
    const { context, page, errors } = await open({ bypassCSP: true });
    await page.goto(url);
    assert.equal(await rows(page).count(), 50, "a page has 50 rows");
    assert.equal((await names(page))[0], "<script>alert(1)</script>");
    assert.equal(await page.locator("#rows script").count(), 0);
    assert.match(await page.locator("#pages").textContent(), /page 1 of \d/);
    await assertAccessible(page, "the list");
    await page.getByRole("link", { name: "Next" }).click();
    await page.waitForURL(/page=2/);
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "search and sort work with the keyboard alone"() {
    const { context, page, errors } = await open();
    await page.goto(url);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    for (let tries = 0; (await page.evaluate(() => document.activeElement.id)) !== "q"; tries++) {
      assert.ok(tries < 10, "the search field is not reachable with Tab");
      await page.keyboard.press("Tab");
    }
    await page.keyboard.type("SPORT");
    await until("the search shows 2 rows", async () => (await rows(page).count()) === 2);
    assert.deepEqual(await names(page), ["sports", "winter sports"]);
    for (let tries = 0; !(await page.evaluate(() => document.activeElement.textContent.startsWith("Segment"))); tries++) {
      assert.ok(tries < 10, "the column headers are not reachable with Tab");
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
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "search and counts work without JavaScript"() {
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
    const { context, page, errors } = await open();
    await page.goto(`${url}/?q=winter`);
    const users = page.locator("[data-segment='winter sports'] [data-users]");
    assert.equal(await users.textContent(), "2");
    await page.locator("#rows a").focus();
    const posted = await context.request.post(`${url}/v1/pairs`, {
      data: { user_id: "new user", segment: "winter sports" },
    });
    assert.equal(posted.status(), 200);
    await until("the count becomes 3", async () => (await users.textContent()) === "3");
    const focused = await page.evaluate(() => document.activeElement.textContent);
    assert.equal(focused, "winter sports", "an update must not move the focus");
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "the slider selects a window"() {
    const { context, page, errors } = await open({ bypassCSP: true });
    await page.goto(`${url}/segments/sports`);
    assert.equal(await page.locator("#now [data-users]").textContent(), "3");
    const slider = page.locator("#slider");
    await slider.focus();
    await page.keyboard.press("Home");
    await until("the slider shows 2 users", async () => /^2 users in the last/.test(await page.locator("#counted").textContent()));
    await page.keyboard.press("End");
    await until("the slider shows 3 users", async () => /^3 users in the last 14d/.test(await page.locator("#counted").textContent()));
    await page.fill("#window", "1x");
    await page.keyboard.press("Enter");
    await until("the invalid window is reported", async () => /window/.test(await page.locator("#counted").textContent()));
    assert.ok(await page.locator("#trend svg polyline").count());
    assert.ok(await page.locator("#leaving tbody tr").count());
    await assertAccessible(page, "a segment");
    // Chromium logs the expected 400, which the page shows to the user.
    assert.deepEqual(errors.filter((text) => !text.includes("400")), []);
    await context.close();
  },
  async "segments with unusual names have pages"() {
    const { context, page, errors } = await open();
    for (const name of ["<script>alert(1)</script>", `quotes "'\`&`, "שלום עולם", "a/b?c#d%41"]) {
      await page.goto(`${url}/?q=${encodeURIComponent(name)}`);
      assert.deepEqual(await names(page), [name]);
      await page.locator("#rows a").click();
      await page.waitForURL(/segments\//);
      assert.equal(await page.locator("h1").textContent(), name);
    }
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "the colour scheme follows the system preference and the button"() {
    const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await open({ colorScheme: "dark", bypassCSP: true });
    await dark.page.goto(url);
    const darkBackground = await background(dark.page);
    await assertAccessible(dark.page, "dark");
    await dark.page.getByRole("button", { name: "Light colours" }).click();
    assert.notEqual(await background(dark.page), darkBackground);
    await dark.page.reload();
    assert.notEqual(await background(dark.page), darkBackground, "the choice must survive a reload");
    assert.deepEqual(dark.errors, []);
    await dark.context.close();
  },
  async "pages fit on a phone"() {
    const { context, page } = await open({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, bypassCSP: true });
    for (const path of ["/", "/segments/sports"]) {
      await page.goto(url + path);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${path} is ${overflow} pixels too wide`);
      await assertAccessible(page, `a phone, ${path}`);
    }
    await context.close();
  },
  async "signing in and out"() {
    const { context, page, errors, hosts } = await open({ bypassCSP: true });
    await page.goto(`${guarded}/segments/sports`);
    assert.match(page.url(), /sign-in\?next=/);
    await assertAccessible(page, "the sign-in form");
    await page.fill("#token", "nonsense");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").waitFor();
    assert.ok(errors.every((text) => text.includes("403")), errors.join());
    errors.length = 0;
    await page.fill("#token", token);
    await page.keyboard.press("Enter");
    await page.waitForURL(/segments\/sports/);
    const [cookie] = await context.cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
    assert.equal(await page.evaluate(() => document.cookie), "");
    const deletion = await page.evaluate(async () => (await fetch("/v1/users/u1", { method: "DELETE" })).status);
    assert.equal(deletion, 401, "the session cookie must be read-only");
    errors.length = 0;
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL(/sign-in/);
    assert.deepEqual(await context.cookies(), []);
    await page.goto(guarded);
    assert.match(page.url(), /sign-in/);
    assert.deepEqual(errors, []);
    assert.deepEqual([...hosts], [new URL(guarded).host], "a request went to another host");
    await context.close();
  },
  async "an unavailable store shows nothing as good"() {
    const colour = (page, element) => element.evaluate((node) => getComputedStyle(node, "::before").color);
    for (const colorScheme of ["light", "dark"]) {
      const { context, page } = await open({ colorScheme, bypassCSP: true });
      const greenTexts = async () => {
        const candidates = await page.locator(".live, .state .well dt").all();
        const green = await page.evaluate(() => {
          const probe = document.createElement("i");
          probe.style.color = "var(--up)";
          document.body.append(probe);
          const { color } = getComputedStyle(probe);
          probe.remove();
          return color;
        });
        const found = [];
        for (const element of candidates) if ((await colour(page, element)) === green) found.push(await element.textContent());
        return found;
      };
      for (const path of ["/", "/segments/sports"]) {
        const response = await page.goto(cutOff + path);
        assert.equal(response.status(), 503);
        await until("the live indicator shows the outage", async () => /not available/.test(await page.locator("#live").textContent()));
        // The event stream opens, and the page fetches itself again. Neither may change the indicator.
        await page.waitForRequest((request) => new URL(request.url()).pathname === path);
        assert.match(await page.locator("#live").textContent(), /not available/);
        assert.ok(await page.locator("#banner .failed").isVisible());
        // These parts don't depend on the store and may be healthy.
        const unexpected = (await greenTexts()).filter((text) => !["Cache", "Clock", "Spool"].includes(text));
        assert.deepEqual(unexpected, [], path);
        await assertAccessible(page, `without counts, ${path}, ${colorScheme}`);
      }
      await context.close();
    }
  },
  async "an unreachable service is not shown as live"() {
    const { context, page } = await open();
    await page.goto(url);
    await until("the page is live", async () => (await page.locator("#live").getAttribute("data-kind")) === "good");
    assert.ok(!(await page.locator("#offline").isVisible()));
    await context.setOffline(true);
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await until("the page is offline", async () => (await page.locator("#live").getAttribute("data-kind")) === "bad");
    assert.match(await page.locator("#offline").textContent(), /can't be reached. These are the numbers of/);
    await context.setOffline(false);
    await until("the page is live again", async () => (await page.locator("#live").getAttribute("data-kind")) === "good");
    // A proxy may respond in place of the service. The page must not accept that response, even with status 200.
    await page.route("**/*", (route) => route.fulfill({ status: 200, contentType: "text/html", body: "<h1>Welcome</h1>" }));
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await until("the page is offline", async () => (await page.locator("#live").getAttribute("data-kind")) === "bad");
    await context.close();
  },
  async "pages obey the content security policy and load nothing from other hosts"() {
    const { context, page, errors, hosts } = await open();
    for (const path of ["/", "/segments/sports"]) {
      await page.goto(url + path, { waitUntil: "load" });
      await page.locator("#live").waitFor();
    }
    assert.deepEqual(errors, []);
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
