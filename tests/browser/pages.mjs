// Opens every page of the console in chromium, in both colour schemes, wide and narrow, and checks it.
import { SCHEMES, WIDTHS, check, checkOpenPage, open, run, stage } from "./browser.mjs";

const { url, readOnlyUrl, user, password, call, pages, questions } = stage;

// Of the pages, in milliseconds.
const REFRESH_INTERVAL = 3000;

async function checkPage(browser, name, path, scheme, width) {
  const seen = [];
  const size = { width, height: 720 };
  const page = await open(browser, { colorScheme: scheme, viewport: size }, seen);
  const where = `${name}, ${scheme}, ${width} px`;
  const response = await page.goto(url + path);
  check(response.status() === 200, `${where}: opens`);
  await checkOpenPage(page, where, width, width === WIDTHS[0] && `${name}-${scheme}`);
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

// Without the setting `actions`, no page offers one, and its address is refused.
async function checkReadOnly(browser) {
  const page = await open(browser, {}, []);
  for (const [name, path] of Object.entries(pages)) {
    await page.goto(readOnlyUrl + path);
    const offered = await page.locator("a.action, form[method=post]").count();
    check(offered === 0, `read-only, ${name}: offers no action`);
  }
  for (const [name, path] of Object.entries(questions)) {
    const refused = await page.goto(readOnlyUrl + path);
    check(refused.status() === 403, `read-only, ${name}: is refused`);
    const sent = await page.evaluate(
      async (target) => (await fetch(target, { method: "POST" })).status,
      readOnlyUrl + path,
    );
    check(sent === 403, `read-only, ${name}: its form is refused`);
  }
  await page.context().close();
}

await run(async (browser) => {
  await checkLogin(browser);
  await checkKeyboard(browser);
  await checkRefresh(browser);
  await checkReadOnly(browser);
  for (const [name, path] of Object.entries({ ...pages, ...questions })) {
    for (const scheme of SCHEMES) {
      for (const width of WIDTHS) {
        await checkPage(browser, name, path, scheme, width);
      }
    }
  }
});
