/** A bridge that only says that it is there: `node bridge.js NOTES NAME MILLISECONDS` notes when it
 * begins and when it ends; its first answer takes so long. */

const { appendFileSync } = require("node:fs");

const [notes, name, wait] = process.argv.slice(2);
const note = (what) => appendFileSync(notes, `${name} ${what}\n`);
let input = Buffer.alloc(0);

function answer({ id, method }) {
  if (method === "exit") {
    process.exit(0);
  }
  if (id === undefined) {
    return;
  }
  const status = { state: "ready", model: { model: name } };
  const results = { initialize: { capabilities: {} }, "workspace/executeCommand": status };
  const body = JSON.stringify({ jsonrpc: "2.0", id, result: results[method] ?? null });
  const message = `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  setTimeout(() => process.stdout.write(message), method === "initialize" ? Number(wait) : 0);
}

note("begins");
note(`is ${process.pid}`);
process.on("exit", () => note("ends"));
process.stdin.on("end", () => process.exit(0));
process.stdin.on("data", (data) => {
  input = Buffer.concat([input, data]);
  for (;;) {
    const head = input.indexOf("\r\n\r\n");
    const length = Number(/Content-Length: (\d+)/.exec(input.toString("latin1", 0, head))?.[1]);
    if (head < 0 || input.length < head + 4 + length) {
      return;
    }
    const message = JSON.parse(input.toString("utf8", head + 4, head + 4 + length));
    input = input.subarray(head + 4 + length);
    answer(message);
  }
});
