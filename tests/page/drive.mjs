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
    assert.match(await page.locator("#turn").textContent(), /Page\s+of \d/);
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
      assert.ok(tries < 30, "the search field is not reachable with Tab");
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
  async "a count over another window than the event's is not replaced by it"() {
    const { context, page, errors } = await open();
    const name = "segment-79";
    const settings = { window: "1h" };
    assert.equal((await context.request.put(`${url}/v1/segments/${name}`, { data: settings })).status(), 200);
    const post = async (user, at) => {
      const posted = await context.request.post(`${url}/v1/pairs`, { data: { user_id: user, segment: name, at } });
      assert.equal(posted.status(), 200);
    };
    for (const user of ["long ago", "long before"]) await post(user, "2026-11-21T08:00:00Z");
    await page.goto(`${url}/compare?segment=${name}&segment=sports`);
    const users = page.locator(`[data-segment='${name}'] [data-users]`);
    assert.equal(await users.textContent(), "3", "all windows of a comparison are the same");
    await until("the page is live", async () => (await page.locator("#live").textContent()) === "Live");
    await page.evaluate(() => {
      globalThis.seen = new Set();
      const note = () => seen.add(document.querySelector("[data-segment='segment-79'] [data-users]").textContent);
      new MutationObserver(note).observe(document.getElementById("compared"), { subtree: true, childList: true, characterData: true });
    });
    await post("new user", undefined);
    await until("the count becomes 4", async () => (await users.textContent()) === "4");
    assert.deepEqual(await page.evaluate(() => [...seen]), ["4"], "the event has 2");
    await page.goto(`${url}/segments/${name}`);
    assert.match(await page.locator("#now").textContent(), /2 users\s+In the last 1 hour/);
    await context.request.put(`${url}/v1/segments/${name}`, { data: {} });
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "what the scripts add stays when the page is fetched again"() {
    const { context, page, errors } = await open();
    await page.addInitScript(() => {
      globalThis.listeners = 0;
      const add = document.addEventListener;
      document.addEventListener = function (...args) {
        listeners++;
        return add.apply(this, args);
      };
    });
    const again = async () => {
      await page.evaluate(async () => {
        received.clear(); // as if all parts had changed
        await look();
      });
    };
    await page.goto(url);
    const curl = page.getByRole("button", { name: "Copy as curl" });
    assert.ok(await curl.isVisible());
    const favorite = page.getByRole("button", { name: "Favorite sports" });
    await favorite.focus();
    await again();
    assert.ok(await curl.isVisible());
    assert.equal(await page.evaluate(() => document.activeElement.dataset.star), "sports");
    await curl.focus();
    await again();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Copy as curl");
    await page.goto(`${url}/segments/sports`);
    const before = await page.evaluate(() => listeners);
    for (let times = 0; times < 3; times++) await again();
    assert.equal(await page.evaluate(() => listeners), before, "charts leave no listeners behind");
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
    const counted = (text) => until(text, async () => (await page.locator("#counted").textContent()) === text);
    await counted("0 users in the last 1 minute");
    await page.keyboard.press("ArrowRight");
    await counted("2 users in the last 5 minutes");
    assert.equal(await slider.getAttribute("aria-valuetext"), "5 minutes");
    await page.keyboard.press("End");
    await counted("3 users in the last 14 days");
    await page.fill("#window", "1x");
    await page.keyboard.press("Enter");
    await page.waitForURL(/window=1x/);
    assert.match(await page.locator("#counted").textContent(), /Invalid window: write a window like/);
    assert.equal(await page.inputValue("#window"), "1x", "what was typed is kept");
    assert.ok(await page.locator("#trend svg polyline").count());
    assert.ok(await page.locator("#expiring tbody tr").count());
    await assertAccessible(page, "a segment");
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "a chart has values for the mouse, the keyboard and a finger, in the reader's time zone"() {
    const address = `${url}/segments/sports?range=1h`;
    const { context, page, errors } = await open({ timezoneId: "Asia/Tokyo", bypassCSP: true });
    await page.goto(address);
    const tip = page.locator("#trend .tip");
    assert.ok(!(await tip.isVisible()));
    const box = await page.locator("#trend .chart").boundingBox();
    await page.mouse.move(box.x + 60, box.y + 60);
    await tip.waitFor();
    assert.match(await tip.textContent(), /21:00\s*3 Users/, "12:00 UTC is 21:00 in Tokyo");
    await page.mouse.move(box.x + 60, box.y - 60);
    await tip.waitFor({ state: "hidden" });
    await page.locator("#trend .reader").focus();
    assert.match(await tip.textContent(), /21:03/);
    await page.keyboard.press("Home");
    assert.match(await page.locator("#trend .reader").getAttribute("aria-valuetext"), /21:00: Users 3/);
    assert.match(await page.locator(".foot").textContent(), /Asia\/Tokyo \(GMT\+9\)/);
    assert.match(await page.locator("#trend .ticks").textContent(), /21:0/);
    await page.getByText("Table of points").first().click();
    const first = page.locator("#trend-points tbody tr").last();
    assert.match(await first.textContent(), /21 Nov 2026, 21:00\s*3/);
    await assertAccessible(page, "a chart with its values");
    // A range is entered in the reader's time zone, and sent in UTC.
    await page.getByText("Another range").click();
    await page.fill("#from", "2026-11-21T21:00");
    await page.fill("#to", "2026-11-21T21:02");
    await page.getByRole("button", { name: "Show" }).click();
    await page.waitForURL(/from=2026-11-21T12%3A00&to=2026-11-21T12%3A02/);
    assert.equal(await page.inputValue("#from"), "2026-11-21T21:00");
    assert.deepEqual(errors, []);
    await context.close();

    const phone = await open({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
    await phone.page.goto(address);
    await phone.page.locator("#trend .chart").scrollIntoViewIfNeeded();
    const place = await phone.page.locator("#trend .chart").boundingBox();
    await phone.page.touchscreen.tap(place.x + 70, place.y + 60);
    await phone.page.locator("#trend .tip").waitFor();
    const sizes = await phone.page.locator("#trend svg text").evaluateAll((labels) =>
      labels.map((label) => [getComputedStyle(label).fontSize, label.getScreenCTM().a]));
    assert.ok(sizes.length > 4);
    for (const [size, scale] of sizes) assert.deepEqual([size, scale], ["12px", 1], "labels keep their size on a phone");
    await phone.context.close();
  },
  async "ranges and windows are in the address and kept between pages"() {
    const { context, page, errors } = await open();
    await page.goto(url);
    await page.getByRole("navigation", { name: "Range" }).getByRole("link", { name: "24h" }).click();
    await page.waitForURL(/\?range=1d$/);
    await page.getByRole("navigation", { name: "Window" }).getByRole("link", { name: "7d" }).click();
    await page.waitForURL(/\?range=1d&window=7d$/);
    await page.fill("#q", "sports");
    await page.waitForURL(/q=sports.*range=1d&window=7d/);
    await until("the search shows 2 rows", async () => (await rows(page).count()) === 2);
    await page.getByRole("link", { name: "sports", exact: true }).click();
    await page.waitForURL(/segments\/sports\?range=1d&window=7d/);
    assert.match(await page.locator("#now").textContent(), /2 users\s+In the last 7 days/);
    await page.getByRole("link", { name: "All segments" }).first().click();
    await page.waitForURL(/\/\?range=1d&window=7d$/);
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "segments are compared in one chart"() {
    const { context, page, errors } = await open({ bypassCSP: true });
    await page.goto(`${url}/?q=sports`);
    const button = page.locator("#compare-button");
    assert.ok(await button.isDisabled());
    await page.getByLabel("Compare sports").check();
    await page.getByLabel("Compare winter sports").check();
    assert.equal(await button.textContent(), "Compare selected (2)");
    await button.click();
    await page.waitForURL(/compare\?segment=sports&segment=winter\+sports/);
    assert.equal(await page.locator("#trend polyline").count(), 2);
    assert.deepEqual(await page.locator("#compared bdi").allTextContents(), ["sports", "winter sports"]);
    await page.locator("#with").fill("news/politics");
    await page.getByRole("button", { name: "Add" }).click();
    await until("a third line", async () => (await page.locator("#trend polyline").count()) === 3);
    await assertAccessible(page, "a comparison");
    await page.getByRole("link", { name: "Remove winter sports" }).click();
    await until("two lines again", async () => (await page.locator("#trend polyline").count()) === 2);
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "an expression is counted while it is typed"() {
    const { context, page, errors } = await open({ bypassCSP: true });
    await page.goto(`${url}/combine`);
    const asked = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await page.locator("#expr").pressSequentially('sports AND "winter sports"');
    const users = page.locator("#combined .big");
    await until("2 users are in both", async () => (await users.count()) === 1 && (await users.textContent()) === "2");
    assert.match(await page.locator("#combined").textContent(), /2 users in the last 14 days, \d+\.\d% of the \d+ users in any segment/);
    await until("the expression is in the address", () => new URL(page.url()).searchParams.get("expr") === 'sports AND "winter sports"');
    assert.deepEqual(asked.filter((path) => path.startsWith("/v1/")), [], "nothing is counted twice");
    await assertAccessible(page, "an expression");
    await page.fill("#expr", "  sports AN news");
    const trouble = page.locator("#expression-error");
    await until("the mistake is reported", async () => /no operator between sports and AN/.test(await trouble.textContent()));
    assert.equal(await page.locator("#expression-mark").textContent(), "  sports AN news\n         ^");
    assert.equal(await page.inputValue("#expr"), "  sports AN news", "what was typed is kept");
    assert.equal(await page.locator("#expr").getAttribute("aria-invalid"), "true");
    await assertAccessible(page, "an invalid expression");
    await page.fill("#expr", "sports OR never");
    await until("an unknown name is reported", async () => /No user was seen in “never”/.test(await page.locator("#combined").textContent()));
    assert.equal(await users.textContent(), "3");
    assert.equal(await trouble.textContent(), "");
    await page.fill("#expr", "");
    await page.locator("#insert").fill("winter sports");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "NOT" }).click();
    await page.locator("#insert").fill("sports");
    await page.keyboard.press("Enter");
    assert.equal(await page.inputValue("#expr"), '"winter sports" NOT sports ');
    await page.getByRole("navigation", { name: "Window" }).getByRole("link", { name: "7d" }).click();
    await page.waitForURL(/combine\?.*window=7d/);
    assert.equal(await page.inputValue("#expr"), '"winter sports" NOT sports ');
    assert.deepEqual(errors, []);
    await context.close();
    const plain = await open({ javaScriptEnabled: false });
    await plain.page.goto(`${url}/combine?expr=sports+NOT+"winter+sports"`);
    assert.match(await plain.page.locator("#combined").textContent(), /1 user in the last 14 days/);
    await plain.page.goto(`${url}/combine?expr=sports+NOT`);
    assert.match(await plain.page.locator("#expression-mark").textContent(), /sports NOT\n +\^/);
    await plain.context.close();
  },
  async "shared users are drawn in proportion and listed exactly"() {
    // The answers of the API are given, so that the numbers are large enough for a drawing.
    const both = [[400, 50, 20], [50, 100, 10], [20, 10, 100]];
    const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, colorScheme: "dark" };
    for (const options of [{}, phone]) {
      const { context, page, errors } = await open({ bypassCSP: true, ...options });
      await page.route("**/v1/overlap?*", (route) => {
        const segments = new URL(route.request().url()).searchParams.getAll("segment");
        const part = both.slice(0, segments.length).map((row) => row.slice(0, segments.length));
        return route.fulfill({ json: { segments, both: part, everybody: 2000, window_seconds: 1209600 } });
      });
      await page.route("**/v1/count?*", (route) => {
        assert.equal(new URL(route.request().url()).searchParams.get("expr"), '"sports" AND "winter sports" AND "news/politics"');
        return route.fulfill({ json: { users: 5, unknown: [] } });
      });
      await page.goto(`${url}/compare?segment=sports&segment=winter+sports&segment=news%2Fpolitics`);
      await page.locator(".circles").waitFor();
      const circle = (place, name) => page.locator(`.circles .s${place}`).evaluate((made, of) => made[of].baseVal.value, name);
      assert.ok(Math.abs((await circle(0, "r")) / (await circle(1, "r")) - 2) < 0.01, "four times the users are four times the area");
      assert.match(await page.locator(".venn").textContent(), /approximation/);
      const cells = (table, row) => page.locator("#overlap-result table").nth(table).locator("tbody tr").nth(row).locator("th, td").allTextContents();
      assert.deepEqual(await cells(0, 0), ["all three", "5", "1.0%"]);
      assert.deepEqual(await cells(0, 1), ["sports and winter sports only", "45", "8.6%"]);
      assert.deepEqual(await cells(0, 4), ["only sports", "335", "63.8%"]);
      assert.deepEqual(await cells(1, 0), ["sports", "400", "5012.5%", "205.0%"]);
      assert.deepEqual(await cells(2, 0), ["sports and winter sports", "50", "350", "50", "11.1%", "2.5× as many as by chance"]);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide`);
      const cut = await page.locator(".wide:has(.stack)").evaluate((wide) => wide.scrollWidth - wide.clientWidth);
      assert.ok(cut <= 0, `${cut} pixels of the pairs are out of sight`);
      await assertAccessible(page, "shared users");
      await page.getByRole("link", { name: "Remove news/politics" }).click();
      await until("two circles", async () => (await page.locator(".circles circle").count()) === 2);
      const apart = (await circle(1, "cx")) - (await circle(0, "cx"));
      const [r, other] = [await circle(0, "r"), await circle(1, "r")];
      assert.ok(apart > r - other && apart < r + other, "some users are shared, and some are not");
      assert.deepEqual(await cells(0, 0), ["both", "50", "11.1%"]);
      assert.deepEqual(errors, []);
      await context.close();
    }
  },
  async "shared users come from the API"() {
    const { context, page, errors } = await open({ bypassCSP: true });
    await page.goto(`${url}/compare?segment=sports&segment=winter+sports&segment=news%2Fpolitics`);
    await page.locator(".circles").waitFor();
    const cells = (table, row) => page.locator("#overlap-result table").nth(table).locator("tbody tr").nth(row).locator("th, td").allTextContents();
    assert.deepEqual((await cells(0, 0)).slice(0, 2), ["all three", "1"], "user 2 is in all of them");
    assert.deepEqual((await cells(2, 0)).slice(0, 3), ["sports and winter sports", "2", "1"]);
    await page.goto(`${url}/compare?segment=sports&segment=winter+sports&segment=news%2Fpolitics&segment=news%2Fweather`);
    await page.getByText("Each pair", { exact: true }).click();
    assert.equal(await page.locator("#pairs tbody tr").count(), 6);
    await page.goto(`${url}/overlaps?by=jaccard`);
    await page.locator("#top-result tbody tr").first().waitFor();
    assert.ok((await page.locator("#top-result tbody tr").count()) > 10);
    await page.goto(`${cutOff}/compare?segment=sports&segment=news`);
    await until("the outage is reported", async () => /store/.test(await page.locator("#overlap-result").textContent()));
    assert.deepEqual(errors.filter((text) => !/50[0-9]/.test(text)), []);
    await context.close();
  },
  async "the pairs that share the most, and a store that can't tell"() {
    const { context, page } = await open({ bypassCSP: true });
    await page.route("**/v1/overlap/top?*", (route) => {
      const by = new URL(route.request().url()).searchParams.get("by");
      if (by === "lift") return route.fulfill({ status: 501, json: { code: "unsupported", detail: "this store can't compare the users of segments" } });
      return route.fulfill({ json: { pairs: [{ a: "sports", b: "a/b?c#d%41", both: 2, jaccard: 0.5, lift: 12.5 }] } });
    });
    await page.goto(`${url}/overlaps?window=7d`);
    const pair = page.locator("#top-result tbody tr");
    await pair.waitFor();
    assert.deepEqual(await pair.locator("th, td").allTextContents(), ["sports and a/b?c#d%41", "2", "50.0%", "13×"]);
    await assertAccessible(page, "overlaps");
    await page.getByRole("link", { name: "Lift" }).click();
    await page.getByText("This store can't compare the users of segments.").waitFor();
    await page.goBack();
    await pair.getByRole("link").click();
    await page.waitForURL(/compare\?segment=sports&segment=a%2Fb%3Fc%23d%2541&window=7d/);
    await context.close();
  },
  async "users who entered and left"() {
    const { context, page, errors } = await open({ bypassCSP: true, timezoneId: "UTC" });
    const steps = [[9, 10, 4], [10, 20, 40], [11, null, null]].map(([hour, entered, left]) => ({
      at: new Date(Date.UTC(2026, 10, 21, hour)).toISOString(), entered, left,
    }));
    await page.route("**/v1/segments/sports/flow?*", (route) => route.fulfill({ json: { steps, step_seconds: 3600 } }));
    await page.goto(`${url}/segments/sports?range=1d`);
    await page.locator("#flow").waitFor();
    assert.deepEqual(await page.locator("#flow .legend li").allTextContents(), ["Entered 30", "Left 44"]);
    const heights = await page.locator("#flow rect").evaluateAll((bars) => bars.map((bar) => bar.height.baseVal.value));
    assert.equal(heights.length, 4, "a step without numbers has no bar");
    assert.equal(heights[3] / heights[2], 2, "heights are in proportion");
    await page.locator("#flow .reader").focus();
    assert.match(await page.locator("#flow .tip").textContent(), /10:00\s*20 Entered\s*40 Left/);
    await assertAccessible(page, "entered and left");
    // The range moves with the time.
    const bounds = [];
    page.on("request", (request) => {
      const { pathname, searchParams } = new URL(request.url());
      if (pathname.endsWith("/flow")) bounds.push(searchParams.get("to"));
    });
    await page.evaluate(() => {
      const request = document.querySelector("#flow-request [data-api]");
      request.dataset.api = request.dataset.api.replace(/to=\d+/, "to=1795270000");
      document.activeElement.blur();
      const { now } = Date;
      Date.now = () => now() + 60000;
      document.dispatchEvent(new Event("refreshed"));
    });
    await until("the chart is loaded again", () => bounds.includes("1795270000"));
    await page.unrouteAll();
    await page.goto(`${url}/segments/typo?range=1d`);
    await page.getByText("No user entered or left in this range.").waitFor();
    assert.match(await page.locator("#now .tile").last().textContent(), /This segment has no users now/);
    await page.goto(`${url}/segments/sports?range=1d`);
    await page.locator("#flow").waitFor();
    const [entered, left] = await page.locator("#flow .legend li").allTextContents();
    assert.match(entered, /^Entered [1-9]/, "the API has it");
    assert.equal(left, "Left 0");
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "a notice names since when numbers are complete"() {
    const { context, page } = await open({ bypassCSP: true });
    for (const path of ["/", "/segments/sports", "/compare", "/combine", "/overlaps"]) {
      await page.goto(url + path);
      assert.match(await page.locator("#covered").textContent(), /Not complete yet/, path);
    }
    await assertAccessible(page, "a notice");
    await page.goto(`${url}/?window=1m`);
    assert.equal((await page.locator("#covered").textContent()).trim(), "", "the last minute is complete");
    await context.close();
  },
  async "favorites, groups and pages of the table"() {
    const { context, page, errors } = await open();
    await page.goto(url);
    assert.ok(!(await page.locator("[data-favourites]").isVisible()));
    await page.getByRole("button", { name: "Favorite winter sports" }).click();
    await page.locator("[data-favourites]").click();
    await page.waitForURL(/segment=winter\+sports/);
    assert.deepEqual(await names(page), ["winter sports"]);
    assert.equal(await page.getByRole("button", { name: "Favorite winter sports" }).getAttribute("aria-pressed"), "true");
    await page.getByRole("navigation", { name: "Groups" }).getByRole("link", { name: "All segments" }).click();
    await page.getByRole("navigation", { name: "Groups" }).getByRole("link", { name: /^news/ }).click();
    await page.waitForURL(/group=news/);
    assert.deepEqual((await names(page)).toSorted(), ["news/politics", "news/weather"]);
    await page.goto(url);
    await page.fill("#page", "2");
    await page.keyboard.press("Enter");
    await page.waitForURL(/page=2/);
    assert.ok((await rows(page).count()) < 50);
    assert.deepEqual(errors, []);
    await context.close();
  },
  async "shortcuts, and commands to copy"() {
    const { context, page, errors } = await open({ permissions: ["clipboard-read", "clipboard-write"], bypassCSP: true });
    await page.goto(`${url}/segments/sports`);
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await assertAccessible(page, "the shortcuts");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Copy as curl" }).click();
    await page.getByText("Copied").waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(copied, `curl '${url}/v1/segments/sports/count?window=1209600'`);
    const answer = await context.request.get(copied.match(/'(.*)'/)[1]);
    assert.equal((await answer.json()).users, 3);
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "PNG" }).click();
    assert.equal((await download).suggestedFilename(), "sports.png");
    const file = readFileSync(await (await download).path());
    assert.ok(file.length > 2000 && file.subarray(1, 4).toString() === "PNG");
    await page.keyboard.press("/");
    await page.waitForURL(/#q$/);
    assert.equal(await page.evaluate(() => document.activeElement.id), "q");
    await page.keyboard.type("?");
    assert.equal(await page.inputValue("#q"), "?", "in a field, keys are text");
    await page.locator("#help").click();
    await page.getByLabel("Single-key shortcuts").uncheck();
    await page.keyboard.press("Escape");
    await page.reload();
    await page.keyboard.press("?");
    assert.ok(!(await page.getByRole("dialog").isVisible()), "shortcuts are off");
    assert.deepEqual(errors, []);
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
    await dark.page.getByRole("button", { name: "Light colors" }).click();
    assert.notEqual(await background(dark.page), darkBackground);
    await dark.page.reload();
    assert.notEqual(await background(dark.page), darkBackground, "the choice must survive a reload");
    assert.deepEqual(dark.errors, []);
    await dark.context.close();
  },
  async "pages fit on a phone"() {
    const { context, page } = await open({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, bypassCSP: true });
    const described = { description: "A description that is longer than a phone is wide, so that it is cut off" };
    assert.equal((await context.request.put(`${url}/v1/segments/sports`, { data: described })).status(), 200);
    for (const path of ["/", "/segments/sports", "/compare?segment=sports&segment=winter%20sports", "/combine", "/overlaps", "/status"]) {
      await page.goto(url + path);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${path} is ${overflow} pixels too wide`);
      const outside = await page.locator("main *").evaluateAll((all) =>
        all.filter((one) => !one.closest(".wide, .scroll, .hushed, .spark") && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML));
      assert.deepEqual(outside, [], `${path} is cut off`);
      await assertAccessible(page, `a phone, ${path}`);
    }
    await context.request.put(`${url}/v1/segments/sports`, { data: {} });
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
        const candidates = await page.locator(".live, .foot .state, .card.state .well dt").all();
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
      for (const path of ["/", "/segments/sports", "/compare?segment=sports&segment=news", "/status"]) {
        const response = await page.goto(cutOff + path);
        assert.equal(response.status(), path === "/status" ? 200 : 503);
        await until("the live indicator shows the outage", async () => /not available/.test(await page.locator("#live").textContent()));
        // The event stream opens, and the page fetches itself again. Neither may change the indicator.
        await page.waitForRequest((request) => request.url() === cutOff + path);
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
    for (const path of ["/", "/segments/sports", "/compare", "/status"]) {
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
