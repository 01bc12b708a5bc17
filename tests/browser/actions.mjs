// Clicks every action of the console in chromium. `stage.part` says which: `cancel` needs calls that wait, and
// `letters` dead letters and a worker, so that a call that is replayed becomes one again.
import { check, open, run, stage } from "./browser.mjs";

const { url, user, part, call, batch, dead } = stage;

// How long a page may take to show what has changed, in milliseconds.
const CHANGE_TIMEOUT = 30000;

const letters = `${url}/queues/jobs/dead`;

// Clicks a link to an action, and checks that it asks first.
async function ask(page, link, question) {
  await link.click();
  const heading = await page.getByRole("heading", { level: 1 }).innerText();
  check(question.test(heading), `asks: ${heading}`);
}

// Waits until the page, read again by itself, says what was done.
async function checkStatus(page, text) {
  await page.waitForURL(letters);
  const status = page.getByRole("status", { name: "Last action" });
  await status.filter({ hasText: `${user} ${text}` }).waitFor({ timeout: CHANGE_TIMEOUT });
  check(true, `the page says: ${await status.innerText()}`);
}

// Waits until the page of the dead letters, read again by itself, lists as many.
async function waitForLetters(page, number) {
  await page.goto(letters);
  const shown = new RegExp(`${number} dead letters?\\. `);
  await page.locator("main").filter({ hasText: shown }).waitFor({ timeout: CHANGE_TIMEOUT });
}

async function cancelCall(page) {
  await page.goto(`${url}/calls/${call}`);
  await ask(page, page.getByRole("link", { name: "Cancel the call" }), /^Cancel call/);
  await page.getByRole("link", { name: "Back, change nothing" }).click();
  await page.waitForURL(`${url}/calls/${call}`);
  check(await page.getByRole("link", { name: "Cancel the call" }).isVisible(), "back changes nothing");
  await page.getByRole("link", { name: "Cancel the call" }).click();
  await page.getByRole("button", { name: "Cancel the call" }).click();
  await page.waitForURL(`${url}/calls/${call}`);
  const state = await page.locator(".state").innerText();
  check(state.startsWith("cancelled"), `cancel a call: ${state}`);
  check((await page.locator("a.action").count()) === 0, "a cancelled call has no action");
}

async function cancelBatch(page) {
  await page.goto(`${url}/batches/${batch}`);
  await ask(page, page.getByRole("link", { name: "Cancel what is left" }), /^Cancel what is left/);
  await page.getByRole("button", { name: "Cancel the calls" }).click();
  await page.waitForURL(`${url}/batches/${batch}`);
  const text = await page.locator("main").innerText();
  check(/2 cancelled/.test(text), "cancel a batch: both calls are cancelled");
}

async function replayOne(page) {
  await page.goto(`${url}/calls/${dead}`);
  await ask(page, page.getByRole("link", { name: /^Replay dead letter/ }), /^Replay 1 dead letter/);
  await page.getByRole("button", { name: "Replay 1 dead letter" }).click();
  await checkStatus(page, "replayed 1 dead letter");
}

async function replayGroup(page) {
  await waitForLetters(page, 5);
  const row = page.getByRole("region", { name: "Groups" }).getByRole("row", { name: /503/ });
  await ask(page, row.getByRole("link", { name: /^Replay/ }), /^Replay 2 dead letters/);
  await page.getByRole("button", { name: "Replay 2 dead letters" }).click();
  await checkStatus(page, "replayed 2 dead letters");
}

// With the keyboard only.
async function replayAll(page) {
  await waitForLetters(page, 5);
  const focus = () => page.evaluate(() => document.activeElement.innerText);
  for (let i = 0; i < 30 && (await focus()) !== "Replay all"; i += 1) {
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Replay 5 dead letters of jobs?" }).waitFor();
  for (let i = 0; i < 30 && (await focus()) !== "Replay 5 dead letters"; i += 1) {
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await checkStatus(page, "replayed 5 dead letters");
  check(true, "keyboard: replays all dead letters");
}

async function deleteOne(page) {
  await waitForLetters(page, 5);
  const list = page.getByRole("region", { name: "Letters" });
  await ask(page, list.getByRole("link", { name: /^Delete/ }).first(), /^Delete 1 dead letter/);
  await page.getByRole("button", { name: "Delete 1 dead letter" }).click();
  await checkStatus(page, "deleted 1 dead letter");
}

async function deleteGroup(page) {
  await waitForLetters(page, 4);
  const row = page.getByRole("region", { name: "Groups" }).getByRole("row").nth(1);
  const number = await row.locator("td.number").innerText();
  await ask(page, row.getByRole("link", { name: /^Delete/ }), new RegExp(`^Delete ${number} dead`));
  await page.getByLabel(/^To confirm, type the name of the queue/).fill("other");
  await page.getByRole("button", { name: /^Delete/ }).click();
  const alert = await page.getByRole("alert").innerText();
  check(alert.includes("Nothing was deleted"), `a wrong name: ${alert}`);
  await page.goBack();
  await page.getByLabel(/^To confirm, type the name of the queue/).fill("jobs");
  await page.getByRole("button", { name: /^Delete/ }).click();
  await checkStatus(page, `deleted ${number} dead letter`);
  return 4 - number;
}

async function deleteAll(page, left) {
  await waitForLetters(page, left);
  await ask(page, page.getByRole("link", { name: "Delete all dead letters" }), /^Delete/);
  await page.getByLabel(/^To confirm, type the name of the queue/).fill("jobs");
  await page.getByRole("button", { name: /^Delete/ }).click();
  await checkStatus(page, `deleted ${left} dead letter`);
  const text = await page.locator("main").innerText();
  check(text.includes("No dead letters."), "delete all: none is left");
}

await run(async (browser) => {
  const seen = [];
  const page = await open(browser, {}, seen);
  if (part === "cancel") {
    await cancelCall(page);
    await cancelBatch(page);
  } else {
    await replayOne(page);
    await replayGroup(page);
    await replayAll(page);
    await deleteOne(page);
    await deleteAll(page, await deleteGroup(page));
  }
  // The page that refuses a wrong name has the status 400.
  const errors = seen.filter((text) => !text.includes("status of 400"));
  check(errors.length === 0, `no error and nothing forbidden by the policy ${errors}`);
  await page.context().close();
});
