// What the scripts have in common: the browser, its pages, and checks. Arguments of each script: the folder of the
// packages, the path of chromium, the folder of the screenshots, and a JSON object of what the console has.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [packages, chromium_path, folder, input] = process.argv.slice(2);
const require = createRequire(join(packages, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core"), "utf8");

export const stage = JSON.parse(input);
export const WIDTHS = [1280, 360];
export const SCHEMES = ["light", "dark"];
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];

const failures = [];

export function check(isTrue, text) {
  console.log(`${isTrue ? "ok" : "FAILED"}: ${text}`);
  if (!isTrue) {
    failures.push(text);
  }
}

export async function open(browser, options, seen) {
  const context = await browser.newContext({
    // Not `httpCredentials`: playwright then holds up each request, and a page that is closed at
    // that moment may never end.
    extraHTTPHeaders: { authorization: `Basic ${btoa(`${stage.user}:${stage.password}`)}` },
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

// Checks the page that is open, and makes its picture.
export async function checkOpenPage(page, where, width, picture) {
  if (picture) {
    await page.screenshot({ path: join(folder, `${picture}.png`), fullPage: true });
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
}

// Starts the browser, runs the checks, and ends with 1 if one has failed.
export async function run(checks) {
  // The sandbox of chromium refuses to run as root, as the tests do in a container. The pages are ours.
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  const browser = await chromium.launch({ executablePath: chromium_path, args });
  try {
    await checks(browser);
  } finally {
    await browser.close();
  }
  if (failures.length > 0) {
    console.error(`${failures.length} checks failed:\n${failures.join("\n")}`);
    process.exit(1);
  }
}
