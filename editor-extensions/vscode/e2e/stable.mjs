// Makes of code-server a VS Code as everybody has it: proposed APIs only for who declares them.
// code-server's build has a check that is always true; here it is VS Code's own again, in a second
// tree of hard links to the first.
//
//   node stable.mjs CODE_SERVER COPY

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const FILES = [
  "lib/vscode/out/vs/workbench/api/node/extensionHostProcess.js",
  "lib/vscode/out/vs/workbench/api/worker/extensionHostWorkerMain.js",
  "lib/vscode/out/vs/code/browser/workbench/workbench.js",
];
// function isEnabled(e,p){return!0} followed by the function that throws by it.
const ALWAYS =
  /function ([\w$]+)\(([\w$]+),([\w$]+)\)\{return!0\}(function [\w$]+\([\w$]+,[\w$]+\)\{if\(!\1\([^{]*throw new Error\(`Extension '[^`]*CANNOT use API proposal)/g;

const [original, copy] = process.argv.slice(2);
if (!existsSync(copy)) {
  const making = `${copy}.new`;
  rmSync(making, { recursive: true, force: true });
  execFileSync("cp", ["-al", original, making]);
  for (const name of FILES) {
    const path = join(making, name);
    let found = 0;
    const text = readFileSync(path, "utf8").replace(ALWAYS, (_, check, extension, proposal, user) => {
      found += 1;
      return `function ${check}(${extension},${proposal}){return!!${extension}.enabledApiProposals?.includes(${proposal})}${user}`;
    });
    if (found !== 1) {
      throw new Error(`${name}: found ${found} checks for proposed APIs, not one; is this another code-server?`);
    }
    // A new file: writing in place would change the original as well.
    rmSync(path);
    writeFileSync(path, text);
  }
  renameSync(making, copy);
}
