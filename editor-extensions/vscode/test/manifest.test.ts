import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { DEFAULTS } from "../src/settings";

const root = process.cwd();
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const bundle = readFileSync(join(root, "dist", "extension.js"), "utf8");

test("every command of the manifest is registered, and every setting has the default of the code", () => {
  for (const { command } of manifest.contributes.commands) {
    assert.ok(bundle.includes(`"${command}"`), command);
  }
  const properties = manifest.contributes.configuration.properties;
  for (const [key, value] of Object.entries(DEFAULTS)) {
    assert.deepEqual(properties[`atlasd.${key}`].default, value, key);
    assert.ok(properties[`atlasd.${key}`].scope, key);
  }
  assert.equal(Object.keys(properties).length, Object.keys(DEFAULTS).length);
});

test("settings that name programs cannot come from an untrusted workspace", () => {
  const restricted = manifest.capabilities.untrustedWorkspaces.restrictedConfigurations;
  assert.deepEqual(restricted, ["atlasd.command", "atlasd.daemonCommand"]);
});
