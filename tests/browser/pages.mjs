// Opens every page of the console in chromium, in both colour schemes, wide and narrow, and checks
// it. Argument: the folder of the screenshots, and a JSON object of the console's URL and paths.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [packages, chromium_path, folder, stage] = process.argv.slice(2);
const require = createRequire(join(packages, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core"), "utf8");
const { url, user, password, call, pages } = JSON.parse(stage);

const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];
const WIDTHS = [1280, 360];
const SCHEMES = ["light", "dark"];
// Of the pages, in milliseconds.
const REFRESH_INTERVAL = 3000;

const failures = [];

function check(isTrue, text) {
  console.log(`${isTrue ? "ok" : "FAILED"}: ${text}`);
  if (!isTrue) {
    failures.push(text);
  }
}

async function open(browser, options, seen) {
  const context = await browser.newContext({
    // Not `httpCredentials`: playwright then holds up each request, and a page that is closed at
    // that moment may never end.
    extraHTTPHeaders: { authorization: `Basic ${btoa(`${user}:${password}`)}` },
    timezoneId: "UTC",
    locale: "en-GB",
    ...options,
  });
  const page = await context.newPage();
  // Chromium reports what the policy of the page forbids as an error of the console.
  page.on("console", (message) => message.type() === "error" && seen.push(message.text()));
  page.on("pageerror", (error) => seen.push(String(error)));
  return page;
}

async function checkPage(browser, name, path, scheme, width) {
  const seen = [];
  const size = { width, height: 720 };
  const page = await open(browser, { colorScheme: scheme, viewport: size }, seen);
  const where = `${name}, ${scheme}, ${width} px`;
  const response = await page.goto(url + path);
  check(response.status() === 200, `${where}: opens`);
  if (width === WIDTHS[0]) {
    await page.screenshot({ path: join(folder, `${name}-${scheme}.png`), fullPage: true });
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  check(wide <= width, `${where}: does not scroll sideways (${wide} px)`);
  // Evaluated by the debugger, which the policy of the page does not concern.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(
    (rules) => axe.run({ runOnly: { type: "tag", values: rules } }),
    RULES,
  );
  const found = violations.map(({ id, nodes }) => `${id} ${nodes.map((n) => n.html)}`);
  check(found.length === 0, `${where}: accessible by WCAG 2.1 AA ${found}`);
  check(seen.length === 0, `${where}: no error and nothing forbidden by the policy ${seen}`);
  if (width === WIDTHS[0] && scheme === SCHEMES[0]) {
    const search = page.getByRole("banner").getByRole("search");
    await search.getByLabel("Call id").fill(call);
    await search.getByRole("button", { name: "Find" }).click();
    await page.waitForURL(`**/calls/${call}`);
    const heading = await page.getByRole("heading", { level: 1 }).innerText();
    check(heading === `Call ${call}`, `${name}: search finds the call`);
  }
  await page.context().close();
}

async function checkKeyboard(browser) {
  const page = await open(browser, {}, []);
  await page.goto(`${url}/`);
  const text = () => page.evaluate(() => document.activeElement.textContent.trim());
  await page.keyboard.press("Tab");
  check((await text()) === "Skip to the content", "keyboard: the first Tab is the skip link");
  check(
    await page.evaluate(() => document.activeElement.getBoundingClientRect().left >= 0),
    "keyboard: the skip link is visible",
  );
  for (let i = 0; i < 10; i += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement.id === "search")) break;
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    check(outline === "solid", `keyboard: the focus is visible on ${await text()}`);
  }
  const at = await page.evaluate(() => document.activeElement.id);
  check(at === "search", `keyboard: reaches the search (${at})`);
  await page.keyboard.type(call);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${url}/calls/${call}`);
  check(true, "keyboard: reaches the page of a call");
  await page.context().close();
}

async function checkRefresh(browser) {
  const page = await open(browser, {}, []);
  await page.goto(`${url}${pages.queue}`);
  const shown = await page.locator("main").innerText();
  await page.waitForFunction((old) => document.querySelector("main").innerText !== old, shown);
  check(true, "refresh: a visible page shows what is new");
  // A headless browser shows all of its pages, so what the page asks the browser is replaced.
  await page.evaluate(() => {
    for (const [name, value] of [["visibilityState", "hidden"], ["hidden", true]]) {
      Object.defineProperty(document, name, { get: () => value });
    }
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.waitForTimeout(1000);
  let requests = 0;
  page.on("request", () => (requests += 1));
  await page.waitForTimeout(2 * REFRESH_INTERVAL);
  check(requests === 0, "refresh: a hidden page is not read again");
  await page.context().close();
}

async function checkLogin(browser) {
  const page = await open(browser, { extraHTTPHeaders: {} }, []);
  // What chromium makes of 401 if it has no password and no one to ask.
  const refused = "ERR_INVALID_AUTH_CREDENTIALS";
  const error = await page.goto(`${url}/`).then(() => "shown", String);
  check(error.includes(refused), `login: nothing is shown without a password ${error}`);
  await page.context().close();
  const httpCredentials = { username: user, password };
  const known = await open(browser, { extraHTTPHeaders: {}, httpCredentials }, []);
  const response = await known.goto(`${url}/`, { waitUntil: "networkidle" });
  check(response.status() === 200, "login: the password that the browser is asked for opens the page");
  await known.context().close();
}

// The sandbox of chromium refuses to run as root, as the tests do in a container. The pages are ours.
const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
const browser = await chromium.launch({ executablePath: chromium_path, args });
try {
  await checkLogin(browser);
  await checkKeyboard(browser);
  await checkRefresh(browser);
  for (const [name, path] of Object.entries(pages)) {
    for (const scheme of SCHEMES) {
      for (const width of WIDTHS) {
        await checkPage(browser, name, path, scheme, width);
      }
    }
  }
} finally {
  await browser.close();
}
if (failures.length > 0) {
  console.error(`${failures.length} checks failed:\n${failures.join("\n")}`);
  process.exit(1);
}
