/** The commands of package.json. */

import * as vscode from "vscode";

import type { Bridge } from "./bridge";
import { chatAboutSelection } from "./chat";
import type { StatusBar } from "./statusBar";

interface MenuItem extends vscode.QuickPickItem {
  command: string;
}

const MENU: MenuItem[] = [
  { label: "$(circle-slash) Switch completions on or off", command: "atlasd.toggle" },
  { label: "$(question) Explain the last completion", command: "atlasd.explain" },
  { label: "$(debug-pause) Pause (no model in memory)", command: "atlasd.pauseDaemon" },
  { label: "$(play) Resume", command: "atlasd.resumeDaemon" },
  { label: "$(comment) Ask about the selection", command: "atlasd.chatSelection" },
  { label: "$(refresh) Restart the bridge", command: "atlasd.restart" },
  { label: "$(output) Show log", command: "atlasd.showLog" },
];

export function registerCommands(bridge: Bridge, bar: StatusBar): vscode.Disposable[] {
  const register = (name: string, run: () => Promise<unknown>): vscode.Disposable =>
    vscode.commands.registerCommand(name, async () => {
      try {
        await run();
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        void vscode.window.showErrorMessage(`atlasd: ${message}`);
      }
      await bar.refresh();
    });
  return [
    register("atlasd.showMenu", async () => {
      const chosen = await vscode.window.showQuickPick(MENU, { title: "atlasd" });
      if (chosen) {
        await vscode.commands.executeCommand(chosen.command);
      }
    }),
    register("atlasd.toggle", async () => {
      bridge.enabled = !bridge.enabled;
    }),
    register("atlasd.pauseDaemon", () => bridge.execute("atlasd.pause")),
    register("atlasd.resumeDaemon", () => bridge.execute("atlasd.resume")),
    register("atlasd.restart", () => bridge.restart()),
    register("atlasd.explain", () => explain(bridge)),
    register("atlasd.chatSelection", () => chatAboutSelection(bridge)),
    register("atlasd.showLog", async () => bridge.log.show()),
  ];
}

async function explain(bridge: Bridge): Promise<void> {
  const content = await bridge.execute<string>("atlasd.tell", "why");
  const document = await vscode.workspace.openTextDocument({ language: "plaintext", content });
  await vscode.window.showTextDocument(document, vscode.ViewColumn.Beside);
}
