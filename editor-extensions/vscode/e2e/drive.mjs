// Types into VS Code in a browser as a person does: opens a file, writes until ghost text stands
// there, takes a picture of it, presses Tab, saves. Prints what was suggested.
//
//   node drive.mjs URL PICTURE
//
// typing.json says what: `text` is typed at the end of `file` (its line breaks are Enter); `more`
// is what a person would go on to write, a letter at a time, until there is a suggestion.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";

// The modules lie in .cache/vscode, where install.sh put them, not beside this file.
const { chromium } = createRequire(`${process.env.E2E_MODULES}/`)("playwright-core");

const [url, picture] = process.argv.slice(2);
const { file, text, more } = JSON.parse(readFileSync(new URL("typing.json", import.meta.url), "utf8"));
const GHOST = ".editor-group-container.active .monaco-editor.focused .ghost-text-decoration";
const START_MS = 180_000;
const GHOST_MS = 8_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const page = await browser.newPage({ viewport: { width: 1200, height: 700 } });
page.setDefaultTimeout(START_MS);

try {
  await page.goto(url, { timeout: START_MS });
  await page.locator(".monaco-workbench .statusbar").waitFor({ timeout: START_MS });
  await open(file);
  // The item turns from spinning to ready when the bridge runs and the daemon has its model.
  await page
    .locator("#atlasd\\.atlasd\\.atlasd\\.status .codicon-sparkle, [id*='atlasd.status'] .codicon-sparkle")
    .first()
    .waitFor({ timeout: START_MS });
  await page.keyboard.press("Control+End");
  await type(text);
  const suggestion = await untilSuggested();
  await page.screenshot({ path: picture });
  await page.keyboard.press("Tab");
  await page.locator(GHOST).first().waitFor({ state: "hidden", timeout: GHOST_MS }).catch(() => {
    // The next suggestion may stand there already.
  });
  await page.keyboard.press("Control+s");
  await page.locator(".tab.active.dirty").waitFor({ state: "detached", timeout: 20_000 });
  console.log(JSON.stringify({ suggestion }));
} catch (error) {
  await page.screenshot({ path: picture }).catch(() => undefined);
  const shown = (await page.locator(".notifications-toasts").innerText().catch(() => "")).trim();
  console.error(`${error.message}\n${shown ? `VS Code says: ${shown}\n` : ""}picture: ${picture}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function open(name) {
  // From the explorer: the quick open box searches through the extension host, which may take long to start.
  const row = page.locator(".explorer-folders-view .monaco-list-row", { hasText: name }).first();
  await row.waitFor();
  await row.dblclick();
  await page.locator(".tab.active", { hasText: name }).waitFor();
  await page.locator(".editor-group-container.active .monaco-editor .view-line").first().click();
  await page.locator(".monaco-editor.focused .view-line").first().waitFor();
  // The side bar tells nothing here.
  await page.keyboard.press("Control+b");
}

async function type(what) {
  for (const letter of what) {
    await (letter === "\n" ? page.keyboard.press("Enter") : page.keyboard.type(letter));
    await page.waitForTimeout(30);
  }
}

/** The text of the suggestion. A small model may have nothing to say at one place, but at the next. */
async function untilSuggested() {
  for (const letter of ["", ...more]) {
    await type(letter);
    const ghost = page.locator(GHOST).first();
    if (await ghost.waitFor({ timeout: GHOST_MS }).then(() => true, () => false)) {
      await page.waitForTimeout(500);
      return (await page.locator(GHOST).allInnerTexts()).join("").replaceAll("\u00a0", " ");
    }
  }
  throw new Error(`No ghost text after ${JSON.stringify(text + more)}`);
}
