import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { editor } from "./vscode";

interface Extension {
  activate(context: { subscriptions: { dispose(): void }[] }): Promise<void>;
  deactivate(): Promise<void>;
}

const extension = require("../extension.js") as Extension;
const context = { subscriptions: [] as { dispose(): void }[] };
const folder = mkdtempSync(join(tmpdir(), "atlasd-"));
const notes = join(folder, "notes");

/** The command of a bridge whose first answer takes so many milliseconds. */
function bridge(name: string, wait = 0): string[] {
  return [process.execPath, join(__dirname, "..", "..", "test", "bridge.js"), notes, name, `${wait}`];
}

const noted = (): string => readFileSync(notes, { encoding: "utf8", flag: "a+" });

/** Wait until a bridge has noted this. */
async function note(what: string): Promise<void> {
  while (!noted().includes(`${what}\n`)) {
    await sleep(5);
  }
}

const count = (what: string): number => noted().split("\n").filter((one) => one === what).length;

async function ended(pid: number): Promise<void> {
  try {
    for (;;) {
      process.kill(pid, 0);
      await sleep(20);
    }
  } catch {
    // There is no such process any more.
  }
}

before(async () => {
  editor.settings["command"] = ["/no/such/bridge"];
  await extension.activate(context);
});

beforeEach(() => {
  editor.warnings.length = 0;
});

after(async () => {
  await extension.deactivate();
  for (const one of context.subscriptions) {
    one.dispose();
  }
  rmSync(folder, { recursive: true });
});

test("a bridge that is slow to start is left for good when another is set", async () => {
  const left = editor.set("command", bridge("slow", 300));
  await note("slow begins");
  await editor.set("command", bridge("quick"));
  await left;
  assert.match(editor.item.tooltip, /^quick is ready/);
  await ended(Number(/slow is (\d+)/.exec(noted())?.[1]));
  // What ends unexpectedly would be started again.
  await editor.set("command", bridge("last"));
  assert.equal(count("slow begins"), 1);
  assert.deepEqual(editor.warnings, []);
});

test("the bridge is restarted once, however often that is asked for at once", async () => {
  await editor.set("command", bridge("before"));
  editor.settings["command"] = bridge("again");
  const restart = editor.commands["atlasd.restart"];
  await Promise.all([restart?.(), restart?.()]);
  await note("before ends");
  assert.match(editor.item.tooltip, /^again is ready/);
  assert.equal(count("again begins"), 1);
});

test("a command that cannot be started is told of, and the status bar shows it", async () => {
  await editor.set("command", bridge("well"));
  assert.match(editor.item.tooltip, /^well is ready/);
  await editor.set("command", ["/no/such/bridge"]);
  await note("well ends");
  assert.equal(editor.warnings.length, 1);
  assert.match(editor.warnings[0] ?? "", /could not start its bridge: .*\/no\/such\/bridge/);
  assert.match(editor.item.tooltip, /is not running/);
});
