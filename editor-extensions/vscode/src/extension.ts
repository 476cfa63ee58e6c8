/** atlasd in VS Code: completions from the daemon on your own machine. */

import * as vscode from "vscode";

import { Bridge } from "./bridge";
import { registerCommands } from "./commands";
import { StatusBar } from "./statusBar";

let bridge: Bridge | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const running = new Bridge();
  bridge = running;
  const bar = new StatusBar(running);
  context.subscriptions.push(
    running,
    bar,
    ...registerCommands(running, bar),
    vscode.workspace.onDidGrantWorkspaceTrust(() => running.configure()),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration("atlasd.command")) {
        await running.restart().catch(explain);
        await bar.refresh();
      } else if (event.affectsConfiguration("atlasd")) {
        await running.configure();
      }
    }),
  );
  await running.start().catch(explain);
  await bar.refresh();
}

/** Say why there is no bridge; does not wait for the user to read it. */
function explain(error: unknown): void {
  void explainMissing(error instanceof Error ? error.message : String(error));
}

async function explainMissing(message: string): Promise<void> {
  const chosen = await vscode.window.showWarningMessage(
    `atlasd could not start its bridge: ${message}. Install atlasd, or set atlasd.command to what “atlasd connect vscode” prints.`,
    "Open Settings",
  );
  if (chosen) {
    await vscode.commands.executeCommand("workbench.action.openSettings", "atlasd.command");
  }
}

export async function deactivate(): Promise<void> {
  await bridge?.stop();
}
