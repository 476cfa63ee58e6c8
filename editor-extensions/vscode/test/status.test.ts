import assert from "node:assert/strict";
import { test } from "node:test";

import { type DaemonStatus, describe, speed } from "../src/status";

const ready: DaemonStatus = {
  state: "ready",
  model: { model: "bundled", backend: "cpu kernels" },
  repositories: [{ root: "/r", files: 3, tokens: 40 }],
};

test("the state and the speed stand in the status bar", () => {
  assert.deepEqual(describe(ready, true, 812.4), {
    text: "$(sparkle) atlasd 812 tok/s",
    tooltip: "bundled is ready (cpu kernels).\n/r: 3 files, 40 tokens",
    warning: false,
  });
});

const table: [DaemonStatus, string, boolean][] = [
  [{ state: "loading", fraction: 0.42, stage: "reading weights" }, "$(loading~spin) atlasd 42 %", false],
  [{ state: "ready", engine_silent_s: 2 }, "$(sparkle) atlasd", false],
  [{ state: "ready", engine_silent_s: 7 }, "$(warning) atlasd", true],
  [{ state: "paused" }, "$(debug-pause) atlasd", false],
  [{ state: "stopped" }, "$(circle-outline) atlasd", false],
  [{ state: "stopped", error: "no daemon" }, "$(circle-outline) atlasd", true],
  [{ state: "failed", error: "out of memory" }, "$(error) atlasd", true],
];
for (const [status, text, warning] of table) {
  test(`${status.state} is shown as ${text}${warning ? " with a warning" : ""}`, () => {
    const shown = describe(status, true, undefined);
    assert.equal(shown.text, text);
    assert.equal(shown.warning, warning);
  });
}

test("switched off is shown as off whatever the daemon does", () => {
  assert.equal(describe(ready, false, 10).text, "$(circle-slash) atlasd");
});

test("speed counts what was decoded between two looks", () => {
  const at = (output_tokens: number, decode_s: number): DaemonStatus => ({
    ...ready,
    served: { output_tokens, decode_s },
  });
  assert.equal(speed(at(100, 1), at(200, 1.5)), 200);
  assert.equal(speed(at(100, 1), at(100, 1)), undefined);
  assert.equal(speed(at(100, 1), at(7, 0.1)), undefined);
  assert.equal(speed(undefined, at(5, 5)), undefined);
});
