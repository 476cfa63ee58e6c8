import assert from "node:assert/strict";
import { test } from "node:test";

import { bridgeOptions, DEFAULTS, readSettings, wanted } from "../src/settings";

test("values of the wrong type fall back to their defaults", () => {
  const values: Record<string, unknown> = { enable: "yes", command: ["a", 1], maxTokens: 7 };
  assert.deepEqual(readSettings((key) => values[key]), { ...DEFAULTS, maxTokens: 7 });
});

test("an untrusted workspace cannot choose the command that starts the daemon", () => {
  const settings = { ...DEFAULTS, daemonCommand: ["evil"] };
  assert.deepEqual(bridgeOptions(settings, false)["daemonCommand"], []);
  assert.equal(bridgeOptions(settings, false)["trusted"], false);
  assert.deepEqual(bridgeOptions(settings, true)["daemonCommand"], ["evil"]);
});

test("suggestions are asked for where they are wanted", () => {
  assert.equal(wanted(DEFAULTS, "python", false), true);
  assert.equal(wanted(DEFAULTS, "scminput", true), false);
  assert.equal(wanted({ ...DEFAULTS, enable: false }, "python", true), false);
  assert.equal(wanted({ ...DEFAULTS, automatic: false }, "python", false), false);
  assert.equal(wanted({ ...DEFAULTS, automatic: false }, "python", true), true);
});
